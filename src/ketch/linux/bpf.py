"""bpf(2), as far as device access on cgroup v2 needs it: a small assembler, loading, attaching."""

from __future__ import annotations

import os
import struct

from ketch.linux.syscall import addressof, buffer, c_int, c_long, c_void_p, failed, number, raw

DEVCG_ACC_MKNOD = 1
DEVCG_ACC_READ = 2
DEVCG_ACC_WRITE = 4
DEVCG_DEV_BLOCK = 1
DEVCG_DEV_CHAR = 2

_PROG_LOAD, _PROG_ATTACH = 5, 8
_PROG_TYPE_CGROUP_DEVICE = 15
_ATTACH_CGROUP_DEVICE = 6
_ALLOW_MULTI = 2

# opcodes: class | size or operation | source
_LDX_W = 0x61
_MOV64_IMM, _MOV32_REG = 0xB7, 0xBC
_AND32_IMM, _RSH32_IMM = 0x54, 0x74
_JNE_IMM, _JEQ_IMM, _JSET_IMM, _JA = 0x55, 0x15, 0x45, 0x05
_EXIT = 0x95

_bpf = raw("bpf", c_int, c_void_p, c_long)
_BPF = number("bpf")


class Assembler:
    """Builds a device program: r2 type, r3 wanted accesses, r4 major, r5 minor; each rule falls through to the next."""

    def __init__(self) -> None:
        self._code: list[bytes] = []

    def prologue(self) -> None:
        """Load struct bpf_cgroup_dev_ctx {u32 access_type, major, minor}; access_type = access << 16 | type."""
        self._add(_LDX_W, 3, 1, 0, 0)
        self._add(_MOV32_REG, 2, 3, 0, 0)
        self._add(_AND32_IMM, 2, 0, 0, 0xFFFF)
        self._add(_RSH32_IMM, 3, 0, 0, 16)
        self._add(_LDX_W, 4, 1, 4, 0)
        self._add(_LDX_W, 5, 1, 8, 0)

    def rule(self, allow: bool, kind: int | None, major: int | None, minor: int | None, access: int) -> None:
        """One rule: on a device that matches, grant or refuse the accesses in ``access``; None matches all."""
        conditions = [(register, value) for register, value in ((2, kind), (4, major), (5, minor)) if value is not None]
        body = self._allow(access) if allow else self._deny(access)
        for index, (register, value) in enumerate(conditions):
            self._add(_JNE_IMM, register, 0, len(conditions) - index - 1 + len(body), value)
        self._code += body

    def refuse(self) -> None:
        """Append the default: refuse."""
        self._add(_MOV64_IMM, 0, 0, 0, 0)
        self._add(_EXIT, 0, 0, 0, 0)

    def code(self) -> bytes:
        """The finished program."""
        return b"".join(self._code)

    def _allow(self, access: int) -> list[bytes]:
        """Remove the granted accesses from the wanted ones; allow when none is left."""
        return [
            _instruction(_AND32_IMM, 3, 0, 0, ~access & 7),
            _instruction(_JNE_IMM, 3, 0, 2, 0),
            _instruction(_MOV64_IMM, 0, 0, 0, 1),
            _instruction(_EXIT, 0, 0, 0, 0),
        ]

    def _deny(self, access: int) -> list[bytes]:
        """Refuse the request if any wanted access is refused."""
        return [
            _instruction(_JSET_IMM, 3, 0, 1, access),
            _instruction(_JA, 0, 0, 2, 0),
            _instruction(_MOV64_IMM, 0, 0, 0, 0),
            _instruction(_EXIT, 0, 0, 0, 0),
        ]

    def _add(self, code: int, dst: int, src: int, offset: int, immediate: int) -> None:
        self._code.append(_instruction(code, dst, src, offset, immediate))


def load_cgroup_device(program: bytes) -> int:
    """Load a program of type BPF_PROG_TYPE_CGROUP_DEVICE; the descriptor is the caller's."""
    code, licence = buffer(program), buffer(b"Apache-2.0\0")
    attributes = struct.pack("=IIQQ", _PROG_TYPE_CGROUP_DEVICE, len(program) // 8, addressof(code), addressof(licence))
    fd = _call(_PROG_LOAD, attributes + bytes(96))
    os.set_inheritable(fd, False)
    return fd


def attach_cgroup_device(cgroup_fd: int, program_fd: int) -> None:
    """Attach a loaded program to a cgroup; it stays as long as the cgroup does."""
    _call(_PROG_ATTACH, struct.pack("=IIII", cgroup_fd, program_fd, _ATTACH_CGROUP_DEVICE, _ALLOW_MULTI) + bytes(16))


def _instruction(code: int, dst: int, src: int, offset: int, immediate: int) -> bytes:
    return struct.pack("=BBhi", code, src << 4 | dst, offset, immediate)


def _call(command: int, attributes: bytes) -> int:
    result = _bpf(_BPF, command, buffer(attributes), len(attributes))
    if result < 0:
        raise failed("bpf")
    return result
