"""The machine's libraries that ketchd cannot be without, looked for before anything else."""

from __future__ import annotations

import ctypes
import os
from typing import NamedTuple

from ketch.errors import FailedPrecondition

_OS_RELEASE = ("/etc/os-release", "/usr/lib/os-release")


class Library(NamedTuple):
    """A library, what it is for, and which package of each family of distributions has it."""

    file: str
    purpose: str
    packages: dict[str, str]


SECCOMP = Library(
    "libseccomp.so.2",
    "to filter system calls",
    {
        "debian": "libseccomp2",
        "fedora": "libseccomp",
        "suse": "libseccomp2",
        "arch": "libseccomp",
        "alpine": "libseccomp",
    },
)
NFTABLES = Library(
    "libnftables.so.1",
    "for networks",
    {
        "debian": "libnftables1",
        "fedora": "nftables-libs",
        "suse": "libnftables1",
        "arch": "nftables",
        "alpine": "nftables",
    },
)
CPP = Library(
    "libstdc++.so.6",
    "for regular expressions and builds",
    {"debian": "libstdc++6", "fedora": "libstdc++", "suse": "libstdc++6", "arch": "gcc-libs", "alpine": "libstdc++"},
)
_INSTALL = {
    "debian": "apt install",
    "fedora": "dnf install",
    "suse": "zypper install",
    "arch": "pacman -S",
    "alpine": "apk add",
}
# Distributions that do not say which family they are of.
_FAMILIES = {"ubuntu": "debian", "rhel": "fedora", "centos": "fedora", "opensuse": "suse", "sles": "suse"}


def check(*, networks: bool) -> None:
    """Refuse to start without a library (FailedPrecondition); all that are missing are named at once.

    What is only for networks may be missing without ``networks``.
    """
    missing: list[Library] = []
    reasons: list[str] = []
    for library in (SECCOMP, NFTABLES, CPP):
        try:
            ctypes.CDLL(library.file)
        except OSError as e:
            missing.append(library)
            reasons.append(f"{library.file}, {library.purpose} ({e})")
    if missing and (networks or missing != [NFTABLES]):
        word = "library" if len(missing) == 1 else "libraries"
        hint = _hint(missing, _family(_os_release()))
        if NFTABLES in missing:
            hint += "; --bridge none does without networks"
        raise FailedPrecondition(f"start ketchd: it cannot load the {word} {'; '.join(reasons)}", hint=hint)


def _hint(missing: list[Library], family: str) -> str:
    packages = " ".join(library.packages[family or "debian"] for library in missing)
    return f"install: {_INSTALL[family]} {packages}" if family else f"install what Debian calls {packages}"


def _family(os_release: str) -> str:
    """The family of distributions that a file os-release(5) tells of; empty: none that is known."""
    values = dict(line.split("=", 1) for line in os_release.splitlines() if "=" in line)
    words = [word for key in ("ID", "ID_LIKE") for word in values.get(key, "").strip("\"'").split()]
    families = [_FAMILIES.get(word, word) for word in words]
    return next((family for family in families if family in _INSTALL), "")


def _os_release() -> str:
    for path in _OS_RELEASE:
        if os.path.exists(path):
            with open(path, encoding="utf-8", errors="replace") as f:
                return f.read()
    return ""
