"""AppArmor profiles and SELinux labels that a process gets at its next execve (proc_pid_attr(5))."""

from __future__ import annotations

from errno import EINVAL, ENOENT

from ketch.errors import RuntimeFailure
from ketch.runtime.failure import failure


def prepare_exec(apparmor: str, selinux: str) -> None:
    """Ask for a profile or label; called while still root, for /proc/self/attr is root's.

    A name that the kernel does not know, or a module that it does not have, is an error: a container must not run with
    less confinement than it was given.
    """
    if apparmor and apparmor != "unconfined":
        _write(
            ["/proc/self/attr/apparmor/exec", "/proc/self/attr/exec"], f"exec {apparmor}", "AppArmor profile", apparmor
        )
    if selinux:
        _write(["/proc/self/attr/exec"], selinux, "SELinux label", selinux)


def _write(paths: list[str], value: str, what: str, name: str) -> None:
    error: OSError | None = None
    for path in paths:
        try:
            with open(path, "wb", buffering=0) as file:
                file.write(value.encode())
            return
        except OSError as e:
            error = e
            if e.errno != ENOENT:
                break
    assert error is not None
    if error.errno in (ENOENT, EINVAL):
        hint = f"is {what.split()[0]} enabled in this kernel, and is the name loaded?"
        raise RuntimeFailure(f"set {what} `{name}`: not available", step="lsm", errno=error.errno, hint=hint)
    raise failure("lsm", f"set {what} `{name}`", error)
