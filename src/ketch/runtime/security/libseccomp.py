"""libseccomp, which compiles filters: loaded when one is compiled, which few processes do."""

from __future__ import annotations

import ctypes
import os
from ctypes import c_char_p, c_int, c_uint, c_uint32, c_uint64, c_void_p

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ATTR_BADARCH = 2
ATTR_OPTIMIZE = 8


class ArgCmp(ctypes.Structure):
    """struct scmp_arg_cmp: compare argument ``arg`` by ``op`` with ``datum_a`` (and ``datum_b`` for masks)."""

    _fields_ = (("arg", c_int), ("op", c_int), ("datum_a", c_uint64), ("datum_b", c_uint64))


def load_library() -> Any:
    """libseccomp with its functions' types declared; OSError when it is not installed."""
    lib = ctypes.CDLL("libseccomp.so.2")
    lib.seccomp_init.argtypes, lib.seccomp_init.restype = (c_uint32,), c_void_p
    lib.seccomp_release.argtypes, lib.seccomp_release.restype = (c_void_p,), None
    lib.seccomp_arch_native.argtypes, lib.seccomp_arch_native.restype = (), c_uint32
    lib.seccomp_arch_resolve_name.argtypes, lib.seccomp_arch_resolve_name.restype = (c_char_p,), c_uint32
    lib.seccomp_arch_add.argtypes = lib.seccomp_arch_remove.argtypes = (c_void_p, c_uint32)
    lib.seccomp_attr_set.argtypes = (c_void_p, c_int, c_uint32)
    lib.seccomp_syscall_resolve_name.argtypes = (c_char_p,)
    lib.seccomp_rule_add_array.argtypes = (c_void_p, c_uint32, c_int, ctypes.c_uint, c_void_p)
    lib.seccomp_export_bpf.argtypes = (c_void_p, c_int)
    lib.seccomp_version.argtypes, lib.seccomp_version.restype = (), ctypes.POINTER(c_uint * 3)
    return lib


def library_file() -> str:
    """The file that libseccomp was loaded from."""
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as f:
        return next(line.rstrip("\n").split(maxsplit=5)[5] for line in f if "/libseccomp.so" in line)


def version(lib: Any) -> str:
    """The version of libseccomp, as 2.5.4."""
    return ".".join(str(part) for part in lib.seccomp_version().contents)


def export(lib: Any, context: int) -> bytes:
    """The BPF program of a libseccomp context."""
    fd = os.memfd_create("seccomp", os.MFD_CLOEXEC)
    try:
        result = lib.seccomp_export_bpf(context, fd)
        if result < 0:
            raise OSError(-result, f"seccomp_export_bpf: {os.strerror(-result)}")
        os.lseek(fd, 0, os.SEEK_SET)
        return os.read(fd, os.fstat(fd).st_size)
    finally:
        os.close(fd)
