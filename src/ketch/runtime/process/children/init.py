"""The child that becomes a container's PID 1.

    monitor                                   child (this module)
    enter_pid("new"), fork  ───────────────►  namespaces
      ◄── {"ev":"netns"} + descriptors ─────  (if ``early``: the network is wired while the rest is done)
                                              cgroup, rootfs, mounts, devices, masks
                                              user, limits, capabilities
      ◄── {"ev":"ready", …} + descriptors ──  (everything that can be checked has been)
      ─── b"go" (+ arguments) ─────────────►  execve; "go" may be sent before "ready" has come
      ◄── end of file ──────────────────────  (the sync socket is close-on-exec: the program runs)

On any failure the child sends {"ev":"failed", …} and ends.  Everything is done here and nothing in the monitor, so
that the monitor's memory stays small and whatever is half-done goes away with this process, except the cgroup:
its description is in both messages.
"""

from __future__ import annotations

import gc
import os
from _signal import SIGHUP, SIGINT, SIGKILL, SIGQUIT, SIGTERM, signal  # type: ignore[import-not-found]
from _socket import AF_NETLINK, MSG_DONTWAIT, MSG_PEEK, SOCK_CLOEXEC, SOCK_RAW, socket
from errno import EPERM

from ketch.contexts import suppress
from ketch.errors import KetchError, RuntimeFailure
from ketch.failpoints import failpoint, follow, followed, passage
from ketch.linux import fdpass, memory, ns, prctl
from ketch.notation import documents
from ketch.runtime import defaults, namespaces, spec, user_namespaces
from ketch.runtime.cgroups import common
from ketch.runtime.failure import failure, to_message
from ketch.runtime.process.children import clocks, crossing, finalize_process, oom_score, scheduling
from ketch.runtime.process.children.root_parts import RootParts
from ketch.runtime.rootfs import cgroup_mount, devices, docker_files, masks, mounts, secrets
from ketch.runtime.rootfs import root as rootfs
from ketch.runtime.rootfs.anchors import Anchors
from ketch.runtime.rootfs.planned import Planned
from ketch.runtime.security import host_guard, sysctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from ketch.runtime.oci_types import (
        OciConfig,
        OciDeviceRule,
        OciHooks,
        OciHookState,
        OciLinux,
        OciMount,
        OciResources,
    )
    from ketch.runtime.process.children.parent import Parent
    from ketch.runtime.protocol import ChildReady, FirstProcess
    from ketch.runtime.title import Title
    from ketch.runtime.user_namespaces import OpenUserNamespace


GO = b"go"  # what may follow is a program to be executed, with its arguments, as JSON
_LARGEST_GO = 1 << 17
_NETLINK_ROUTE = 0
_DENY_ALL, *_DEFAULT_RULES = defaults.device_rules()
_HIGHEST_FD = 1 << 30
_FILTERED = "is this a container whose seccomp filter forbids it? --security-opt seccomp=unconfined"


def fork_child(pid_mode: str = "new") -> int:
    """Enter the pid namespace for children (see `namespaces.enter_pid`) and fork; 0 in the child."""
    namespaces.enter_pid(pid_mode)
    return os.fork()


def child_main(
    bundle: str,
    mounts_of_root: list[OciMount],
    parent: Parent,
    *,
    tty: bool,
    document: OciConfig | None = None,
) -> NoReturn:
    """Run in the freshly forked child and never return; see the module's text for the protocol.

    ``document``: the configuration, where the parent has read it; without it, ``bundle``/config.json.
    Descriptors 0, 1, 2 are already the container's stdio (with ``tty``: anything; they are replaced).  ``ready``
    carries "netns" (whether the first two descriptors are the network namespace and a NETLINK_ROUTE socket in
    it), "tty" (whether the last one is the terminal's master) and "cgroups" (for `cgroups.common.open`).
    With ``early`` of the parent {"ev":"netns"} comes with the first two as soon as they are there, and ``ready`` has
    "netns" false.  A spec with hooks that run before pivot_root makes the child send {"ev":"hooks"} and wait
    for the state, as JSON, to give them; one with a user namespace may send {"ev":"map"} (`rootfs.idmap`).
    """
    child = _Child(bundle, parent, document)
    try:
        child.begin()
        child.finish(mounts_of_root, tty)
    except BaseException as e:  # the parent must hear of everything; SystemExit and the like mean the same here
        child.report_failure(e)
    os._exit(1)


def spare_main(parent: Parent, flags: int, title: Title, example: str) -> NoReturn:
    """The same for a container that is not known yet (see `process.spare`).

    It makes new namespaces, CLONE_* ``flags``, says {"ev":"netns"}, reads the bundle ``example`` (if not empty) to be
    ready to read another, and waits for what `child_main` is called with (FirstProcess) and stdio.  Its environment is
    not the container's business: the bundle has everything.
    """
    child = _Child(example, parent)
    try:
        child.begin()
        told = child.begin_spare(flags)
        title.set(f"ketch-monitor {told['id']}")  # as if it were forked now
        child.bundle = told["bundle"]
        child.finish(told["rootfs"], told["tty"])
    except BaseException as e:
        child.report_failure(e)
    os._exit(1)


class _Child:
    """The state shared by the steps of a child, until execve."""

    def __init__(self, bundle: str, parent: Parent, document: OciConfig | None = None) -> None:
        self.bundle = bundle
        self.document = document
        self.sync_fd = parent.sync_fd
        self.start_fd = parent.start_fd
        self.preserve_fds = parent.preserve_fds
        self.early = parent.early
        self.no_pivot = parent.no_pivot
        self.no_new_keyring = parent.no_new_keyring
        self.passing = parent.passing
        self.hooks: OciHooks = {}
        self.may_go = False  # "go" has come already
        self.state = b""
        self.cgroup: common.Cgroup | None = None
        self.oom_kills_around = 0
        self.passed: list[int] = []
        self.entered = 0
        self.netns = False
        self.master_fd = self.slave_fd = self.shm_fd = -1
        self.proc_fd = -1  # for sysctls, if one that is made later would not do
        self.process: finalize_process.Process

    def begin(self) -> None:
        """The first steps of the forked process."""
        gc.disable()
        if followed() is not None:  # by the process that was forked: those passages are its own
            follow()
        passage("init.forked")
        self._close_others()
        prctl.prctl(prctl.PR_SET_DUMPABLE, 0)  # nobody in a shared pid namespace may look into this process
        if self.start_fd < 0:
            self.die_with_parent()

    def finish(self, mounts_of_root: list[OciMount], terminal: bool) -> NoReturn:
        """Set everything up, wait for ``go``, run."""
        if terminal:
            import ketch.runtime.tty  # noqa: F401 - while modules can be found
        self.set_up(mounts_of_root, terminal)
        self.report_ready()
        self.wait(self.start_fd)
        if self.start_fd < 0:
            self.die_with_parent()  # again: a change of user has cleared it
        self.run()

    def _close_others(self) -> None:
        """Close the monitor's descriptors: logs, control sockets, pipes."""
        before = 3 + self.preserve_fds
        for kept in sorted({self.sync_fd, self.start_fd} - {-1}):
            if before < kept:  # an upper end below the lower one would mean "all" to close_range(2)
                os.closerange(before, kept)
            before = kept + 1
        os.closerange(before, _HIGHEST_FD)

    def die_with_parent(self) -> None:
        """Have the kernel kill this process when its monitor dies.

        Nobody else would read its output, reap it or write its exit record.  A monitor that died before this call is
        noticed by its end of the socket.
        """
        prctl.set_parent_death_signal(SIGKILL)
        try:
            payload, _ = fdpass.recv(self.sync_fd, 0, MSG_DONTWAIT | MSG_PEEK, 64)
        except BlockingIOError:
            return
        except ConnectionResetError:
            payload = b""
        if not payload:
            os._exit(1)

    def begin_spare(self, flags: int) -> FirstProcess:
        """Make namespaces, tell of the network's, wait to be told what container this is, take its stdio.

        No time is lost in copying memory from then on.
        """
        ns.unshare(flags)
        self.entered = flags
        self._open_network()
        if self.bundle:
            self._rehearse()
        memory.make_own()
        payload, fds = fdpass.recv(self.sync_fd, 3)
        if not payload:
            os._exit(1)
        for target, fd in enumerate(fds):
            os.dup2(fd, target)
            os.close(fd)
        told: FirstProcess = documents.loads(payload)
        if told.get("timing"):
            follow()
        passage("init.told")
        return told

    def _rehearse(self) -> None:
        """Read the bundle of another container, which changes nothing but this process's memory, and make file systems.

        The memory is the launcher's until something is written to it, if only a count of references; then the kernel
        copies the page, which would take half of the time that reading the container's own bundle takes.
        """
        with suppress(KetchError, OSError):  # it is gone, or was refused then, too
            document = spec.load(self.bundle)
            self._check(document)
            for entry in document.get("mounts") or []:
                Planned(entry).describe()
            if path := (document.get("linux") or {}).get("cgroupsPath"):
                common.at(path).describe()
            # A passing process is not in the pid namespace yet.
            mounts.create_ahead(document.get("mounts") or [], without="proc" if self.passing else "")

    def set_up(self, mounts_of_root: list[OciMount], terminal: bool) -> None:
        document = spec.load(self.bundle) if self.document is None else self.document
        if "process" in document:
            secrets.add_environment(document)
        plan, linux = self._check(document), document.get("linux") or {}
        self.process.open(linux, len(self.hooks.get("startContainer") or ()))
        self.shm_fd = _shared_memory_of(plan, document)
        passage("init.bundle-read")
        scheduling.set_affinity(frozenset())
        user = user_namespaces.of(plan, linux)
        parts = None
        if user is None:
            self._enter_namespaces(plan, document)
        else:
            parts = self._cross(plan, user, document, mounts_of_root)
        _set_names(document)
        if plan.is_new("mount"):
            if parts is None:
                rootfs.isolate(linux.get("rootfsPropagation"))
                parts = self._open_parts(document, mounts_of_root)
            root_fd = self._make_root(document, parts, terminal)
            self._resolve(document, root_fd)
            readonly = bool(document["root"].get("readonly"))
            rootfs.finish(root_fd, readonly=readonly, propagation=linux.get("rootfsPropagation"))
        else:
            root_fd = self._change_root(document, terminal)
            self._resolve(document, root_fd)
        os.close(root_fd)
        finalize_process.assume_identity(
            self.process, self.slave_fd if terminal else -1, own_keyring=not self.no_new_keyring
        )
        failpoint("init.identity-set")

    def _check(self, document: OciConfig) -> namespaces.Plan:
        """Check what can be checked before anything is made."""
        if "process" not in document:
            raise RuntimeFailure("read config.json: no process", step="config")
        linux = document.get("linux") or {}
        plan = namespaces.Plan(linux.get("namespaces") or [])
        sysctl.check(linux.get("sysctl") or {}, plan)
        host_guard.check(document, plan)
        user_namespaces.check(document, plan)
        clocks.check(plan, linux.get("timeOffsets") or {})
        self.hooks = document.get("hooks") or {}
        if self.hooks:
            import ketch.runtime.hooks  # noqa: F401 - while modules can be found
        self.process = finalize_process.Process(document["process"], linux)
        self.process.keep_groups = spec.keeps_groups(document.get("annotations") or {})
        return plan

    def _enter_namespaces(self, plan: namespaces.Plan, document: OciConfig) -> None:
        namespaces.enter(plan, self.entered)
        if plan.is_new("time"):
            clocks.make((document.get("linux") or {}).get("timeOffsets") or {})
            clocks.enter()
        self._open_own_network(plan)
        self._make_cgroup(document)
        if self.passing:
            self._pass_on(plan)
        else:
            self._join_cgroup()
        self._give_cgroup(plan, document, None)
        namespaces.unshare_cgroup(plan)
        oom_score.set_own(document["process"].get("oomScoreAdj"))

    def _open_own_network(self, plan: namespaces.Plan) -> None:
        """In the namespaces: give the parent the network that is new."""
        failpoint("init.namespaces")
        if plan.is_new("network") and not self.entered & namespaces.FLAGS["network"]:
            self._open_network()

    def _cross(
        self, plan: namespaces.Plan, user: OpenUserNamespace, document: OciConfig, mounts_of_root: list[OciMount]
    ) -> RootParts | None:
        """Do what needs the host's rights, and go on as the first process in the user namespace."""
        parts = None
        self._make_cgroup(document)
        self._join_cgroup()
        self._give_cgroup(plan, document, user)
        oom_score.set_own(document["process"].get("oomScoreAdj"))
        if plan.is_new("mount"):
            crossing.leave_host_mounts()
            mask = os.umask(0)
            parts = self._open_parts(document, mounts_of_root, user)
            parts.leave(self.bundle)
            os.umask(mask)  # which hooks have as well
        if plan.is_new("time"):
            clocks.make((document.get("linux") or {}).get("timeOffsets") or {})
        if (document.get("linux") or {}).get("sysctl"):
            self.proc_fd = sysctl.own_proc()
        crossing.cross(plan, user, self.process, self.sync_fd)
        passage("init.namespaces")
        if self.start_fd < 0:
            self.die_with_parent()
        self.process.regain_capabilities(document["process"])
        self.process.labels.open()
        self._open_own_network(plan)
        if parts is not None:
            rootfs.isolate((document.get("linux") or {}).get("rootfsPropagation"))
            parts.take(self.sync_fd)
        return parts

    def _open_parts(
        self, document: OciConfig, mounts_of_root: list[OciMount], user: OpenUserNamespace | None = None
    ) -> RootParts:
        parts = RootParts(self.bundle, document, mounts_of_root, self.shm_fd, user)
        parts.open_cgroups(self.cgroup)
        return parts

    def _make_cgroup(self, document: OciConfig) -> None:
        linux = document.get("linux") or {}
        path = linux.get("cgroupsPath")
        if not path:
            return
        resources = _with_default_devices(linux.get("resources") or {})
        self.cgroup = common.create(path, resources, document.get("annotations"))
        failpoint("init.cgroup-made")
        self.oom_kills_around = self.cgroup.oom_kills_around()

    def _join_cgroup(self) -> None:
        if self.cgroup is None:
            return
        try:
            self.cgroup.join()
        except OSError as e:
            raise failure("cgroups", "join the container's cgroup", e) from e

    def _pass_on(self, plan: namespaces.Plan) -> None:
        """Go on as the first process, which is born in the cgroup."""
        if plan.is_new("pid") and not self.entered & ns.CLONE_NEWPID:
            namespaces.enter_pid("new")
        try:
            crossing.be_born(self.cgroup, self.sync_fd)
        except OSError as e:
            raise failure("cgroups", "fork into the container's cgroup", e) from e
        self.die_with_parent()
        self.process.labels.open()

    def _give_cgroup(self, plan: namespaces.Plan, document: OciConfig, user: OpenUserNamespace | None) -> None:
        """Give the cgroup to the program's user where the container may write to it (config-linux.md, ownership)."""
        failpoint("init.cgroup-joined")
        if self.cgroup is None or not plan.is_new("cgroup") or not cgroup_mount.is_writable(document):
            return
        uid = (document["process"].get("user") or {}).get("uid") or 0
        try:
            self.cgroup.give(user_namespaces.owner(user, uid, 0)[0])
        except OSError as e:
            raise failure("cgroups", f"give the cgroup to user {uid}", e) from e

    def _open_network(self) -> None:
        self.netns = True
        self.passed.append(os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC))
        self.passed.append(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, _NETLINK_ROUTE).detach())
        if self.early:
            fdpass.send(self.sync_fd, b'{"ev":"netns"}', self.passed)
            while self.passed:
                os.close(self.passed.pop())
            self.netns = False

    def _make_root(self, document: OciConfig, parts: RootParts, terminal: bool) -> int:
        linux = document.get("linux") or {}
        mount_point = parts.attach_root(self.bundle)
        failpoint("init.root-attached")
        self._run_hooks(mount_point)
        finalize_process.forget_imports()
        rootfs.enter(mount_point, pivot=not self.no_pivot)
        failpoint("init.root-entered")
        os.umask(0)
        root_fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        if spec.ANNOTATION_ID in (document.get("annotations") or {}):
            docker_files.make(root_fd)
        anchors = Anchors(root_fd)
        parts.attach(anchors, root_fd)
        self._make_devices(anchors, parts, linux, terminal)
        fresh = any(mount.destination == "/proc" and mount.fstype == "proc" for mount in parts.planned)
        sysctl.apply(linux.get("sysctl") or {}, anchors.find("/proc")[0] if fresh else self.proc_fd)
        mounts.seal(anchors, parts.planned)
        masks.make_readonly(anchors, linux.get("readonlyPaths") or [])
        masks.mask(anchors, linux.get("maskedPaths") or [], linux.get("mountLabel") or "")
        anchors.close()
        failpoint("init.mounted")
        return root_fd

    def _run_hooks(self, root: str) -> None:
        """Have the parent run its hooks, then run createContainer: in these namespaces, with the host's files.

        Those stand in the container's ``root``, as runc's do.
        """
        if not any(self.hooks.get(kind) for kind in ("prestart", "createRuntime", "createContainer", "startContainer")):
            return
        from ketch.runtime import hooks  # it is there, from before

        fdpass.send(self.sync_fd, b'{"ev":"hooks"}')
        self.state, _ = fdpass.recv(self.sync_fd, 0)
        if self.state == b"go":  # the network was there before the parent had time for hooks
            self.may_go = True
            self.state, _ = fdpass.recv(self.sync_fd, 0)
        if not self.state:
            os._exit(1)
        wanted = self.hooks.get("createContainer")
        if wanted:
            os.chdir(root)
            hooks.run(wanted, self._state_for_hooks("creating"), "createContainer")

    def _state_for_hooks(self, status: str) -> bytes:
        """The state that hooks in the container's namespaces read, with this process's pid as it is there."""
        state: OciHookState = documents.loads(self.state)
        return documents.dumps({**state, "status": status, "pid": os.getpid()}).encode()

    def _make_devices(self, anchors: Anchors, parts: RootParts, linux: OciLinux, terminal: bool) -> None:
        fresh = any(mount.destination == "/dev" and not mount.options.bind for mount in parts.planned)
        if fresh:
            devices.populate(anchors, linux.get("devices") or [], parts.nodes)
        if terminal:
            from ketch.runtime import tty

            self.master_fd, self.slave_fd = tty.open_pair(*anchors.find("/dev/pts/ptmx"))
            if fresh:
                devices.bind_console(anchors, self.slave_fd)

    def _change_root(self, document: OciConfig, terminal: bool) -> int:
        """Change the root of a container without a mount namespace to a directory, without mounts (`host_guard`)."""
        root = os.path.join(self.bundle, document["root"]["path"])
        self._run_hooks(root)
        if terminal:
            from ketch.runtime import tty

            self.master_fd, self.slave_fd = tty.open_pair_of_host()
        sysctl.apply((document.get("linux") or {}).get("sysctl") or {}, self.proc_fd)
        finalize_process.forget_imports()
        rootfs.change(root)
        os.umask(0)
        return os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def _resolve(self, document: OciConfig, root_fd: int) -> None:
        annotations = document.get("annotations") or {}
        named, group_add = spec.named_user(annotations)
        self.process.own_cwd = spec.ANNOTATION_OWN_CWD in annotations
        self.process.resolve(root_fd, document["process"], named, group_add)

    def report_ready(self) -> None:
        """Report to the parent, and pass it the descriptors, which the program must not have."""
        message: ChildReady = {"ev": "ready", "netns": self.netns, "tty": self.master_fd >= 0}
        message["cgroups"] = self.cgroup.describe() if self.cgroup else None
        message["oom_kills_around"] = self.oom_kills_around
        passage("init.ready")
        if (passages := followed()) is not None:
            message["passages"] = passages
        fds = [*self.passed, self.master_fd] if self.master_fd >= 0 else self.passed
        fdpass.send(self.sync_fd, documents.dumps(message).encode(), fds)
        for fd in fds:
            os.close(fd)

    def wait(self, start_fd: int) -> None:
        """Wait for the parent's ``go``; without a parent the process ends."""
        if start_fd >= 0:
            _die_of_signals()
            listener = socket(fileno=start_fd)
            os.close(self.sync_fd)
            accepted, _ = listener._accept()  # type: ignore[attr-defined]
            listener.detach()
            os.close(start_fd)
            self.sync_fd = accepted
        if self.may_go:
            return
        payload, _ = fdpass.recv(self.sync_fd, 0, size=_LARGEST_GO)
        if not payload.startswith(GO):
            os._exit(1)
        if args := payload.removeprefix(GO):
            self.process.execute(documents.loads(args))

    def run(self) -> NoReturn:
        """Run the last hooks (in the container, with the program's identity), then execute the program."""
        wanted = self.hooks.get("startContainer")
        if wanted:
            from ketch.runtime import hooks  # it is there, from before

            becoming = hooks.Becoming(
                self.process.execve, self.process.env, lambda number: self.process.announce(self.sync_fd, number)
            )
            hooks.run(wanted, self._state_for_hooks("created"), "startContainer", becoming)
        failpoint("init.go-received")
        finalize_process.run(self.process, self.sync_fd, self.preserve_fds)

    def report_failure(self, error: BaseException) -> None:
        message = to_message(error)
        message["cgroups"] = self.cgroup.describe() if self.cgroup else None
        with suppress(OSError):  # nobody may be left to be told
            fdpass.send_last(self.sync_fd, documents.dumps(message).encode())


def _shared_memory_of(plan: namespaces.Plan, document: OciConfig) -> int:
    """The /dev/shm of the container whose ipc namespace is joined (POSIX shared memory is files there).

    A descriptor of it, or -1.  Only for the engine's containers; other callers of the runtime mount what they want.
    """
    path = plan.join.get("ipc", "")
    pid = path.removeprefix("/proc/").removesuffix("/ns/ipc")
    if not pid.isdigit() or spec.ANNOTATION_ID not in (document.get("annotations") or {}):
        return -1
    try:
        return mounts.tree_of_container(int(pid), "/dev/shm")
    except OSError as e:
        raise failure("mounts", f"share /dev/shm of `{path}`", e) from e


def _die_of_signals() -> None:
    """Let the signals that end other programs end this process, which may wait for long.

    The kernel spares the first process of a pid namespace all that it has no handlers for.
    """
    for number in (SIGHUP, SIGINT, SIGQUIT, SIGTERM):
        signal(number, lambda number, _frame: os._exit(128 + number))


def _with_default_devices(resources: OciResources) -> OciResources:
    """Add rules for the devices that every /dev has, unless the spec has them; others are denied (as runc does).

    Only a first or last rule for all devices says something else about those that no rule names.  Without the
    machine's rights no rule can be had, and needs none: nobody can make nodes then.
    """
    rules = resources.get("devices") or []
    if rules and ns.LIMITED:
        return {**resources, "devices": []}
    if rules and _is_of_all(rules[-1]) and rules[-1].get("allow"):
        return resources
    if not rules and not common.has_devices():
        return resources  # nobody asked for what the machine does not have
    begin = [] if rules and _is_of_all(rules[0]) else [_DENY_ALL]
    missing = [rule for rule in _DEFAULT_RULES if rule not in rules]
    return {**resources, "devices": [*begin, *rules, *missing]} if begin or missing else resources


def _is_of_all(rule: OciDeviceRule) -> bool:
    """Whether a device rule is one for every access to all devices."""
    numbers = (rule.get("major"), rule.get("minor"))
    whole = set(rule.get("access") or "rwm") == set("rwm")
    return whole and (rule.get("type") or "a") == "a" and all(number is None or number < 0 for number in numbers)


def _set_names(document: OciConfig) -> None:
    for key, name, setter in (
        ("hostname", document.get("hostname"), ns.sethostname),
        ("domainname", document.get("domainname"), ns.setdomainname),
    ):
        if name:
            try:
                setter(name)
            except OSError as e:
                raise failure("hostname", f"set {key} `{name}`", e, _FILTERED if e.errno == EPERM else None) from e
