"""AppArmor profiles and SELinux labels that a process gets at its next execve (proc_pid_attr(5))."""

from __future__ import annotations

import os
from errno import EINVAL, ENOENT

from ketch.errors import RuntimeFailure
from ketch.linux import nodes
from ketch.linux.openat2 import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV, openat2
from ketch.runtime.failure import failure

_STRICT = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV


class Labels:
    """An AppArmor profile and an SELinux label; `open` them while /proc is the host's.

    The container's /proc would not do: what is mounted over ``attr/exec`` there would take the profile, and the program
    would run without (CVE-2019-16884, CVE-2025-52881).
    """

    __slots__ = ("_apparmor", "_self_fd", "_selinux")

    def __init__(self, apparmor: str, selinux: str) -> None:
        self._apparmor = "" if apparmor == "unconfined" else apparmor
        self._selinux = selinux
        self._self_fd = -1

    def open(self) -> None:
        """Open the calling process's directory in the host's /proc; a forked process does it again."""
        if self._apparmor or self._selinux:
            if self._self_fd >= 0:
                os.close(self._self_fd)
            self._self_fd = os.open("/proc/self", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            if nodes.file_system(self._self_fd) != nodes.PROC:
                raise RuntimeFailure("set security label: `/proc` is not a procfs", step="lsm")

    def prepare_keyring(self) -> None:
        """Request the SELinux label for a session keyring that is made next, which the program is to use."""
        if self._selinux:
            self._request_label(self._selinux, "keycreate")

    def prepare_exec(self) -> None:
        """Request the labels for the next execve; called as root, who owns the files in /proc/self/attr.

        A name that the kernel does not know, or a module that it does not have, is an error: a container must not run
        with less confinement than it was given.
        """
        if self._apparmor:
            self._request_profile(self._apparmor)
        if self._selinux:
            self._request_label(self._selinux, "exec")
        if self._self_fd >= 0:
            os.close(self._self_fd)

    def _request_profile(self, name: str) -> None:
        """Have the kernel change to an AppArmor profile; errors in runc's words."""
        path, what = "attr/apparmor/exec", "unable to apply apparmor profile"
        try:
            fd = openat2(self._self_fd, path, os.O_WRONLY, 0, _STRICT)
        except OSError as e:
            if e.errno != ENOENT:
                raise failure("lsm", f"{what}: open /proc/self/{path}", e) from e
            why = f"{what}: apparmor: config provided but apparmor not supported"
            hint = f"the kernel has no AppArmor; `{name}` is a profile of it"
            raise RuntimeFailure(why, step="lsm", errno=ENOENT, hint=hint) from e
        try:
            os.write(fd, f"exec {name}".encode())
        except OSError as e:
            hints = {
                ENOENT: f"is the profile `{name}` loaded? aa-status lists those that are",
                EINVAL: f"the kernel's AppArmor is off; `{name}` is a profile of it",
            }
            what = f"{what}: apparmor failed to apply profile: write /proc/self/{path}"
            raise failure("lsm", what, e, hints.get(e.errno or 0)) from e
        finally:
            os.close(fd)

    def _request_label(self, label: str, attribute: str) -> None:
        """Have the kernel change to an SELinux label, or give it to what is made."""
        what = f"set SELinux label `{label}`"
        try:
            fd = openat2(self._self_fd, f"attr/{attribute}", os.O_WRONLY, 0, _STRICT)
            try:
                os.write(fd, label.encode())
            finally:
                os.close(fd)
        except OSError as e:
            if e.errno not in (ENOENT, EINVAL):
                raise failure("lsm", what, e) from e
            hint = "is SELinux enabled in this kernel, and is the name loaded?"
            raise RuntimeFailure(f"{what}: not available", step="lsm", errno=e.errno, hint=hint) from e
