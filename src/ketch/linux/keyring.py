"""Session keyrings (keyctl(2)): what a process inherits and a container must not."""

from __future__ import annotations

from ketch.linux.syscall import c_char_p, c_int, c_long, failed, number, raw

_KEYCTL_JOIN_SESSION_KEYRING = 1
_keyctl = raw("keyctl", c_int, c_char_p, c_long)
_KEYCTL = number("keyctl")


def join_session_keyring(name: str | None = None) -> None:
    """Leave the inherited session keyring for a new one (``None``: anonymous), or for the one called ``name``."""
    if _keyctl(_KEYCTL, _KEYCTL_JOIN_SESSION_KEYRING, None if name is None else name.encode(), 0) < 0:
        raise failed("keyctl")
