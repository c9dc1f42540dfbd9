"""The child that becomes an additional process in a running container (``exec``).

The monitor forks it; since the monitor's children are born in the container's pid namespace
(`namespaces.enter_pid` was called before PID 1 was forked), no further fork is needed and the pid that fork
returned is the process's.  The protocol is that of `init`.
"""

from __future__ import annotations

import gc
import os
from errno import EBUSY

from ketch.contexts import suppress
from ketch.linux import fdpass, ns, prctl
from ketch.notation import documents
from ketch.runtime import namespaces, spec, user_namespaces
from ketch.runtime.cgroups import common
from ketch.runtime.failure import failure, to_message
from ketch.runtime.process.children import finalize_process, oom_score, scheduling
from ketch.runtime.rootfs import root
from ketch.runtime.security import rlimits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from ketch.runtime.oci_types import OciConfig, OciProcess
    from ketch.runtime.process.children.parent import Parent
    from ketch.runtime.protocol import Cgroups, ChildReady
    from ketch.runtime.user_namespaces import OpenUserNamespace


_HIGHEST_FD = 1 << 30
_NAMESPACES = (
    (ns.CLONE_NEWIPC, "ipc"),
    (ns.CLONE_NEWUTS, "uts"),
    (ns.CLONE_NEWNET, "net"),
    (ns.CLONE_NEWCGROUP, "cgroup"),
    (ns.CLONE_NEWNS, "mnt"),  # last: /proc is the container's afterwards
)
_TIME = (ns.CLONE_NEWTIME, "time")  # few containers have one, and not every kernel


class Target:
    """The container: its first process, what `ready` reported of its cgroup (None: it is not to be joined), its bundle.

    ``document``: its configuration, where the parent has it; without it, ``bundle``/config.json, if there is one.
    """

    __slots__ = ("bundle", "cgroups", "document", "init_pid")

    def __init__(
        self, init_pid: int, cgroups: Cgroups | None, bundle: str = "", document: OciConfig | None = None
    ) -> None:
        self.init_pid = init_pid
        self.cgroups = cgroups
        self.bundle = bundle
        self.document = document

    def configuration(self) -> OciConfig:
        """The configuration; an empty one without a bundle."""
        if self.document is not None:
            return self.document
        return spec.load(self.bundle) if self.bundle else {}


def child_main(container: Target, process: OciProcess, parent: Parent, *, tty: bool) -> NoReturn:
    """Run in the freshly forked child and never return.

    ``process`` is an OCI process object; its ``annotations`` may name a user as the container's can, and so
    may ``user.username`` ("name|uid[:group|gid]"): names win over the numbers.  The seccomp filter is
    ``process["seccomp"]`` if that key is there (None: no filter), else the one in the container's configuration.
    ``ready`` carries "tty" and, if so, the terminal's master as the only descriptor.
    """
    sync_fd, preserve_fds = parent.sync_fd, parent.preserve_fds
    master_fd = slave_fd = -1
    try:
        gc.disable()
        os.closerange(3 + preserve_fds, max(sync_fd, 3 + preserve_fds))
        os.closerange(sync_fd + 1, _HIGHEST_FD)
        prctl.prctl(prctl.PR_SET_DUMPABLE, 0)
        spec.check_process(process)
        if process.get("oomScoreAdj") is None:
            oom_score.share(container.init_pid)
        oom_score.set_own(process.get("oomScoreAdj"))
        document = container.configuration()
        linux = document.get("linux") or {}
        if "seccomp" in process:
            linux = {**linux, "seccomp": process["seccomp"]}
        named, group_add = _user(process, document)
        prepared = finalize_process.Process(process, linux)
        prepared.open(linux)
        prepared.keep_groups = spec.keeps_groups(document.get("annotations") or {})
        plan = namespaces.Plan(linux.get("namespaces") or [])
        own_root = not document or plan.is_new("mount")
        if tty:
            from ketch.runtime import tty as terminals  # while modules can be found
        if tty and not own_root:
            master_fd, slave_fd = terminals.open_pair_of_host()
        kinds = [*_NAMESPACES, *((_TIME,) if plan.has("time") else ())]
        _enter(container, prepared, process, kinds, with_user=not document or plan.has("user"))
        if not own_root:
            root.change(os.path.join(container.bundle, document["root"]["path"]))
        os.umask(0)
        root_fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        prepared.resolve(root_fd, process, named, group_add, make_cwd=False)
        if tty and own_root:
            master_fd, slave_fd = terminals.open_pair(root_fd, "/dev/pts/ptmx")
        os.close(root_fd)
        finalize_process.assume_identity(prepared, slave_fd)
        if spec.adopts(process.get("annotations") or {}):
            prctl.set_child_subreaper()  # execve keeps it
        message: ChildReady = {"ev": "ready", "netns": False, "tty": tty}
        fdpass.send(sync_fd, documents.dumps(message).encode(), [master_fd] if tty else [])
        if tty:
            os.close(master_fd)
        payload, _ = fdpass.recv(sync_fd, 0, size=64)
        if payload == b"go":
            finalize_process.run(prepared, sync_fd, preserve_fds)
    except BaseException as e:  # the parent must hear of everything
        with suppress(OSError):  # nobody may be left to be told
            fdpass.send_last(sync_fd, documents.dumps(to_message(e)).encode())
    os._exit(1)


def _user(process: OciProcess, document: OciConfig) -> tuple[str | None, str]:
    """The user by name: of the process's annotations, else ``user.username``, else the bundle's."""
    _, group_add = spec.named_user(document.get("annotations") or {})
    named, own_group_add = spec.named_user(process.get("annotations") or {})
    if named is None:
        named = (process.get("user") or {}).get("username")
    return named, own_group_add or group_add


class _Affinity:
    """The CPUs of ``process.execCPUAffinity``, before and after the process enters the container's cgroup."""

    __slots__ = ("_final", "_initial")

    def __init__(self, process: OciProcess) -> None:
        wanted = process.get("execCPUAffinity") or {}
        self._initial = scheduling.numbers("process.execCPUAffinity.initial", wanted.get("initial") or "")
        self._final = scheduling.numbers("process.execCPUAffinity.final", wanted.get("final") or "")

    def begin(self) -> None:
        """Set the first one."""
        if self._initial:
            scheduling.set_affinity(self._initial)

    def end(self) -> None:
        """Set the last one, or every CPU of the cgroup's cpuset."""
        scheduling.set_affinity(self._final)


def _enter(
    container: Target,
    prepared: finalize_process.Process,
    process: OciProcess,
    kinds: list[tuple[int, str]],
    *,
    with_user: bool,
) -> None:
    """Join the container's cgroup, then its namespaces, the user namespace last.

    ``with_user``: the container has one by its configuration; one that its program has made for itself is not joined.

    Not through a pidfd in one step: this process is in the container's pid namespace already, where
    the parent's number of its first process means nothing; the host's /proc knows it.
    """
    fds: list[tuple[int, int]] = []
    user: OpenUserNamespace | None = None
    affinity = _Affinity(process)
    try:
        for flag, name in kinds:
            fd = os.open(f"/proc/{container.init_pid}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC)
            if os.fstat(fd).st_ino == os.stat(f"/proc/self/ns/{name}").st_ino:
                os.close(fd)  # the machine's, which only its root may join
                continue
            fds.append((flag, fd))
        if with_user:
            user = user_namespaces.of_process(container.init_pid)
        affinity.begin()
        if container.cgroups and common.is_anywhere(container.cgroups):
            _join_cgroup(container.init_pid, container.cgroups)
        affinity.end()
        if user is not None:
            finalize_process.own_stdio(*user.root())
            rlimits.raise_hard(prepared.limits)
        finalize_process.forget_imports()
        for flag, fd in fds:
            namespaces.join(fd, flag)
        if user is not None:
            namespaces.enter_user(user.fd, keep_groups=prepared.keep_groups)
            prepared.regain_capabilities(process)
    except OSError as e:
        raise failure("namespaces", f"join the namespaces of process {container.init_pid}", e) from e
    finally:
        for _, fd in fds:
            os.close(fd)
        if user is not None:
            user.close()


def _join_cgroup(init_pid: int, cgroups: Cgroups) -> None:
    try:
        common.open(cgroups).join()
    except OSError as e:
        if e.errno != EBUSY or cgroups.get("version") != 2:
            raise failure("cgroups", "join the container's cgroup", e) from e
        # PID 1 has made sub-cgroups (systemd does), so the container's own may hold no process: go where PID 1 is.
        common.open({"version": 2, "dir": common.unified_dir_of(init_pid)}).join()
