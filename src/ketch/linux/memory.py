"""Mappings of this process's memory (mmap, mremap, madvise(2)), and what the kernel calls its executable."""

from __future__ import annotations

import os
import struct

from ketch.linux.syscall import buffer, c_int, c_long, c_void_p, failed, function

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

PROT_READ, PROT_WRITE, PROT_EXEC = 1, 2, 4
_PROTECTIONS = {"r": PROT_READ, "w": PROT_WRITE, "x": PROT_EXEC, "-": 0}
_MAP_PRIVATE, _MAP_FIXED, _MAP_ANONYMOUS = 0x2, 0x10, 0x20
_MREMAP_MAYMOVE, _MREMAP_FIXED = 1, 2
_PR_SET_MM, _PR_SET_MM_MAP = 35, 14
_MADV_POPULATE_WRITE = 23  # since Linux 5.14
_FAILED = c_void_p(-1).value

_mmap = function("mmap", c_void_p, c_long, c_int, c_int, c_int, c_long, restype=c_void_p)
_mremap = function("mremap", c_void_p, c_long, c_long, c_int, c_void_p, restype=c_void_p)
_mprotect = function("mprotect", c_void_p, c_long, c_int)
_madvise = function("madvise", c_void_p, c_long, c_int)
_memmove = function("memmove", c_long, c_long, c_long, restype=c_void_p)
_sbrk = function("sbrk", c_long, restype=c_void_p)
_prctl = function("prctl", c_int, c_long, c_void_p, c_long, c_long)


class Mapping:
    """A range of memory that shows a file from ``offset`` on."""

    __slots__ = ("offset", "protection", "size", "start")

    def __init__(self, line: str) -> None:
        bounds, permissions, offset = line.split(maxsplit=3)[:3]
        start, end = (int(bound, 16) for bound in bounds.split("-"))
        self.start, self.size, self.offset = start, end - start, int(offset, 16)
        self.protection = sum(_PROTECTIONS[letter] for letter in permissions[:3])


def mappings_of(path: str) -> Iterator[Mapping]:
    """This process's mappings of the file that the kernel calls ``path`` (proc_pid_maps(5))."""
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as f:
        for line in f.read().split("\n"):
            if line.endswith(f" {path}"):
                yield Mapping(line)


def has_mapped(part: str) -> bool:
    """Whether a file whose path has this part in it is mapped."""
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as f:
        return part in f.read()


def make_own() -> None:
    """Copy all writable memory that is shared with the process that this one was forked from.

    The kernel copies a page when it is written to.  That takes half as long again for each by itself, and comes when
    there may be no time for it.  It is no error when there is no memory for copies: those are made later, or never.
    """
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as f:
        for line in f.read().splitlines():
            if line.split(maxsplit=2)[1] == "rw-p":
                mapping = Mapping(line)
                _madvise(mapping.start, mapping.size, _MADV_POPULATE_WRITE)


def map_file(mapping: Mapping, fd: int) -> None:
    """Show the file ``fd`` in a mapping's place, at the same offset."""
    flags = _MAP_PRIVATE | _MAP_FIXED
    if _mmap(mapping.start, mapping.size, mapping.protection, flags, fd, mapping.offset) == _FAILED:
        raise failed("mmap")


def map_copy(mapping: Mapping) -> None:
    """Put a copy that is no file's in a mapping's place; nothing may write there meanwhile."""
    copy = _mmap(None, mapping.size, PROT_READ | PROT_WRITE, _MAP_PRIVATE | _MAP_ANONYMOUS, -1, 0)
    if copy == _FAILED:
        raise failed("mmap")
    _memmove(copy, mapping.start, mapping.size)
    if _mprotect(copy, mapping.size, mapping.protection) < 0:
        raise failed("mprotect")
    if _mremap(copy, mapping.size, mapping.size, _MREMAP_MAYMOVE | _MREMAP_FIXED, mapping.start) == _FAILED:
        raise failed("mremap")


def set_executable(fd: int) -> None:
    """Make ``fd`` what /proc/PID/exe leads to (OSError; EBUSY while the file that it is yet is mapped)."""
    with open("/proc/self/stat", "rb") as f:
        fields = f.read().rpartition(b")")[2].split()
    # code, data, start of the heap; its end; stack, arguments, environment: the fields 26, 27 … of proc_pid_stat(5)
    numbers = [int(fields[number - 3]) for number in (26, 27, 45, 46, 47, 28, 48, 49, 50, 51)]
    numbers.insert(5, _sbrk(0))
    raw = struct.pack("=11QQII", *numbers, 0, 0, fd)  # struct prctl_mm_map; no auxiliary vector
    if _prctl(_PR_SET_MM, _PR_SET_MM_MAP, buffer(raw), len(raw), 0) < 0:
        raise failed("prctl")


def executable() -> str:
    """The path of this process's executable, as the kernel has it."""
    return os.readlink("/proc/self/exe")
