"""Compilation of the spec's ``linux.seccomp`` to a BPF program.

A filter written for yesterday's system calls answers tomorrow's with its default error, usually EPERM, which
programs take for a verdict; ENOSYS would make them fall back to the older call.  So every program
starts with a prologue: system calls newer than the newest one that the profile names get ENOSYS
(runc does the same since 1.0.0-rc93).  The prologue also serves those names that the profile has and the
installed libseccomp does not know yet.
"""

from __future__ import annotations

import struct

from ketch.errors import RuntimeFailure
from ketch.linux import seccomp as native
from ketch.linux.syscall import MACHINE
from ketch.runtime.failure import failure
from ketch.runtime.security import libseccomp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ketch.runtime.oci_types import OciSeccomp, OciSyscall, OciSyscallArg


ACTIONS = {
    "SCMP_ACT_KILL": native.ACT_KILL_THREAD,
    "SCMP_ACT_KILL_THREAD": native.ACT_KILL_THREAD,
    "SCMP_ACT_KILL_PROCESS": native.ACT_KILL_PROCESS,
    "SCMP_ACT_TRAP": native.ACT_TRAP,
    "SCMP_ACT_ERRNO": native.ACT_ERRNO,
    "SCMP_ACT_TRACE": native.ACT_TRACE,
    "SCMP_ACT_LOG": native.ACT_LOG,
    "SCMP_ACT_ALLOW": native.ACT_ALLOW,
    "SCMP_ACT_NOTIFY": native.ACT_NOTIFY,
}
_WITH_ERRNO = ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE")
OPERATORS = {
    "SCMP_CMP_NE": 1,
    "SCMP_CMP_LT": 2,
    "SCMP_CMP_LE": 3,
    "SCMP_CMP_EQ": 4,
    "SCMP_CMP_GE": 5,
    "SCMP_CMP_GT": 6,
    "SCMP_CMP_MASKED_EQ": 7,
}
# Calls younger than the libseccomp 2.5 of Debian 12; the numbers are the same everywhere.
_RECENT = {
    "cachestat": 451,
    "fchmodat2": 452,
    "map_shadow_stack": 453,
    "futex_wake": 454,
    "futex_wait": 455,
    "futex_requeue": 456,
    "statmount": 457,
    "listmount": 458,
    "lsm_get_self_attr": 459,
    "lsm_set_self_attr": 460,
    "lsm_list_modules": 461,
    "mseal": 462,
    "setxattrat": 463,
    "getxattrat": 464,
    "listxattrat": 465,
    "removexattrat": 466,
    "open_tree_attr": 467,
    "file_getattr": 468,
    "file_setattr": 469,
}
_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_EPERM, _ENOSYS, _EACCES, _EEXIST = 1, 38, 13, 17

_library: Any = None


def compile_profile(profile: OciSeccomp) -> bytes:
    """The BPF program of a profile (RuntimeFailure with step ``seccomp``)."""
    lib = _load()
    default = _action(profile.get("defaultAction"), profile.get("defaultErrnoRet"))
    context = lib.seccomp_init(default)
    if not context:
        raise RuntimeFailure("compile seccomp profile: libseccomp refuses its default action", step="seccomp")
    try:
        _add_architectures(lib, context, profile.get("architectures") or [])
        # A balanced tree instead of a list of comparisons; only speed is lost where it is refused.
        lib.seccomp_attr_set(context, libseccomp.ATTR_OPTIMIZE, 2)
        newest = 0
        recent: list[tuple[int, int]] = []
        for rule in profile.get("syscalls") or ():
            newest = max(newest, _add_rule(lib, context, rule, default, recent))
        program = libseccomp.export(lib, context)
    except OSError as e:
        raise failure("seccomp", "compile seccomp profile", e) from e
    finally:
        lib.seccomp_release(context)
    return _prologue(default, newest, recent) + program


def library_version() -> str:
    """The version of libseccomp, on which depends which system calls it knows (RuntimeFailure: it is missing)."""
    return libseccomp.version(_load())


def library_file() -> str:
    """The file that libseccomp was loaded from (RuntimeFailure: it is missing)."""
    _load()
    return libseccomp.library_file()


def _load() -> Any:
    global _library
    if _library is None:
        try:
            _library = libseccomp.load_library()
        except OSError as e:
            hint = "install libseccomp2, or run with seccomp=unconfined"
            raise RuntimeFailure("compile seccomp profile: libseccomp is missing", step="seccomp", hint=hint) from e
    return _library


def _action(name: object, errno_ret: int | None) -> int:
    if not isinstance(name, str) or name not in ACTIONS:
        raise RuntimeFailure(f"compile seccomp profile: unsupported action `{name}`", step="seccomp")
    if name in _WITH_ERRNO:
        return ACTIONS[name] | ((_EPERM if errno_ret is None else errno_ret) & 0xFFFF)
    return ACTIONS[name]


def _add_architectures(lib: Any, context: int, names: list[str]) -> None:
    for name in names:
        token = lib.seccomp_arch_resolve_name(name.removeprefix("SCMP_ARCH_").lower().encode())
        if token == 0:
            raise RuntimeFailure(f"compile seccomp profile: unknown architecture `{name}`", step="seccomp")
        result = lib.seccomp_arch_add(context, token)
        if result < 0 and result != -_EEXIST:
            raise OSError(-result, "seccomp_arch_add")


def _add_rule(lib: Any, context: int, rule: OciSyscall, default: int, recent: list[tuple[int, int]]) -> int:
    """Add one rule for each of its names; returns the highest number seen on the native architecture."""
    action = _action(rule.get("action"), rule.get("errnoRet"))
    args = rule.get("args") or []
    alternatives = _comparisons(args)
    newest = 0
    for name in rule.get("names") or ():
        nr = lib.seccomp_syscall_resolve_name(name.encode())
        if nr == -1:  # not known to this libseccomp
            if name in _RECENT:
                newest = max(newest, _RECENT[name])
                if not args:
                    recent.append((_RECENT[name], action))
            continue
        newest = max(newest, nr)
        if action == default:
            continue  # libseccomp calls a rule that changes nothing an error
        for comparisons in alternatives:
            array = (libseccomp.ArgCmp * len(comparisons))(*comparisons)
            result = lib.seccomp_rule_add_array(context, action, nr, len(comparisons), array)
            if result < 0:
                raise OSError(-result, f"seccomp_rule_add {name}")
    return newest


def _comparisons(args: list[OciSyscallArg]) -> list[list[libseccomp.ArgCmp]]:
    """The rule's conditions: all must hold, except that several on one argument are alternatives (as runc has it)."""
    out = []
    for arg in args:
        operator = OPERATORS.get(arg.get("op") or "")
        if operator is None:
            raise RuntimeFailure(f"compile seccomp profile: unknown operator `{arg.get('op')}`", step="seccomp")
        out.append(libseccomp.ArgCmp(arg.get("index", 0), operator, arg.get("value", 0), arg.get("valueTwo") or 0))
    indexes = [comparison.arg for comparison in out]
    if len(set(indexes)) != len(indexes):
        return [[comparison] for comparison in out]
    return [out]


def _prologue(default: int, newest: int, recent: list[tuple[int, int]]) -> bytes:
    """Instructions placed before libseccomp's; see the module's text.  Falls through with nothing decided."""
    if default & 0xFFFF0000 != native.ACT_ERRNO or MACHINE not in _AUDIT_ARCH or not newest:
        return b""

    def statement(code: int, k: int, jt: int = 0, jf: int = 0) -> bytes:
        return struct.pack("=HBBI", code, jt, jf, k)

    load, equal, greater, ret = 0x20, 0x15, 0x25, 0x06  # BPF_LD|W|ABS, JMP|JEQ|K, JMP|JGT|K, RET|K
    body = statement(load, 0)  # seccomp_data.nr
    for nr, action in recent:
        body += statement(equal, nr, 0, 1) + statement(ret, action)
    # x32 calls carry bit 30 and are left to the filter proper
    body += statement(greater, 0x3FFFFFFF, 2, 0)
    body += statement(greater, newest, 0, 1) + statement(ret, native.ACT_ERRNO | _ENOSYS)
    skip = len(body) // 8
    if skip > 255:
        return b""
    return statement(load, 4) + statement(equal, _AUDIT_ARCH[MACHINE], 0, skip) + body
