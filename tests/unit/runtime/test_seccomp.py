"""The default seccomp profile and the compiler, judged by what the kernel does in a forked process."""

from __future__ import annotations

import ctypes
import errno
import os
from typing import TYPE_CHECKING

import pytest

from ketch.errors import RuntimeFailure
from ketch.linux import prctl
from ketch.runtime import defaults
from ketch.runtime.security import seccomp, seccomp_default

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

AF_VSOCK = 40
NEWEST_KNOWN, UNKNOWN = 462, 1000


def in_child(profile: dict[str, Any], action: Callable[[], int]) -> int:
    """Run ``action`` under ``profile`` in a fork; its result, an error number, comes back as exit code."""
    program = seccomp.filter_of(profile)
    pid = os.fork()
    if pid == 0:
        code = 250
        try:
            prctl.set_no_new_privs()
            program.install()
            code = action()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def call(number: int, *args: int) -> Callable[[], int]:
    libc = ctypes.CDLL(None, use_errno=True)
    return lambda: 0 if libc.syscall(ctypes.c_long(number), *map(ctypes.c_ulong, args)) >= 0 else ctypes.get_errno()


def names(profile: dict[str, Any]) -> set[str]:
    return {name for rule in profile["syscalls"] if rule["action"] == "SCMP_ACT_ALLOW" for name in rule["names"]}


def test_capabilities_unlock_calls() -> None:
    plain = names(seccomp_default.profile(defaults.DEFAULT_CAPS, "x86_64"))
    admin = names(seccomp_default.profile([*defaults.DEFAULT_CAPS, "CAP_SYS_ADMIN"], "x86_64"))
    assert "mount" not in plain
    assert {"mount", "bpf", "unshare", "setns"} <= admin
    assert "chroot" in plain  # CAP_SYS_CHROOT is a default
    assert "open_by_handle_at" not in admin
    assert "arch_prctl" in plain
    assert "arch_prctl" not in names(seccomp_default.profile([], "aarch64"))


def test_dockers_own_format() -> None:
    document = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
        "syscalls": [
            {"names": ["read"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["arch_prctl"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["amd64"]}},
            {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "99.0"}},
        ],
    }
    assert names(seccomp_default.from_docker(document, [], "x86_64")) == {"read", "clone", "arch_prctl"}
    assert names(seccomp_default.from_docker(document, ["CAP_SYS_ADMIN"], "aarch64")) == {"read", "mount"}
    assert seccomp_default.from_docker(document, [], "x86_64")["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]


def test_an_oci_profile_passes_unchanged() -> None:
    profile = seccomp_default.profile(defaults.DEFAULT_CAPS)
    assert seccomp_default.from_docker(profile, defaults.DEFAULT_CAPS) == profile


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers are this machine's")
@pytest.mark.parametrize(
    ("number", "args", "expected"),
    [
        (39, (), 0),  # getpid
        (165, (0, 0, 0, 0, 0), errno.EPERM),  # mount
        (435, (0, 0), errno.ENOSYS),  # clone3: so that libc falls back
        (56, (0x10000000,), errno.EPERM),  # clone with CLONE_NEWUSER
        (135, (0xFFFFFFFF,), 0),  # personality: ask
        (135, (0x0040000,), errno.EPERM),  # personality: ADDR_NO_RANDOMIZE
        (41, (AF_VSOCK, 1, 0), errno.EPERM),  # socket
        (452, (2**32 - 1, 0, 0, 0), errno.EBADF),  # fchmodat2: allowed, though younger than Debian 12's libseccomp
        (UNKNOWN, (), errno.ENOSYS),
    ],
)
def test_the_default_profile_in_force(number: int, args: tuple[int, ...], expected: int) -> None:
    got = in_child(seccomp_default.profile(defaults.DEFAULT_CAPS), call(number, *args))
    assert got == expected or (number == 452 and got in (errno.EFAULT, errno.ENOSYS))


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers are this machine's")
def test_the_profile_for_nested_containers() -> None:
    """Namespaces and mounts, which the kernel guards by itself, and nothing else that the default forbids."""
    profile = seccomp_default.profile(defaults.DEFAULT_CAPS, nesting=True)
    more = names(profile) - names(seccomp_default.profile(defaults.DEFAULT_CAPS))
    assert {"unshare", "setns", "mount", "pivot_root", "clone3"} <= more
    assert not more & {"bpf", "perf_event_open", "reboot", "syslog", "quotactl", "keyctl", "open_by_handle_at"}
    assert in_child(profile, call(272, 0)) == 0  # unshare
    assert in_child(profile, call(321, 0, 0, 0)) == errno.EPERM  # bpf


def test_equal_profiles_share_a_program() -> None:
    profile = seccomp_default.profile(["CAP_CHOWN"])
    assert seccomp.compiled(profile) is None
    seccomp.warm(profile)
    again = seccomp_default.profile(["CAP_CHOWN"])
    assert again is not profile
    assert seccomp.compiled(again) is seccomp.compiled(profile) is not None


@pytest.mark.parametrize(
    ("profile", "text"),
    [
        ({"defaultAction": "SCMP_ACT_FLY"}, "unsupported action `SCMP_ACT_FLY`"),
        ({}, "unsupported action `None`"),
        (
            {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_Z80"]},
            "unknown architecture `SCMP_ARCH_Z80`",
        ),
        (
            {
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{"names": ["read"], "action": "SCMP_ACT_KILL", "args": [{"index": 0, "op": "??"}]}],
            },
            "unknown operator `??`",
        ),
    ],
)
def test_wrong_profiles_are_explained(profile: dict[str, Any], text: str) -> None:
    with pytest.raises(RuntimeFailure) as caught:
        seccomp.compile_profile(profile)
    assert text in caught.value.message
    assert caught.value.step == "seccomp"
