"""Detach keys: the sequence that takes a terminal off a container without stopping it."""

from __future__ import annotations

from ketch.errors import InvalidArgument

DEFAULT = "ctrl-p,ctrl-q"
_SPECIAL = {"@": 0, "[": 27, "\\": 28, "]": 29, "^": 30, "_": 31}


def parse(text: str) -> bytes:
    """``ctrl-p,ctrl-q`` → the bytes that a terminal sends; empty text means the default (InvalidArgument)."""
    result = bytearray()
    for key in (text or DEFAULT).split(","):
        lower = key.lower()
        if lower.startswith("ctrl-") and len(key) == 6:
            letter = lower[5]
            if "a" <= letter <= "z":
                result.append(ord(letter) - 96)
                continue
            if letter in _SPECIAL:
                result.append(_SPECIAL[letter])
                continue
        elif len(key) == 1 and key.isascii():
            result.append(ord(key))
            continue
        raise InvalidArgument(
            f"Invalid detach keys ({text}) provided: `{key}` is not a key", hint="use e.g. ctrl-p,ctrl-q"
        )
    return bytes(result)


class Matcher:
    """The matcher of the sequence in input that arrives in pieces."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._held = b""

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """(bytes to pass on, whether the sequence is complete); bytes after the sequence are dropped."""
        data = self._held + data
        self._held = b""
        at = data.find(self._keys)
        if at >= 0:
            return data[:at], True
        for length in range(min(len(self._keys) - 1, len(data)), 0, -1):
            if data.endswith(self._keys[:length]):
                self._held = data[-length:]
                return data[:-length], False
        return data, False

    def flush(self) -> bytes:
        """The bytes held back, at the end of the input."""
        held, self._held = self._held, b""
        return held
