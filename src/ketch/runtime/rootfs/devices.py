"""/dev of a container: the nodes every program expects, the spec's own devices, the usual links."""

from __future__ import annotations

import os
import stat
from errno import EEXIST, EPERM

from ketch.contexts import suppress
from ketch.errors import RuntimeFailure
from ketch.linux import mount as m
from ketch.linux.nodes import chown_node
from ketch.runtime.failure import failure
from ketch.runtime.rootfs import mounts, paths
from ketch.runtime.rootfs.mount_options import MountOptions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.runtime.oci_types import OciDevice
    from ketch.runtime.rootfs.anchors import Anchors
    from ketch.runtime.rootfs.planned import Planned
    from ketch.runtime.user_namespaces import OpenUserNamespace


# OCI runtime-spec, config-linux.md "Default Devices".
_NODES = (("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0))
_LINKS = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
)
_OUTSIDE = "a container with a user namespace has devices below `/dev` only"
_BORROWED = "a container of a user has devices of the host that the user may open"
_TYPES = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}


def make_file_system(mount: Planned, devices: list[OciDevice], user: OpenUserNamespace) -> int:
    """A detached /dev that has its nodes, made with the host's rights (RuntimeFailure with step ``devices``).

    In a user namespace nobody makes nodes, and those of a file system that was made there cannot be opened.  The nodes
    belong to the container's root; the umask must be 0.
    """
    uid, gid = user.root()
    options = MountOptions([f"uid={uid}", f"gid={gid}"])
    options.data += mount.options.data
    try:
        attributes = mount.options.set & ~m.MOUNT_ATTR_RDONLY  # see `mounts.seal`
        tree_fd = mounts.make_file_system("tmpfs", mount.source or "tmpfs", options, attributes=attributes)
        dev_fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=tree_fd)
        try:
            _make_nodes(dev_fd, devices, (uid, gid))
        finally:
            os.close(dev_fd)
    except OSError as e:
        raise failure("devices", "make `/dev`", e) from e
    return tree_fd


def _make_nodes(dev_fd: int, devices: list[OciDevice], root: tuple[int, int]) -> None:
    given = {device.get("path") for device in devices}
    for name, major, minor in _NODES:
        if f"/dev/{name}" not in given:
            _node(dev_fd, name, stat.S_IFCHR | 0o666, os.makedev(major, minor))
            os.chown(name, *root, dir_fd=dev_fd, follow_symlinks=False)
    for device in devices:
        path = os.path.normpath(device.get("path") or "")
        if path.startswith("/dev/"):
            _make_device(dev_fd, path[len("/dev") :], device, root)


def borrowed(devices: list[OciDevice]) -> dict[str, int]:
    """{path in the container: tree} of the host's nodes, for a runtime that may make none itself.

    Whoever is root of a user namespace alone is such a runtime (user_namespaces(7)).
    """
    trees: dict[str, int] = {}
    numbers = {f"/dev/{name}": f"/dev/{name}" for name, _, _ in _NODES}
    for device in devices:
        kind = "b" if device.get("type") == "b" else "c"
        number = f"{device.get('major') or 0}:{device.get('minor') or 0}"
        numbers[device.get("path") or ""] = _host_path(kind, number) or device.get("path") or ""
    for path, source in numbers.items():
        try:
            trees[path] = m.open_tree(source)
        except OSError as e:
            raise failure("devices", f"open the host's `{source}`", e, _BORROWED) from e
    return trees


def _host_path(kind: str, number: str) -> str:
    """The path of a node below /dev, as the kernel names it."""
    try:
        with open(f"/sys/dev/{'block' if kind == 'b' else 'char'}/{number}/uevent", encoding="utf-8") as file:
            for line in file:
                if line.startswith("DEVNAME="):
                    return "/dev/" + line[len("DEVNAME=") :].strip()
    except FileNotFoundError:
        pass
    return ""


def populate(anchors: Anchors, devices: list[OciDevice], trees: dict[str, int] | None = None) -> None:
    """Make nodes and links in the fresh /dev; the umask must be 0.

    ``trees``: nodes that are mounted there instead (`borrowed`).
    """
    try:
        dev_fd = anchors.open("/dev", os.O_RDONLY | os.O_DIRECTORY)
    except OSError as e:
        raise failure("devices", "open `/dev`", e) from e
    try:
        given = {device.get("path") for device in devices}
        for path, tree_fd in (trees or {}).items():
            _lend(anchors, path, tree_fd)
        for name, major, minor in _NODES if trees is None else ():
            if f"/dev/{name}" not in given:
                _node(dev_fd, name, stat.S_IFCHR | 0o666, os.makedev(major, minor))
        for name, target in _LINKS:
            _link(dev_fd, name, target)
        if os.path.exists("/proc/kcore"):
            _link(dev_fd, "core", "/proc/kcore")
        for device in devices if trees is None else ():
            _make_device(*anchors.find(device.get("path") or ""), device)
        _ptmx(dev_fd)
    finally:
        os.close(dev_fd)


def _lend(anchors: Anchors, path: str, tree_fd: int) -> None:
    try:
        target_fd = paths.make_file(*anchors.find(path), 0o600)
        try:
            m.move_mount(tree_fd, target_fd)
        finally:
            os.close(target_fd)
            os.close(tree_fd)
    except OSError as e:
        raise failure("devices", f"bind device `{path}`", e) from e


def bind_console(anchors: Anchors, terminal_fd: int) -> None:
    """Mount the container's terminal at /dev/console."""
    try:
        target_fd = paths.make_file(*anchors.find("/dev/console"), 0o600)
        try:
            tree_fd = m.open_tree("", dir_fd=terminal_fd)
            try:
                m.move_mount(tree_fd, target_fd)
            finally:
                os.close(tree_fd)
        finally:
            os.close(target_fd)
    except OSError as e:
        raise failure("devices", "bind terminal on `/dev/console`", e) from e


def _node(dir_fd: int, name: str, mode: int, device: int) -> None:
    try:
        os.mknod(name, mode, device, dir_fd=dir_fd)
    except OSError as e:
        if e.errno != EEXIST:
            raise failure("devices", f"make device node `/dev/{name}`", e) from e


def _link(dir_fd: int, name: str, target: str) -> None:
    try:
        os.symlink(target, name, dir_fd=dir_fd)
    except OSError as e:
        if e.errno != EEXIST:
            raise failure("devices", f"make link `/dev/{name}`", e) from e


def _ptmx(dev_fd: int) -> None:
    """Make /dev/ptmx a link to the container's own devpts (a node could reach another one's)."""
    try:
        os.unlink("ptmx", dir_fd=dev_fd)
    except FileNotFoundError:
        pass
    except OSError as e:
        raise failure("devices", "replace `/dev/ptmx`", e) from e
    _link(dev_fd, "ptmx", "pts/ptmx")


def _make_device(root_fd: int, path: str, device: OciDevice, root: tuple[int, int] = (-1, -1)) -> None:
    """Make a node at ``path`` below ``root_fd``, where missing directories become ``root``'s, as the node does."""
    name, kind = device.get("path") or "", _TYPES.get(device.get("type") or "")
    if kind is None or not name.startswith("/"):
        raise RuntimeFailure(f"make device `{name}`: type `{device.get('type')}` is not one of b c u p", step="devices")
    mode = device.get("fileMode")
    number = 0 if kind == stat.S_IFIFO else os.makedev(device.get("major") or 0, device.get("minor") or 0)
    directory, base = os.path.split(os.path.normpath(path))
    try:
        parent_fd = paths.make_dirs(root_fd, directory, owner=root)
        try:
            with suppress(FileExistsError):
                os.mknod(base, kind | (0o666 if mode is None else mode & 0o7777), number, dir_fd=parent_fd)
            node_fd = os.open(base, paths.O_PATH | os.O_NOFOLLOW, dir_fd=parent_fd)
        finally:
            os.close(parent_fd)
        try:
            _check_same(node_fd, name, kind, number)
            _give(node_fd, device, root)
        finally:
            os.close(node_fd)
    except OSError as e:
        hint = _OUTSIDE if e.errno == EPERM and not name.startswith("/dev/") else None
        raise failure("devices", f"make device `{name}`", e, hint) from e


def _give(node_fd: int, device: OciDevice, root: tuple[int, int]) -> None:
    uid, gid = root if root != (-1, -1) else (device.get("uid") or 0, device.get("gid") or 0)
    if uid or gid:
        chown_node(node_fd, uid, gid)


def _check_same(node_fd: int, path: str, kind: int, number: int) -> None:
    status = os.fstat(node_fd)
    if stat.S_IFMT(status.st_mode) != kind or (kind != stat.S_IFIFO and status.st_rdev != number):
        raise RuntimeFailure(f"make device `{path}`: something else is there", step="devices", errno=EEXIST)
