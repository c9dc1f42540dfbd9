"""Processes added to a container: ``exec`` of the OCI command line."""

from __future__ import annotations

import os
from _signal import pidfd_send_signal  # type: ignore[import-not-found]
from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_SEQPACKET, socketpair

from ketch.contexts import ExitStack
from ketch.errors import Conflict, InvalidArgument
from ketch.linux import fdpass, signals
from ketch.runtime import namespaces, spec
from ketch.runtime.oci_cli import arguments, creation, filters, started
from ketch.runtime.oci_cli.handover import Handover
from ketch.runtime.process.children import exec as exec_process
from ketch.runtime.process.children.parent import Parent
from ketch.runtime.validation import check

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.runtime.oci_cli.arguments import GivenOptions, Invocation
    from ketch.runtime.oci_cli.state import RuntimeState
    from ketch.runtime.oci_types import OciConfig, OciProcess
    from ketch.runtime.protocol import Cgroups


def enter(call: Invocation) -> tuple[int, int]:
    """Start another process in a container; (its pid, a child of the caller; the terminal's master or -1).

    It returns with signals held (`signals.hold`).
    """
    state, options = call.state(), call.options
    status = state.status()
    if status in ("creating", "stopped"):
        raise _refused(state, status)
    if status == "paused" and not options.flag("ignore-paused"):
        raise Conflict(f"cannot exec in a paused container (use --ignore-paused to override): `{state.id}`")
    document = state.configuration()
    process = _process(options, call.operands[1:], document)
    for warning in check.warnings(process):
        call.diagnostics.warn(warning)
    handover = Handover(options, process, foreground=not options.flag("detach"))
    cgroups = _below(state.document.get("cgroups"), options.texts("cgroup"))
    profile = process["seccomp"] if "seccomp" in process else spec.member(document, "linux", "seccomp")
    filters.prepare(state.root, profile)
    near, far = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC)
    first_fd = state.open_first()
    if first_fd < 0:
        raise _refused(state, "stopped")
    namespaces.enter_pid(f"/proc/{state.pid}/ns/pid")
    target = exec_process.Target(state.pid, cgroups, state.bundle, document)
    parent = Parent(far.fileno(), preserve_fds=handover.preserved)
    with ExitStack() as undo:
        with signals.held():
            pid = os.fork()
            if pid == 0:
                exec_process.child_main(target, process, parent, tty=handover.terminal)
            undo.callback(creation.kill_child, pid)
        far.close()
        message, fds = creation.answer(near)
        _check_joined(first_fd, state)
        master_fd = fds.pop() if creation.ready(message)["tty"] else -1
        master_fd = handover.give(pid, master_fd)
        fdpass.send(near, b"go")
        started.wait(near, state, "running")
        handover.write_pid(pid)
        signals.hold()
        undo.pop_all()
    near.close()
    return pid, master_fd


def _check_joined(first_fd: int, state: RuntimeState) -> None:
    """Close a descriptor of the first process, which must be there still, as a zombie at least (Conflict).

    Else its pid, by which its namespaces were opened, may have been another process's by then.
    """
    try:
        pidfd_send_signal(first_fd, 0)
    except ProcessLookupError as e:
        raise _refused(state, "stopped") from e
    finally:
        os.close(first_fd)


def _refused(state: RuntimeState, status: str) -> Conflict:
    return Conflict(f"cannot exec in a {status} container: `{state.id}`")


def _process(options: GivenOptions, args: list[str], document: OciConfig) -> OciProcess:
    """The process object: from --process, else the container's own with the command line's changes."""
    path = options.text("process")
    if path:
        process: OciProcess = arguments.read_json(path)
        check.check_process(process)
        own = document["process"]  # no less confined than the container
        process["apparmorProfile"] = process.get("apparmorProfile") or own.get("apparmorProfile") or ""
        process["selinuxLabel"] = process.get("selinuxLabel") or own.get("selinuxLabel") or ""
    elif not args:
        raise InvalidArgument("exec args cannot be empty", hint="name a program, or give --process")
    else:
        process = document["process"]
        process["args"] = args
        _change(process, options)
        check.check_process(process)
    spec.check_process(process)
    return process


def _change(process: OciProcess, options: GivenOptions) -> None:
    """Apply the options to the container's own process object."""
    process["terminal"] = options.flag("tty")
    process.pop("consoleSize", None)
    process["env"] = [*(process.get("env") or []), *options.texts("env")]
    if options.text("cwd"):
        process["cwd"] = options.text("cwd")
    if options.text("apparmor"):
        process["apparmorProfile"] = options.text("apparmor")
    if options.text("process-label"):
        process["selinuxLabel"] = options.text("process-label")
    if options.given("no-new-privs"):
        process["noNewPrivileges"] = options.flag("no-new-privs")
    _change_user(process, options)
    _add_capabilities(process, options.texts("cap"))


def _change_user(process: OciProcess, options: GivenOptions) -> None:
    """Numbers take the place of the container's user or of both numbers; a name is looked up in the container."""
    user = process.setdefault("user", {})
    uid, colon, gid = options.text("user").partition(":")
    if uid.isdecimal() and (not colon or gid.isdecimal()):
        user["uid"] = int(uid)
        if colon:
            user["gid"] = int(gid)
    elif uid or colon:
        user["username"] = options.text("user")
    for text in options.texts("additional-gids"):
        if not text.isdecimal():
            raise InvalidArgument(f"option `--additional-gids`: `{text}` is not a number")
        user["additionalGids"] = [*(user.get("additionalGids") or []), int(text)]


def _add_capabilities(process: OciProcess, names: list[str]) -> None:
    """Add capabilities to the sets of a process.

    The ambient set needs the inheritable one, so it gets them when the configuration has that.
    """
    if not names:
        return
    sets = process.setdefault("capabilities", {})
    sets["bounding"] = [*(sets.get("bounding") or []), *names]
    sets["effective"] = [*(sets.get("effective") or []), *names]
    sets["permitted"] = [*(sets.get("permitted") or []), *names]
    if sets.get("inheritable") is not None:
        sets["ambient"] = [*(sets.get("ambient") or []), *names]


def _below(cgroups: Cgroups | None, wanted: list[str]) -> Cgroups | None:
    """The container's cgroup, with the parts of it that ``[CONTROLLER,…:]PATH`` name further down.

    A path without controllers is for all of them, and stands alone.
    """
    if not wanted:
        return cgroups
    if cgroups is None:
        raise InvalidArgument("option `--cgroup`: the container has no cgroup of its own")
    if cgroups["version"] == 2:
        if len(wanted) > 1 or ":" in wanted[0]:
            raise InvalidArgument(f"option `--cgroup`: `{wanted[0]}`: cgroup v2 has one path, without controllers")
        return {"version": 2, "dir": _existing(cgroups["dir"] + _inside(wanted[0]))}
    dirs = cgroups["dirs"]
    paths = _by_controller(wanted, dirs)
    return {"version": 1, "dirs": {name: _existing(dirs[name] + paths.get(name, "")) for name in dirs}}


def _by_controller(wanted: list[str], controllers: dict[str, str]) -> dict[str, str]:
    """{controller: path below the container's cgroup} of cgroup v1."""
    paths: dict[str, str] = {}
    for text in wanted:
        names, colon, path = text.partition(":")
        if not colon:
            if len(wanted) > 1:
                raise InvalidArgument(f"option `--cgroup`: `{text}` has no controllers, so it has to be the only one")
            names, path = ",".join(controllers), text
        for name in names.split(","):
            key = name if name in controllers else f"name={name}"
            if key not in controllers:
                raise InvalidArgument(f"option `--cgroup`: `{text}`: unknown controller `{name}`")
            if key in paths:
                raise InvalidArgument(f"option `--cgroup`: controller `{name}` is named twice")
            paths[key] = _inside(path)
    return paths


def _inside(path: str) -> str:
    """The end of a path in the container's cgroup, to be appended; InvalidArgument for a way out of it."""
    clean = os.path.normpath(path.lstrip("/"))
    if clean.split("/")[0] == "..":
        raise InvalidArgument(f"option `--cgroup`: {path} is not a sub cgroup path")
    return "" if clean == "." else f"/{clean}"


def _existing(directory: str) -> str:
    if not os.path.isdir(directory):
        raise InvalidArgument(f"option `--cgroup`: `{directory}`: no such cgroup")
    return directory
