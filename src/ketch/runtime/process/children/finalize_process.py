"""The last steps of PID 1 and of an exec'd process: identity, limits and confinement, and execve.

    resolve            look everything up that can fail, in the container's own files (nothing changes)
    assume_identity    terminal, limits, user, capabilities: after it the process has the container's identity
    run                close everything, filter, execve

The seccomp filter comes last of all, with nothing but execve(2) after it, whatever else the process may or may not do:
a profile is written for the program, and one without ``close_range``, ``setgroups`` or ``chdir`` must not keep the
runtime from its own work.  Without no_new_privs a filter takes CAP_SYS_ADMIN (seccomp(2)), which most containers
do not have.  runc and crun therefore load it before they drop capabilities, and such a profile has to allow what
they still do.  Here the capability stays in the permitted set and is made effective for that one call.  Nothing
need be called to drop it: execve computes the sets anew, root's from the bounding set and any other user's from
the ambient set (capabilities(7)), and not from what was permitted before.

No import may happen once the container's root is `/`: modules would come from the image.  `forget_imports`
makes sure of that.
"""

from __future__ import annotations

import os
import stat
import sys
from errno import EACCES, EINVAL, ENOENT, ENOSYS, ENOTDIR, EPERM

from ketch.errors import ProgramNotFound, RuntimeFailure
from ketch.linux import keyring, ns, prctl, signals
from ketch.linux import seccomp as native
from ketch.runtime import command
from ketch.runtime.failure import failure, reason
from ketch.runtime.process.children import scheduling
from ketch.runtime.rootfs import paths
from ketch.runtime.security import caps, lsm, rlimits, seccomp, users

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from ketch.runtime.oci_types import OciBox, OciLinux, OciProcess, OciRlimit
    from ketch.runtime.security.seccomp_listener import Listener


_NULL = os.makedev(1, 3)
_HIGHEST_FD = 1 << 30


def forget_imports() -> None:
    """Make further import statements fail instead of reading files; called before the root changes."""
    sys.path.clear()
    sys.meta_path.clear()
    sys.path_hooks.clear()
    sys.path_importer_cache.clear()


class Process:
    """The settings of an OCI process object, resolved.

    ``user`` as name comes from ``dev.ketch.user`` (or ``user.username`` for an exec), else from the numbers.
    """

    __slots__ = (
        "args",
        "caps",
        "console_size",
        "cwd",
        "env",
        "filter",
        "keep_groups",
        "labels",
        "limits",
        "listeners",
        "no_new_privs",
        "own_cwd",
        "path",
        "scheduling",
        "umask",
        "user",
    )

    def __init__(self, process: OciProcess, linux: OciLinux) -> None:
        self.args: list[str] = process["args"]
        self.cwd: str = process.get("cwd") or "/"
        self.env = environment(process.get("env") or [])
        self.limits: list[OciRlimit] = process.get("rlimits") or []
        self.caps = caps.Sets(process.get("capabilities"))
        self.no_new_privs = bool(process.get("noNewPrivileges"))
        self.labels = lsm.Labels(process.get("apparmorProfile") or "", process.get("selinuxLabel") or "")
        self.console_size: OciBox | None = process.get("consoleSize")
        umask = (process.get("user") or {}).get("umask")
        self.umask = 0o022 if umask is None else int(umask) & 0o777
        # Compiled before the root changes: the library must be the host's.
        profile = linux.get("seccomp")
        self.filter = seccomp.filter_of(profile) if profile else None
        self.listeners: list[Listener] = []
        self.scheduling = scheduling.Scheduling(process, linux)
        self.user = users.User(0, 0, [], None)
        self.own_cwd = self.keep_groups = False
        self.path = ""

    def open(self, linux: OciLinux, hooks: int = 0) -> None:
        """Open, with the host's files, what confines the process: the directory of its labels, its supervisor.

        ``hooks``: so many other programs run with its filter before it.
        """
        self.labels.open()
        profile = linux.get("seccomp")
        if profile and seccomp.notifies(profile):
            from ketch.runtime.security.seccomp_listener import Listener

            self.listeners = [Listener(profile) for _ in range(hooks + 1)]

    def regain_capabilities(self, process: OciProcess) -> None:
        """Read the capabilities anew, in a user namespace that was just entered: its root can give all of them."""
        self.caps = caps.Sets(process.get("capabilities"))

    def resolve(
        self, root_fd: int, process: OciProcess, named: str | None, group_add: str, *, make_cwd: bool = True
    ) -> None:
        """Find the user in the container's files and make the working directory; needs the container's root."""
        numeric = process.get("user") or {}
        if named is not None:
            self.user = users.lookup(root_fd, named, group_add)
            if self.user.uid != 0:
                self.caps.leave_to_execve()
        else:
            self.user = users.of_spec(numeric)
        if not self.env.get("HOME"):  # an empty one counts as none
            home = self.user.home if named is not None else users.home_of(root_fd, self.user.uid)
            self.env["HOME"] = home or "/"
        if self.cwd != "/" and make_cwd:
            try:
                owner = (self.user.uid, self.user.gid) if self.own_cwd else (-1, -1)
                os.close(paths.make_dirs(root_fd, self.cwd, owner=owner))
            except NotADirectoryError as e:
                raise RuntimeFailure(f"Cannot mkdir: {self.cwd} is not a directory", step="cwd", errno=ENOTDIR) from e
            except OSError as e:
                raise failure("cwd", f"make working directory `{self.cwd}`", e) from e

    def execute(self, args: list[str]) -> None:
        """Have another program executed than was said, by a process that has its identity already."""
        self.args = args
        self.path = command.find(args[0], self.env.get("PATH", command.DEFAULT_PATH))

    @property
    def needs_admin(self) -> bool:
        """Whether the seccomp filter needs CAP_SYS_ADMIN to be installed."""
        return self.filter is not None and not self.no_new_privs

    def announce(self, sync_fd: int, hook: int = -1) -> None:
        """Tell the parent that the filter follows, if it has a supervisor asked: a hook's, or the program's own."""
        if self.listeners:
            self.listeners = [self.listeners[hook]]
            self.listeners[0].announce(sync_fd)

    def execve(self, path: str, args: list[str], env: dict[str, str]) -> NoReturn:
        """Execute a program with this process's confinement.

        It returns only by raising OSError, or RuntimeFailure when the filter cannot be set.
        """
        if self.filter is None:
            os.execve(path, args, env)
        if self.needs_admin:
            caps.raise_admin(self.caps)
        try:
            self.filter.install_and_execve(path, args, env, self.listeners[0].ready() if self.listeners else None)
        except native.ListenerLost as e:
            raise self.listeners[0].lost(e.errno or 0) from e
        except native.FilterRefused as e:
            raise failure("seccomp", "install the seccomp filter", e) from e


def environment(entries: list[str]) -> dict[str, str]:
    """``NAME=value`` strings as a dict, the last of a name winning; entries without ``=`` are left out."""
    env = {}
    for entry in entries:
        name, equals, value = entry.partition("=")
        if equals and name:
            env[name] = value
    return env


def assume_identity(process: Process, slave_fd: int, *, own_keyring: bool = True) -> None:
    """Take on the identity; ``slave_fd`` (-1: none) becomes stdin, stdout, stderr and controlling terminal.

    Without ``own_keyring`` the session keyring stays the caller's.

    Afterwards only stdio, and what the caller still has open, remind of the host.
    """
    os.setsid()
    if slave_fd >= 0:
        from ketch.runtime import tty  # it is there: who opened the terminal had it

        tty.take(slave_fd)
        if process.console_size:
            tty.set_size(0, process.console_size.get("height", 0), process.console_size.get("width", 0))
    if own_keyring:
        process.labels.prepare_keyring()
        _leave_keyring()
    rlimits.apply(process.limits)
    process.scheduling.apply()
    own_stdio(process.user.uid)
    process.labels.prepare_exec()
    caps.limit_bounding(process.caps)
    entered = _change_directory(process.cwd, may_fail=True)
    _change_user(process)
    caps.apply(process.caps, keep=caps.ADMIN if process.needs_admin else 0)
    if process.no_new_privs:
        prctl.set_no_new_privs()
    os.umask(process.umask)
    if not entered:
        _change_directory(process.cwd)
    process.execute(process.args)


def run(process: Process, sync_fd: int, preserve_fds: int = 0) -> NoReturn:
    """execve; returns only by raising RuntimeFailure.  ``preserve_fds`` descriptors from 3 on stay open."""
    signals.reset()
    process.announce(sync_fd)
    for fd in range(3, 3 + preserve_fds):
        os.set_inheritable(fd, True)
    os.closerange(3 + preserve_fds, max(sync_fd, 3 + preserve_fds))
    os.closerange(sync_fd + 1, _HIGHEST_FD)
    try:
        process.execve(process.path, process.args, process.env)
    except OSError as e:
        raise command.execution_failed(process.args[0], e) from e


def _leave_keyring() -> None:
    """Join a new session keyring: the inherited one may hold keys of the engine's user."""
    try:
        keyring.join_session_keyring()
    except OSError as e:
        if e.errno not in (ENOSYS, EPERM):  # a kernel without keyrings, a filter of ours that the program inherits
            raise failure("keyring", "join a new session keyring", e) from e


def own_stdio(uid: int, gid: int = -1) -> None:
    """Give own pipes and terminals to the user, who may reopen /dev/stdout; shared files stay as they are.

    A user namespace's root can do so only with what belongs to its users already, which is what ``gid`` is for.
    """
    for fd in (0, 1, 2):
        try:
            status = os.fstat(fd)
            mode = status.st_mode
            own = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or (stat.S_ISCHR(mode) and status.st_rdev != _NULL)
            if own and status.st_uid != uid:
                os.fchown(fd, uid, gid)
        except OSError:
            continue  # closed, or of a kind that has no owner: the program will see


def _change_user(process: Process) -> None:
    user = process.user
    try:
        prctl.prctl(prctl.PR_SET_KEEPCAPS, 1)
        if not process.keep_groups:
            _set_groups(user)
        os.setresgid(user.gid, user.gid, user.gid)
        os.setresuid(user.uid, user.uid, user.uid)
    except OSError as e:
        hint = "the user namespace has no mapping for it" if e.errno == EINVAL else None
        raise failure("user", f"become user {user.uid}:{user.gid}", e, hint) from e


def _set_groups(user: users.User) -> None:
    """Set the supplementary groups; in a user namespace that denies that, whoever asks for none keeps what there is."""
    try:
        os.setgroups(user.groups)
    except OSError as e:
        if e.errno == EINVAL:
            text = f"set groups {', '.join(map(str, user.groups))}"
            raise failure("user", text, e, "the user namespace has no mapping for one of them") from e
        # Whose daemon has one user alone has one group alone, whatever the image's /etc/group says.
        denied = e.errno == EPERM and (ns.LIMITED or user.groups in ([], [user.gid])) and not ns.may_set_groups()
        if not denied:
            raise failure("user", "set groups", e, "the user namespace denies setgroups") from e


def _change_directory(cwd: str, *, may_fail: bool = False) -> bool:
    """Enter ``cwd``.

    First as root, so that a user may start in a directory that he could not enter (as with Docker), then as the
    user, for file systems that trust users more than root.
    """
    try:
        os.chdir(cwd)
        # A working directory outside the root would be a way out; the kernel then has no path for it.
        if not os.getcwd().startswith("/"):
            raise FileNotFoundError(2, "outside the container")
    except OSError as e:
        if may_fail and e.errno == EACCES:
            return False
        what = f'chdir to cwd ("{cwd}") set in config.json failed: {reason(e)}'
        kind = ProgramNotFound if e.errno in (ENOENT, ENOTDIR) else RuntimeFailure
        raise kind(what, step="cwd", errno=e.errno or 0) from e
    return True
