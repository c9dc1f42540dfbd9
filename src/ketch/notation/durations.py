"""Durations in nanoseconds as Go reads and writes them (time.ParseDuration, time.Duration.String)."""

from __future__ import annotations

from ketch.notation.digits import LARGEST

_UNITS = {
    "ns": 1,
    "us": 10**3,
    "\u00b5s": 10**3,
    "\u03bcs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_PART = rf"(?:\d{{1,40}}(?:\.\d{{0,40}})?|\.\d{{1,40}})(?:{'|'.join(_UNITS)})"
_PATTERN = rf"([+-]?)((?:{_PART})+)"
_NUMBER = r"(\d{0,40})(?:\.(\d{0,40}))?([^\d.]+)"


def parse(text: str) -> int | None:
    """``1m30s``, ``1.5h``, ``-500ms``, ``0`` → nanoseconds; None for what is no duration, or none of 64 bits."""
    if text in ("0", "+0", "-0"):
        return 0
    import re  # here: few commands have a use for it, and each start would pay for it

    match = re.fullmatch(_PATTERN, text, re.ASCII)
    if match is None:
        return None
    total = sum(_part(*part) for part in re.findall(_NUMBER, match[2], re.ASCII))
    if match[1] == "-":
        return -total if total <= LARGEST + 1 else None
    return total if total <= LARGEST else None


def _part(whole: str, fraction: str, unit: str) -> int:
    """A number with its unit; of a fraction as many figures as fit into 64 bits, rounded as Go's floats are."""
    figures, scale = 0, 1.0
    for figure in fraction:
        longer = figures * 10 + int(figure)
        if longer > 1 << 63:
            break
        figures, scale = longer, scale * 10
    return int(whole or "0") * _UNITS[unit] + int(figures * (_UNITS[unit] / scale))


def write(ns: int) -> str:
    """A duration as Go prints it: ``1m30s``, ``1h0m0s``, ``1.5s``, ``20ms``, ``0s``."""
    sign, ns = ("-", -ns) if ns < 0 else ("", ns)
    if ns < 10**9:
        for factor, unit in ((10**6, "ms"), (10**3, "µs"), (1, "ns")):
            if ns >= factor:
                return f"{sign}{_decimal(ns, factor)}{unit}"
        return "0s"
    minutes, rest = divmod(ns, 60 * 10**9)
    hours, minutes = divmod(minutes, 60)
    seconds = _decimal(rest, 10**9) + "s"
    if hours:
        return f"{sign}{hours}h{minutes}m{seconds}"
    return f"{sign}{minutes}m{seconds}" if minutes else sign + seconds


def _decimal(value: int, factor: int) -> str:
    """``value`` in units of ``factor``, a power of ten, without zeros at the end."""
    whole, rest = divmod(value, factor)
    return f"{whole}.{rest:0{len(str(factor)) - 1}}".rstrip("0") if rest else str(whole)
