"""Sizes in bytes as Docker's programs read and write them (docker/go-units: RAMInBytes, FromHumanSize, HumanSize …)."""

from __future__ import annotations

from ketch.notation.digits import LARGEST

_PATTERN = (
    r"\+?(?:(?P<whole>\d{1,40})|(?P<number>(?:\d{1,40}\.\d{0,40}|\.\d{1,40}|\d{1,40}(?=e))(?:e[+-]?\d{1,3})?))"
    r" ?(?:b|(?P<unit>[kmgtp])(?:i?b)?)?"
)
_POWERS = "kmgtp"
_DECIMAL = ("B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB")
_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB")


def parse(text: str, base: int = 1024) -> int | None:
    """``512m``, ``1.5g``, ``64 MiB``, ``10`` → bytes, cut to whole ones; None for what is no size.

    The units are powers of ``base`` however they are written, as in RAMInBytes; of 1000 in FromHumanSize.  What does
    not fit into 64 bits is no size either.  Numbers without a fraction are exact; Go's have the 53 bits of a float.
    """
    import re  # here: few commands have a use for it, and each start would pay for it

    match = re.fullmatch(_PATTERN, text, re.ASCII | re.IGNORECASE)
    if match is None:
        return None
    factor = base ** (1 + _POWERS.index(match["unit"].lower())) if match["unit"] else 1
    if match["whole"]:
        size = int(match["whole"]) * factor
    else:
        number = float(match["number"]) * factor
        if number > LARGEST:  # an infinite one, too
            return None
        size = int(number)
    return size if size <= LARGEST else None


def write(size: int) -> str:
    """The shortest text that `parse` reads as this very size: ``64m``, ``1000``."""
    for shift, unit in ((50, "p"), (40, "t"), (30, "g"), (20, "m"), (10, "k")):
        if size > 0 and size % (1 << shift) == 0:
            return f"{size >> shift}{unit}"
    return str(size)


def human_size(size: float, figures: int = 3) -> str:
    """A size for people, in powers of 1000: ``4.43MB`` (three significant figures as in lists, four as in sums)."""
    return _scaled(size, 1000, _DECIMAL, figures)


def human_bytes(size: float) -> str:
    """A size for people, in powers of 1024, with four significant figures: ``1.944GiB``."""
    return _scaled(size, 1024, _BINARY, 4)


def _scaled(size: float, base: int, units: tuple[str, ...], figures: int) -> str:
    power = 0
    while size >= base and power < len(units) - 1:
        size /= base
        power += 1
    text = f"{size:.{figures}g}"
    # Go prints 1e+03kB; a number of thousands is read more easily.
    return f"{float(text):.0f}{units[power]}" if "e+" in text else text + units[power]
