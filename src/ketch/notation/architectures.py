"""Machines as Go, Docker and the OCI name them (GOARCH), from the names that uname(2) and distributions have."""

from __future__ import annotations

_GOARCH = {
    "x86_64": "amd64",
    "x86-64": "amd64",
    "aarch64": "arm64",
    "i386": "386",
    "i486": "386",
    "i586": "386",
    "i686": "386",
    "armhf": "arm",
    "armel": "arm",
    "armv6l": "arm",
    "armv7l": "arm",
    "armv8l": "arm",
    "loongarch64": "loong64",
}


def goarch(machine: str) -> str:
    """``x86_64`` → ``amd64``; a name that is Go's already, or unknown, stays (in small letters)."""
    name = machine.lower()
    return _GOARCH.get(name, name)
