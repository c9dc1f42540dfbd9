"""The driver of another runtime: the process that has it create and start a container.

A monitor forks it in the place of the container's first process, and it says the same (`process.children.init`):

    monitor          driver                               runtime                        PID 1
      │ ──fork───────►│ mount namespace, root, bundle        │                              │
      │               ├──────────────────── create ─────────►├── … ────────────────────────►│ waits
      │◄─ "ready" ────┤ pid, network namespace, terminal     │ (ends: PID 1 becomes         │
      ├─ "go" ───────►│                                        the monitor's own child)     │
      │               ├──────────────────── start ──────────►├─────────────────────────────►│ execve
      │◄─ end of file ┘

The root and what is bound into it are mounted in this process's own mount namespace, of which the runtime makes the
container's: the host never has a mount of the container here, either.  The place where it is mounted is the same for
all: a directory that root of a user namespace, whom the container's own directories are closed to, can come to as well.
"""

from __future__ import annotations

import gc
import os
from _signal import SIGKILL  # type: ignore[import-not-found]
from _socket import AF_NETLINK, SOCK_CLOEXEC, SOCK_RAW, socket
from _thread import allocate_lock, start_new_thread
from stat import S_IXOTH

from ketch.contexts import suppress
from ketch.errors import KetchError, RuntimeFailure
from ketch.linux import fdpass, ns, prctl
from ketch.notation import documents
from ketch.runtime import namespaces, spec, user_namespaces
from ketch.runtime.cgroups import common
from ketch.runtime.failure import failure, to_message
from ketch.runtime.process.children import finalize_process
from ketch.runtime.process.foreign import bundle, remains
from ketch.runtime.process.foreign.console import Console
from ketch.runtime.process.foreign.program import ForeignProgram, leave_null_device
from ketch.runtime.rootfs import mounts
from ketch.runtime.rootfs import root as rootfs
from ketch.runtime.rootfs.mount_options import MountOptions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from ketch.runtime.oci_types import OciConfig
    from ketch.runtime.protocol import ChildReady, StartContainer
    from ketch.runtime.user_namespaces import OpenUserNamespace

_HIGHEST_FD = 1 << 30
_NETLINK_ROUTE = 0
_ROOM = ["mode=711", "nosuid", "nodev", "noexec"]


def child_main(message: StartContainer, sync_fd: int) -> NoReturn:
    """Run in the freshly forked child and never return; descriptors 0, 1, 2 are already the container's stdio."""
    driver = _Driver(message, sync_fd)
    try:
        driver.begin()
        driver.create()
        driver.start()
        os._exit(0)
    except BaseException as e:  # the parent must hear of everything
        driver.fail(e)
    os._exit(1)


class _Driver:
    """One start of a container by another runtime."""

    def __init__(self, message: StartContainer, sync_fd: int) -> None:
        self.id, self.run_dir = message["id"], message["run_dir"]
        self._message = message
        self._sync_fd = sync_fd
        self._program = ForeignProgram(message["runtime"])
        self._cgroup_path = ""

    def begin(self) -> None:
        """Leave what is the monitor's, and end with it."""
        gc.disable()
        os.closerange(3, self._sync_fd)
        os.closerange(self._sync_fd + 1, _HIGHEST_FD)
        prctl.prctl(prctl.PR_SET_DUMPABLE, 0)
        prctl.set_parent_death_signal(SIGKILL)
        leave_null_device()
        ns.unshare(ns.CLONE_NEWNS)

    def create(self) -> None:
        """Have the container created, and tell the monitor (RuntimeFailure)."""
        document = spec.load(self._message["bundle"])
        if "process" not in document:
            raise RuntimeFailure("read config.json: no process", step="config")
        linux = document.get("linux") or {}
        if common.layout().forbidden:  # without a path these runtimes put up with having no cgroup
            linux.pop("cgroupsPath", None)
        user = user_namespaces.of(namespaces.Plan(linux.get("namespaces") or []), linux)
        self._mount_root(user)
        directory = bundle.write(document, self.run_dir, self._message["place"], user)
        if user is not None:
            finalize_process.own_stdio(*user.root())
            user.close()
        self._cgroup_path = document["linux"].get("cgroupsPath") or ""
        pid_file = os.path.join(self.run_dir, "init.pid")
        with suppress(FileNotFoundError):
            os.unlink(pid_file)
        console = Console(self.run_dir) if self._message["tty"] else None
        try:
            self._program.create(directory, pid_file, console.path if console else "", self.id)
            fds = self._open_network(document, pid := read_pid(pid_file))
            if console:
                fds.append(console.take())
        finally:
            if console:
                console.close()
        message: ChildReady = {
            "ev": "ready",
            "netns": len(fds) > bool(console),
            "tty": console is not None,
            "pid": pid,
            "cgroups": common.at(self._cgroup_path).describe() if self._cgroup_path else None,
        }
        fdpass.send(self._sync_fd, documents.dumps(message).encode(), fds)
        for fd in fds:
            os.close(fd)

    def _mount_root(self, user: OpenUserNamespace | None) -> None:
        """Mount a directory for all that is mounted, and the root in it (RuntimeFailure)."""
        place = self._message["place"]
        root_path = bundle.root_of(place)
        try:
            os.makedirs(root_path, exist_ok=True)  # outside as well: runc's exec goes there first
            if user is not None:
                rootfs.isolate("rslave")  # layers with mapped owners are mounted in passing
                os.chmod(place, 0o711)  # of what is on the way the umask decided
                _check_reachable(place)
            trees = rootfs.open_all(self._message["rootfs"], root_path, user)
            room_fd = mounts.make_file_system("tmpfs", "tmpfs", MountOptions(_ROOM))
        except OSError as e:
            raise failure("rootfs", f"make a file system for `{place}`", e) from e
        rootfs.attach([room_fd], place, place)
        os.mkdir(root_path, 0o755)
        rootfs.attach(trees, root_path, root_path)

    def _open_network(self, document: OciConfig, pid: int) -> list[int]:
        """Descriptors of the container's new network namespace and of a NETLINK_ROUTE socket in it; or none."""
        kinds = document["linux"].get("namespaces") or []
        if not any(entry["type"] == "network" and not entry.get("path") for entry in kinds):
            return []
        try:
            network_fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            return [network_fd, _route_socket(network_fd)]
        except OSError as e:
            raise failure("namespaces", f"open the network namespace of process {pid}", e) from e

    def start(self) -> None:
        """Wait for the monitor's ``go``, then let the program run (RuntimeFailure)."""
        payload, _ = fdpass.recv(self._sync_fd, 0, size=64)
        if payload != b"go":
            os._exit(1)
        self._program.start(self.id)

    def fail(self, error: BaseException) -> None:
        """Take everything back, and report."""
        message = to_message(error)
        try:
            remains.delete(self.run_dir, self.id)
        except (KetchError, OSError, ValueError) as e:  # ketchd finds the record, and tries again
            message["message"] += f" (and it cannot be removed: {e})"
        message["cgroups"] = common.at(self._cgroup_path).describe() if self._cgroup_path else None
        with suppress(OSError):  # nobody may be left to be told
            fdpass.send_last(self._sync_fd, documents.dumps(message).encode())


def _check_reachable(path: str) -> None:
    """Refuse a directory that other users, as whom the runtime mounts in a user namespace, cannot come to."""
    above = path
    while above != "/":
        if not os.stat(above).st_mode & S_IXOTH:
            raise RuntimeFailure(
                f"mount the container's root on `{path}`: root of its user namespace cannot pass through `{above}`",
                step="rootfs",
                hint=f"chmod o+x `{above}`, choose another --exec-root, or leave --runtime out: "
                "the built-in runtime needs nothing of the kind",
            )
        above = os.path.dirname(above)


def read_pid(path: str, *, ended: bool = False) -> int:
    """The pid in a file that a runtime has written, which is removed (RuntimeFailure).

    The process has fallen to this one's parent, who will wait for it, and signal it: no other process's pid is
    believed.  With ``ended`` it may be gone already.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            text = file.read()
        os.unlink(path)
        pid = int(text)
        parent = _parent_of(pid) if pid > 0 else -1
        if pid == os.getpid() or (parent != os.getppid() and not (ended and parent == 0)):
            raise ValueError(f"process {pid} is none that it has made")
    except (OSError, ValueError) as e:
        raise RuntimeFailure(f"read the pid that the runtime has written to `{path}`: {e}", step="pid") from e
    return pid


def _parent_of(pid: int) -> int:
    """The pid of a process's parent; 0: there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            return int(file.read().rpartition(b")")[2].split()[1])  # a name may have any characters
    except (FileNotFoundError, ProcessLookupError):
        return 0


def _route_socket(network_fd: int) -> int:
    """A NETLINK_ROUTE socket in a network namespace (OSError).

    A thread enters it, and ends there: who is no root does not come back to the machine's.
    """
    made: list[int | OSError] = []
    ended = allocate_lock()

    def enter() -> None:
        try:
            ns.setns(network_fd, ns.CLONE_NEWNET)
            made.append(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, _NETLINK_ROUTE).detach())
        except OSError as e:
            made.append(e)
        finally:
            ended.release()

    with ended:
        start_new_thread(enter, ())
        ended.acquire()
    if isinstance(made[0], OSError):
        raise made[0]
    return made[0]
