"""Signals by name and number as Docker's users write them (moby/sys/signal, ParseSignal), on x86-64 and arm64."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]

from ketch.notation import digits

_FIRST_REAL_TIME, _LAST = 34, 64  # those below the first one are the C library's own
_NUMBERS: dict[str, int] = {
    name.removeprefix("SIG"): int(number)
    for name, number in vars(_signal).items()
    if name.startswith("SIG") and not name.startswith("SIG_") and isinstance(number, int)
}


def parse(text: str) -> int | None:
    """``SIGTERM``, ``term``, ``15``, ``RTMIN+3``, ``RTMAX-2`` → the number; None for what is no signal."""
    number = digits.whole(text, _LAST)
    if number is not None:
        return number or None
    name = text.upper().removeprefix("SIG")
    for base, sign, start in (("RTMIN", "+", _FIRST_REAL_TIME), ("RTMAX", "-", _LAST)):
        if name.startswith(base + sign):
            further = digits.whole(name[len(base) + 1 :], _LAST - _FIRST_REAL_TIME)
            return None if further is None else start + further if sign == "+" else start - further
    return _NUMBERS.get(name)
