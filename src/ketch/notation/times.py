"""Points in time, in nanoseconds since 1970, as Docker writes them: RFC 3339.  (Reading is in `moments`.)"""

from __future__ import annotations

import time

NEVER = "0001-01-01T00:00:00Z"  # Go's zero time


def rfc3339(ns: int) -> str:
    """Go's RFC3339Nano in UTC: ``2024-01-02T03:04:05.1234Z``, without zeros at the end."""
    second, rest = divmod(ns, 10**9)
    return f"{_second(time.gmtime(second))}{_fraction(rest)}Z"


def rfc3339_or_never(ns: int) -> str:
    """The same; a time that is not set (0 or less) is Go's zero time."""
    return rfc3339(ns) if ns > 0 else NEVER


def fixed(ns: int) -> str:
    """A time with nine decimal places: ``2024-01-02T03:04:05.120000000Z``."""
    second, rest = divmod(ns, 10**9)
    return f"{_second(time.gmtime(second))}.{rest:09}Z"


def local(ns: int, figures: int = 9) -> str:
    """A time in this process's zone, with so many figures: ``2024-01-02T03:04:05.120000000+01:00``; UTC is ``Z``."""
    second, rest = divmod(ns, 10**9)
    moment = time.localtime(second)
    fraction = f".{rest:09}"[: figures + 1] if figures else ""
    minutes = moment.tm_gmtoff // 60
    zone = f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}" if minutes else "Z"
    return _second(moment) + fraction + zone


class Clock:
    """Formatter of times that caches the text of the last second."""

    def __init__(self) -> None:
        self._at: int | None = None
        self._text = ""

    def second(self, second: int) -> str:
        """``2024-01-02T03:04:05``, UTC."""
        if second != self._at:
            self._at, self._text = second, _second(time.gmtime(second))
        return self._text

    def rfc3339(self, ns: int) -> str:
        """The same as the module's function of this name."""
        second, rest = divmod(ns, 10**9)
        return f"{self.second(second)}{_fraction(rest)}Z"

    def fixed(self, ns: int) -> str:
        """The same as the module's function of this name."""
        second, rest = divmod(ns, 10**9)
        return f"{self.second(second)}.{rest:09}Z"


def _second(moment: time.struct_time) -> str:
    year, month, day, hour, minute, second = moment[:6]
    return f"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}"


def _fraction(ns: int) -> str:
    return f".{ns:09}".rstrip("0") if ns else ""
