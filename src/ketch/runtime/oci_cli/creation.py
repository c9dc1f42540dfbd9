"""Containers made without a monitor: ``create`` of the OCI command line.

``create`` forks PID 1 and ends; whoever called it (containerd's shim, conmon) is the subreaper that inherits the
container.  PID 1 has done everything but execve and waits on a listening socket in the state directory, through
which ``start`` says go and hears of a failure.

The configuration is read once.  What was read is what PID 1 makes the container of, and what is kept for all later
commands: changes of config.json have no effect on a container that exists.
"""

from __future__ import annotations

import os
from _signal import SIGKILL  # type: ignore[import-not-found]
from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_SEQPACKET, socket, socketpair

from ketch import module_cache
from ketch.contexts import ExitStack
from ketch.errors import Conflict, RuntimeFailure
from ketch.linux import fdpass, prctl, signals
from ketch.runtime import namespaces, spec
from ketch.runtime.cgroups import common, refusals
from ketch.runtime.failure import failure, from_message, reason, to_message
from ketch.runtime.oci_cli import filters
from ketch.runtime.oci_cli import state as states
from ketch.runtime.oci_cli.handover import Handover
from ketch.runtime.process import messages
from ketch.runtime.process.children.parent import Parent
from ketch.runtime.validation import check

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from ketch.runtime.oci_cli.arguments import Invocation
    from ketch.runtime.oci_cli.diagnostics import Diagnostics
    from ketch.runtime.oci_types import OciConfig
    from ketch.runtime.protocol import ChildMessage, ChildReady

_ANSWER = 4096


def create(call: Invocation, *, foreground: bool) -> tuple[states.RuntimeState, int]:
    """Create a container; returns its state and the terminal's master (-1: none, or sent to the console socket).

    ``foreground``: the call goes on to show the terminal.  Whatever fails, nothing stays: no process, cgroup or
    directory.  It returns with signals held (`signals.hold`): what they are to do from then on is the caller's
    business.
    """
    options = call.options
    bundle = os.path.abspath(options.text("bundle", "."))
    document = spec.load(bundle)
    check.check_config(document)
    if not document.get("process"):
        raise RuntimeFailure("read config.json: no process", step="config")
    handover = Handover(options, document["process"], foreground=foreground)
    for warning in (*check.warnings(document["process"]), *check.ineffective_options(document)):
        call.diagnostics.warn(warning)
    plan = namespaces.Plan((document.get("linux") or {}).get("namespaces") or [])
    with ExitStack() as undo:
        with signals.held():
            state = states.reserve(call.root, call.operands[0], bundle)
            undo.callback(state.forget)
        cgroup = _choose_cgroup(document, state.id, systemd=call.systemd)
        filters.prepare(call.root, document["linux"].get("seccomp"))
        _prepare_notification(document, state)
        state.keep(document, cgroup)
        listener = _listen(state)
        parent = Parent(
            -1,
            start_fd=listener.fileno(),
            preserve_fds=handover.preserved,
            no_pivot=options.flag("no-pivot"),
            no_new_keyring=options.flag("no-new-keyring"),
        )
        undo.callback(_remove, cgroup, call.diagnostics)
        forked: list[int] = []
        undo.callback(_end, forked)
        sync = _fork_init(state, document, plan, parent, forked)
        listener.close()
        _import_meanwhile()
        if plan.has_user:
            _await_first(sync, forked)
        pid = forked[0]
        try:
            message, fds = _receive(sync, document, state, pid)
        except RuntimeFailure as e:
            raise _explained(e, cgroup) from e
        master_fd = fds.pop() if message["tty"] else -1
        if message["netns"]:
            _loopback_up(fds[1])
        for fd in fds:
            os.close(fd)
        _move_devices(document, pid)
        state.made(pid, message.get("cgroups"))
        master_fd = handover.give(pid, master_fd)
        handover.write_pid(pid)
        signals.hold()
        undo.pop_all()
    return state, master_fd


def _prepare_notification(document: OciConfig, state: states.RuntimeState) -> None:
    """Give the container a socket on which it says that it is ready, where a service manager waits for that."""
    if os.environ.get("NOTIFY_SOCKET"):
        from ketch.runtime import sd_notify  # few callers do

        sd_notify.prepare(document, state.directory)


def answer(sync: socket) -> tuple[ChildMessage, list[int]]:
    """A forked child's next message; raises the error of one that failed."""
    message, fds = messages.receive_from_child(sync.fileno())
    if message is None or message["ev"] == "failed":
        raise from_message(message)
    return message, fds


def ready(message: ChildMessage) -> ChildReady:
    """The message by which a child says that all has been done but execve."""
    assert message["ev"] == "ready", message
    return message


def kill_child(pid: int) -> None:
    """Kill and reap a process that this one has forked."""
    os.kill(pid, SIGKILL)
    os.waitpid(pid, 0)


def _end(forked: list[int]) -> None:
    for pid in forked:
        kill_child(pid)


def _remove(cgroup: common.Cgroup, diagnostics: Diagnostics) -> None:
    """Remove what was made of a cgroup; the error that led here is not to be hidden by another.

    The first process may be in it of whom its parent, which has been killed, could not tell any more: it has fallen to
    us.  Others are those of somebody who had this cgroup first, or was quicker.
    """
    try:
        for pid in cgroup.pids():
            if _is_child(pid):
                kill_child(pid)
        cgroup.remove()
    except OSError as e:
        diagnostics.warn(f"remove the container's cgroup: {reason(e)}")


def _is_child(pid: int) -> bool:
    """Whether a process is this one's child, and has not ended."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == 0
    except ChildProcessError:
        return False


def _choose_cgroup(document: OciConfig, container_id: str, *, systemd: bool) -> common.Cgroup:
    """The container's cgroup, `/ID` without one in the configuration; nobody else may be in it.

    With ``systemd`` it is a scope, else a path of directories, whatever it looks like.

    Conflict when there are processes in it already, or it is frozen: the container would share limits and signals
    with them, or not even start.  RuntimeFailure for limits where no cgroup can be made.
    """
    linux = document.get("linux") or {}
    document["linux"] = linux
    path = linux.get("cgroupsPath") or ""
    if systemd:
        from ketch.runtime.cgroups.systemd import units

        path = units.complete(path, container_id)
    elif not path.startswith("/"):
        path = f"/{path or container_id}"
    linux["cgroupsPath"] = path
    if not systemd:
        common.forbid_unless_ours(path)
    cgroup = common.at(path)
    if common.layout().forbidden:
        refusals.check_forbidden(linux.get("resources") or {})
    if common.exists(path):
        if cgroup.is_frozen():
            raise Conflict(f"create container `{container_id}`: container's cgroup unexpectedly frozen: `{path}`")
        found = cgroup.pids()
        if found:
            what = f"container's cgroup is not empty: {len(found)} process(es) found in `{path}`"
            raise Conflict(f"create container `{container_id}`: {what}")
    return cgroup


def _listen(state: states.RuntimeState) -> socket:
    listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC)
    states.with_short_path(state.start_socket, listener.bind)
    listener.listen(1)
    return listener


def _fork_init(
    state: states.RuntimeState, document: OciConfig, plan: namespaces.Plan, parent: Parent, forked: list[int]
) -> socket:
    """Fork the first process, or the one that forks it, into ``forked``; returns the socket that it reports on."""
    near, far = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC)
    parent.sync_fd = far.fileno()
    if plan.has_user:
        prctl.set_child_subreaper()  # the first process is a child's child (see `children.crossing`)
    namespaces.enter_pid("host" if plan.has_user else plan.pid_mode())
    with signals.held():
        pid = os.fork()
        if pid == 0:
            _run_first_process(state.bundle, document, parent)
        forked.append(pid)
    namespaces.enter_pid("/proc/self/ns/pid")  # hooks are children too, but not the container's
    far.close()
    return near


def _run_first_process(bundle: str, document: OciConfig, parent: Parent) -> NoReturn:
    """Run in the forked process, which imports by itself what it alone needs.

    Its parent need not wait for that, and memory that both have would be copied when one of them writes to it.
    """
    try:
        signals.release()  # not before: the parent's way out is not this process's
        with module_cache.ModuleCache("ketch-runtime-init"):
            from ketch.runtime.process.children import init
        init.child_main(bundle, [], parent, tty=bool(document["process"].get("terminal")), document=document)
    except BaseException as e:
        messages.send(parent.sync_fd, to_message(e))
    finally:
        os._exit(1)


def _import_meanwhile() -> None:
    """Import what is needed from here on, while the first process is at work."""
    with module_cache.ModuleCache("ketch-runtime-meanwhile"):
        import ketch.linux.netlink.links
        import ketch.notation.times
        import ketch.runtime.oci_cli.lifecycle
        import ketch.runtime.oci_cli.relay  # noqa: F401


def _await_first(sync: socket, forked: list[int]) -> None:
    """Put the first process, which falls to us when the one that forked it has ended, in the place of that one."""
    message, _ = answer(sync)
    assert message["ev"] == "forked", message
    with signals.held():
        os.waitpid(forked.pop(), 0)
        forked.append(message["pid"])


def _receive(sync: socket, document: OciConfig, state: states.RuntimeState, pid: int) -> tuple[ChildReady, list[int]]:
    """Wait for the child's ``ready``, and do what it asks for meanwhile: run the host's hooks, map owners."""
    message, fds = answer(sync)
    if message["ev"] == "hooks":
        from ketch.runtime import hooks  # few have any

        fdpass.send(sync, hooks.run_of_host(document, state.of_hooks("creating", pid)))
        message, fds = answer(sync)
    while message["ev"] == "map":
        from ketch.runtime.rootfs import idmap  # few need it

        idmap.answer(sync.fileno(), message, fds)
        message, fds = answer(sync)
    return ready(message), fds


def _explained(error: RuntimeFailure, cgroup: common.Cgroup) -> RuntimeFailure:
    """The error of the first process; of one that was killed without a word, why."""
    if error.step or not cgroup.oom_kills():
        return error
    what = f"{error.message}: its memory ran out"
    return RuntimeFailure(what, step="cgroups", hint="is linux.resources.memory.limit too low?")


def _move_devices(document: OciConfig, pid: int) -> None:
    devices = (document.get("linux") or {}).get("netDevices")
    if devices:
        from ketch.runtime import network_devices

        network_devices.move(devices, pid)


def _loopback_up(rtnl_fd: int) -> None:
    """Bring up ``lo`` through a netlink socket in the container's network namespace."""
    from ketch.linux.netlink import links
    from ketch.linux.netlink import messages as netlink

    request = links.set_up(index=links.LOOPBACK_INDEX)
    try:
        os.write(rtnl_fd, netlink.encode(request, 1, netlink.NLM_F_REQUEST | netlink.NLM_F_ACK))
        for _, flags, _, body in netlink.split(os.read(rtnl_fd, _ANSWER)):  # it is there when the write is done
            netlink.raise_for(body, flags, request)
    except OSError as e:
        raise failure("network", "bring up the loopback interface", e) from e
