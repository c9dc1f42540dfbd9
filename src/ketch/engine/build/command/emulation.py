"""Emulation of other machines: whether the kernel has an interpreter for programs of a platform (binfmt_misc).

The kernel hands a program to an interpreter by its first bytes; those of a platform's programs are made here and
compared as it does (Linux, admin-guide/binfmt-misc.rst).
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from ketch.errors import FailedPrecondition
from ketch.oci import platform as platforms
from ketch.runtime.rootfs import paths

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ketch.oci.manifest import Platform

REGISTERED = "/proc/sys/fs/binfmt_misc"
# The number of a machine in ELF headers (elf.h), bits of a word, and whether the lowest byte comes first.
_MACHINES = {
    "386": (3, 32, True),
    "amd64": (62, 64, True),
    "arm": (40, 32, True),
    "arm64": (183, 64, True),
    "loong64": (258, 64, True),
    "mips64le": (8, 64, True),
    "ppc64le": (21, 64, True),
    "riscv64": (243, 64, True),
    "s390x": (22, 64, False),
}

_LEVELS = {
    "v2": {"cx16", "lahf_lm", "popcnt", "sse4_1", "sse4_2", "ssse3"},
    "v3": {"abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "xsave"},
    "v4": {"avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl"},
}


class _Interpreter(NamedTuple):
    """A registered one: what it is for, and whether the kernel holds it open (flag F), wherever it is run."""

    path: str
    held: bool
    offset: int
    magic: bytes
    mask: bytes

    def takes(self, header: bytes) -> bool:
        """Whether programs that begin so are handed to it."""
        found = header.ljust(256, b"\0")[self.offset : self.offset + len(self.magic)]
        mask = self.mask or b"\xff" * len(self.magic)
        return all((a ^ b) & c == 0 for a, b, c in zip(found, self.magic, mask, strict=False))


def is_foreign(platform: Platform | None) -> bool:
    """Whether this machine's processor does not run a platform's programs."""
    if platform is None or not platform.architecture:
        return False
    return platforms.rank(platforms.host(), msgspec.structs.replace(platform, variant=None)) is None


def check(platform: Platform, root_fd: int, registered: str = REGISTERED) -> None:
    """Check that a foreign platform's programs can run in a root (FailedPrecondition)."""
    wanted, here = platforms.text(platform), platforms.text(platforms.host())
    what = f"run a command of platform {wanted}: this machine is {here}"
    known = _MACHINES.get(platform.architecture)
    if platform.os != "linux" or known is None:
        raise FailedPrecondition(f"{what}, and nothing can stand in for the other")
    header = _header(*known)
    fitting = [one for one in _interpreters(registered) if one.takes(header)]
    if any(one.held or _is_in(root_fd, one.path) for one in fitting):
        return
    if fitting:
        raise FailedPrecondition(
            f"{what}, and the interpreter that the kernel knows for it, `{fitting[0].path}`, is not in the image",
            hint="register it with the flag F, so that it need not be",
        )
    raise FailedPrecondition(
        f"{what}, and the kernel has no interpreter for the other's programs",
        hint="install qemu-user-static and binfmt-support (qemu-user-binfmt), which register them (binfmt_misc)",
    )


def runnable(registered: str = REGISTERED) -> list[Platform]:
    """Platforms of which commands run here: this machine's own, then those that the kernel has an interpreter for."""
    here = platforms.host()
    own = [here] if here.architecture != "amd64" else [here, *(_with(here, variant=one) for one in _amd64_variants())]
    candidates = [_with(here, architecture=name, variant=None) for name in _MACHINES]
    own += [one for one in candidates if not is_foreign(one) and one.architecture != here.architecture]
    others = [one for one in candidates if is_foreign(one)]
    interpreters = list(_interpreters(registered))
    return own + [one for one in others if any(i.takes(_header(*_MACHINES[one.architecture])) for i in interpreters)]


def _with(platform: Platform, **changes: str | None) -> Platform:
    return msgspec.structs.replace(platform, **changes)


def _amd64_variants() -> list[str]:
    """Levels of the architecture that the processor has, above the first (x86-64 psABI)."""
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as f:
        flags = next((set(line.split()) for line in f if line.startswith("flags")), set())
    levels = []
    for level, needed in _LEVELS.items():
        if not needed <= flags:
            break
        levels.append(level)
    return levels


def _header(machine: int, bits: int, little: bool) -> bytes:
    """The first bytes of an executable."""
    ident = b"\x7fELF" + bytes((bits // 32, 1 if little else 2, 1)) + bytes(9)
    return ident + struct.pack("<HHI" if little else ">HHI", 2, machine, 1)


def _interpreters(registered: str) -> Iterator[_Interpreter]:
    try:
        names = sorted(os.listdir(registered))
    except FileNotFoundError:
        return
    for name in names:
        if name in ("register", "status"):
            continue
        with open(os.path.join(registered, name), encoding="ascii", errors="replace") as f:
            first, *lines = f.read().splitlines()
        values = dict(line.split(" ", 1) for line in lines if " " in line)
        if first == "enabled" and "magic" in values:
            yield _Interpreter(
                values.get("interpreter", ""),
                "F" in values.get("flags:", ""),
                int(values.get("offset", "0")),
                bytes.fromhex(values["magic"]),
                bytes.fromhex(values.get("mask", "")),
            )


def _is_in(root_fd: int, path: str) -> bool:
    try:
        os.close(paths.open_in(root_fd, path))
    except OSError:
        return False
    return True
