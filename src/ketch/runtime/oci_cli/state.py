"""A container's state between two calls of ``ketch-runtime``: ``ROOT/ID/state.json``.

    ROOT/ID/config.json   the configuration as it was when the container was created
    ROOT/ID/state.json    written when the container has been created; before, it says only which cgroup it may have
    ROOT/ID/start.sock    the created container waits here for ``start``; gone once it runs
    ROOT/@seccomp/        compiled filters (`filters`)

The status is never stored but seen: is the process with that pid *and* start time alive, does start.sock exist.
"""

from __future__ import annotations

import os
import time

from ketch import pidfd
from ketch.errors import AlreadyExists, DataLoss, InvalidArgument, NotFound
from ketch.notation import documents
from ketch.runtime import spec
from ketch.runtime.cgroups import common
from ketch.runtime.spec import OCI_VERSION as OCI_VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NotRequired, TypedDict

    from ketch.runtime.oci_cli.diagnostics import Diagnostics
    from ketch.runtime.oci_types import OciConfig, OciHookState, OciState
    from ketch.runtime.protocol import Cgroups

    class StateFile(TypedDict):
        """The content of ``state.json``; what is made later is missing before, ``created`` the last of all."""

        id: str
        bundle: str
        pid: NotRequired[int]
        start_time: NotRequired[int]
        created: NotRequired[str]
        cgroups: NotRequired[Cgroups | None]
        annotations: NotRequired[dict[str, str]]
        rootfs: NotRequired[str]


_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.")


class RuntimeState:
    """One container of a runtime root."""

    def __init__(self, directory: str, document: StateFile) -> None:
        self.directory = directory
        self.document = document

    @property
    def id(self) -> str:
        return str(self.document["id"])

    @property
    def pid(self) -> int:
        return int(self.document.get("pid") or 0)

    @property
    def bundle(self) -> str:
        return str(self.document["bundle"])

    @property
    def root(self) -> str:
        return os.path.dirname(self.directory)

    @property
    def start_socket(self) -> str:
        return f"{self.directory}/start.sock"

    def configuration(self) -> OciConfig:
        """The configuration that the container was made of."""
        try:
            with open(f"{self.directory}/config.json", encoding="utf-8") as file:
                document: OciConfig = documents.loads(file.read())
        except FileNotFoundError:  # made by a version that did not keep it
            return spec.load(self.bundle)
        return document

    def keep(self, document: OciConfig, cgroup: common.Cgroup) -> None:
        """Keep a new container's configuration, and where its cgroup is going to be, for whoever has to clean up."""
        _write(f"{self.directory}/config.json", documents.dumps(document))
        self.document["cgroups"] = cgroup.describe()
        self.document["annotations"] = document.get("annotations") or {}
        self.document["rootfs"] = os.path.normpath(os.path.join(self.bundle, document["root"]["path"]))
        self.save()

    def made(self, pid: int, cgroups: Cgroups | None) -> None:
        """Note what has been made, and save it: from now on the container is created."""
        from ketch.notation import times

        self.document["pid"] = pid
        self.document["start_time"] = pidfd.start_time(pid)
        self.document["cgroups"] = cgroups
        self.document["created"] = times.fixed(time.time_ns())
        self.save()

    def cgroup(self) -> common.Cgroup | None:
        """The container's cgroup, if it has one of its own."""
        described = self.document.get("cgroups")
        return common.open(described) if described and common.is_anywhere(described) else None

    def status(self) -> str:
        """``creating``, ``created``, ``running``, ``paused`` or ``stopped``."""
        if "created" not in self.document:
            return "creating"
        if pidfd.start_time(self.pid) != self.document.get("start_time"):
            return "stopped"
        cgroup = self.cgroup()
        if cgroup is not None and cgroup.is_frozen():
            return "paused"
        return "created" if os.path.exists(self.start_socket) else "running"

    def open_first(self) -> int:
        """A descriptor of the first process; -1 when it has ended, and another may have its pid by now."""
        try:
            fd = pidfd.open_process(self.pid)
        except ProcessLookupError:
            return -1
        if pidfd.start_time(self.pid) == self.document.get("start_time"):
            return fd
        os.close(fd)
        return -1

    def oci(self) -> OciState:
        """The state object of the OCI runtime specification (§ runtime.md, State), with what runc adds."""
        status = self.status()
        state: OciState = {
            "ociVersion": OCI_VERSION,
            "id": self.id,
            "pid": 0 if status == "stopped" else self.pid,
            "status": status,
            "bundle": self.bundle,
            "rootfs": self.document.get("rootfs", ""),
            "created": self.document.get("created", ""),
            "owner": _owner(self.directory),
        }
        if self.document.get("annotations"):
            state["annotations"] = self.document["annotations"]
        return state

    def of_hooks(self, status: str, pid: int) -> OciHookState:
        """The state object that hooks read on their stdin, in the moment of ``status``."""
        return {
            "ociVersion": OCI_VERSION,
            "id": self.id,
            "status": status,
            "pid": pid,
            "bundle": self.bundle,
            "annotations": self.document.get("annotations") or {},
        }

    def save(self) -> None:
        """Write state.json, all or nothing."""
        temporary = f"{self.directory}/state.json.new"
        _write(temporary, documents.dumps(self.document))
        os.rename(temporary, f"{self.directory}/state.json")

    def forget(self) -> None:
        """Remove the container's directory."""
        from ketch import trees

        try:
            trees.remove_path(self.directory)
        except OSError:
            return  # gone, or going, by another call


def discard(root: str, container_id: str) -> None:
    """Remove what a `create` or `delete` that was killed has left of a container: a directory without a state."""
    _check_id(container_id)
    RuntimeState(f"{root}/{container_id}", {"id": container_id, "bundle": ""}).forget()


def reserve(root: str, container_id: str, bundle: str) -> RuntimeState:
    """Make the directory of a new container; AlreadyExists when the id is taken."""
    _check_id(container_id)
    directory = f"{root}/{container_id}"
    os.makedirs(root, mode=0o700, exist_ok=True)
    try:
        os.mkdir(directory, 0o711)
    except FileExistsError as e:
        hint = None if os.path.exists(f"{directory}/state.json") else "`delete --force` removes what has no state"
        what = f"create container `{container_id}`: container with given ID already exists"
        raise AlreadyExists(what, hint=hint) from e
    return RuntimeState(directory, {"id": container_id, "bundle": bundle})


def load(root: str, container_id: str) -> RuntimeState:
    """The container's state; NotFound when there is none, DataLoss when it cannot be read."""
    _check_id(container_id)
    directory = f"{root}/{container_id}"
    try:
        with open(f"{directory}/state.json", encoding="utf-8") as file:
            document: StateFile | None = documents.loads(file.read())
        if not isinstance(document, dict) or document.get("id") != container_id or "bundle" not in document:
            raise ValueError("it is another program's")  # or of another version
        return RuntimeState(directory, document)
    except FileNotFoundError as e:
        raise NotFound(f"find container `{container_id}`: container does not exist") from e
    except (ValueError, RecursionError) as e:
        hint = f"end what runs of it, and remove `{directory}`"
        raise DataLoss(f"read state of container `{container_id}`: {e}", hint=hint) from e


def load_all(root: str, diagnostics: Diagnostics) -> list[RuntimeState]:
    """Every container of the root whose state can be read, by id."""
    found = []
    names = sorted(os.listdir(root)) if os.path.isdir(root) else []
    for name in names:
        try:
            found.append(load(root, name))
        except (NotFound, InvalidArgument):
            continue  # being created or deleted just now
        except DataLoss as e:
            diagnostics.warn(e.message)
    return found


def with_short_path(path: str, call: Callable[[str], object]) -> None:
    """Call ``call`` with a short path to a socket (at most 107 bytes), by a directory descriptor."""
    directory_fd = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        call(f"/proc/self/fd/{directory_fd}/{os.path.basename(path)}")
    finally:
        os.close(directory_fd)


def _owner(path: str) -> str:
    """The name of a file's owner, or the number after `#`; empty when it has just been removed."""
    import pwd

    try:
        uid = os.stat(path).st_uid
    except FileNotFoundError:
        return ""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"#{uid}"


def _write(path: str, text: str) -> None:
    """Write a file that nobody else may read: environments have secrets, and a root need not be one's own alone."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with open(fd, "w", encoding="utf-8") as file:
        file.write(text)


def _check_id(container_id: str) -> None:
    if not container_id or not _NAME_CHARACTERS.issuperset(container_id) or container_id in (".", ".."):
        raise InvalidArgument(f"invalid container id `{container_id}`", hint="use letters, digits and _ + - .")
