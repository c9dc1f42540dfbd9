"""The driver of an exec by another runtime: it says the same as `process.children.exec`."""

from __future__ import annotations

import gc
import os
from _signal import SIGKILL  # type: ignore[import-not-found]

from ketch.contexts import suppress
from ketch.errors import RuntimeFailure
from ketch.linux import fdpass, prctl
from ketch.notation import documents
from ketch.runtime import spec, user_namespaces
from ketch.runtime.failure import failure, to_message
from ketch.runtime.process.children import finalize_process
from ketch.runtime.process.foreign import bundle, remains
from ketch.runtime.process.foreign.console import Console
from ketch.runtime.process.foreign.container import read_pid
from ketch.runtime.process.foreign.program import leave_null_device

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from ketch.runtime.oci_types import OciConfig, OciProcess
    from ketch.runtime.protocol import ChildReady, ExecRequest

_HIGHEST_FD = 1 << 30


class RunningContainer:
    """A running container: its id, directories, and PID 1."""

    __slots__ = ("bundle", "id", "pid", "run_dir")

    def __init__(self, container_id: str, run_dir: str, bundle: str, pid: int) -> None:
        self.id, self.run_dir, self.bundle, self.pid = container_id, run_dir, bundle, pid


def child_main(place: RunningContainer, request: ExecRequest, sync_fd: int) -> NoReturn:
    """Run in the freshly forked child and never return.

    When ``ready`` is said the program runs, with the pid in it; after ``go`` this process ends.
    """
    try:
        gc.disable()
        os.closerange(3, sync_fd)
        os.closerange(sync_fd + 1, _HIGHEST_FD)
        prctl.prctl(prctl.PR_SET_DUMPABLE, 0)
        prctl.set_parent_death_signal(SIGKILL)
        leave_null_device()
        _run(place, request, sync_fd)
        os._exit(0)
    except BaseException as e:  # the parent must hear of everything
        with suppress(OSError):  # nobody may be left to be told
            fdpass.send_last(sync_fd, documents.dumps(to_message(e)).encode())
    os._exit(1)


def _run(place: RunningContainer, request: ExecRequest, sync_fd: int) -> None:
    program = remains.find(place.run_dir)
    if program is None:
        raise RuntimeFailure("exec: the container has ended", step="exec")
    process = request["process"]
    spec.check_process(process)
    document = spec.load(place.bundle)
    user = user_namespaces.of_process(place.pid) if _has_user(document) else None
    if user is not None:
        finalize_process.own_stdio(*user.root())
        user.close()
    _resolve_user(place, process, document)
    pid_file = os.path.join(place.run_dir, f"exec.{os.getpid()}.pid")
    console = Console(place.run_dir) if request["tty"] else None
    try:
        program.exec(process, pid_file, console.path if console else "", place.id)
        pid = read_pid(pid_file, ended=True)
        fds = [console.take()] if console else []
    finally:
        if console:
            console.close()
    message: ChildReady = {"ev": "ready", "netns": False, "tty": console is not None, "pid": pid}
    fdpass.send(sync_fd, documents.dumps(message).encode(), fds)
    for fd in fds:
        os.close(fd)
    fdpass.recv(sync_fd, 0, size=64)


def _has_user(document: OciConfig) -> bool:
    namespaces = (document.get("linux") or {}).get("namespaces") or []
    return any(entry["type"] == "user" for entry in namespaces)


def _resolve_user(place: RunningContainer, process: OciProcess, document: OciConfig) -> None:
    """Put the numbers of the user into the process, from the running container's files."""
    _, of_container = spec.named_user(document.get("annotations") or {})
    named, group_add = spec.named_user(process.pop("annotations", {}))
    try:
        root_fd = os.open(f"/proc/{place.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as e:
        raise failure("user", f"open the root of process {place.pid}", e) from e
    try:
        bundle.complete(process, root_fd, named, group_add or of_container, has_all=_has_user(document))
    finally:
        os.close(root_fd)
