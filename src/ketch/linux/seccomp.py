"""Seccomp filters: libseccomp (loaded when first needed) to compile them, seccomp(2) to install them."""

from __future__ import annotations

import ctypes
import os
from ctypes import c_char_p, c_int, c_uint32, c_uint64, c_void_p

from ketch.linux.syscall import failed, number, raw

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


ACT_KILL_PROCESS = 0x80000000
ACT_KILL_THREAD = 0x00000000
ACT_TRAP = 0x00030000
ACT_ERRNO = 0x00050000
ACT_NOTIFY = 0x7FC00000
ACT_TRACE = 0x7FF00000
ACT_LOG = 0x7FFC0000
ACT_ALLOW = 0x7FFF0000

FILTER_FLAG_TSYNC = 1
FILTER_FLAG_LOG = 2
FILTER_FLAG_SPEC_ALLOW = 4
FILTER_FLAG_NEW_LISTENER = 8
FILTER_FLAG_WAIT_KILLABLE_RECV = 32

ATTR_BADARCH = 2
ATTR_OPTIMIZE = 8

_SET_MODE_FILTER = 1
_seccomp = raw("seccomp", c_int, c_int, c_void_p)
_SECCOMP = number("seccomp")


class ArgCmp(ctypes.Structure):
    """struct scmp_arg_cmp: compare argument ``arg`` by ``op`` with ``datum_a`` (and ``datum_b`` for masks)."""

    _fields_ = (("arg", c_int), ("op", c_int), ("datum_a", c_uint64), ("datum_b", c_uint64))


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("len", ctypes.c_ushort), ("filter", c_void_p))


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
    return lib


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


def install(program: bytes, flags: int = 0) -> int:
    """Install a filter on the calling thread: 8 bytes an instruction, at most 4096 of them.

    Needs no_new_privs or CAP_SYS_ADMIN.  With NEW_LISTENER the result is the notification descriptor.
    """
    buffer = ctypes.create_string_buffer(program, len(program))
    prog = _Program(len(program) // 8, ctypes.cast(buffer, c_void_p))
    result = _seccomp(_SECCOMP, _SET_MODE_FILTER, flags, ctypes.addressof(prog))
    if result < 0:
        raise failed("seccomp")
    return result
