"""/dev of a container: the nodes every program expects, the spec's own devices, the usual links."""

from __future__ import annotations

import os
import stat
from errno import EEXIST

from ketch.contexts import suppress
from ketch.errors import RuntimeFailure
from ketch.linux import mount as m
from ketch.linux.nodes import chown_node
from ketch.runtime.failure import failure
from ketch.runtime.rootfs import paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.runtime.oci_types import OciDevice
    from ketch.runtime.rootfs.anchors import Anchors


# OCI runtime-spec, config-linux.md "Default Devices".
_NODES = (("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0))
_LINKS = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
)
_TYPES = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}


def populate(anchors: Anchors, devices: list[OciDevice]) -> None:
    """Make nodes and links in the fresh /dev; the umask must be 0."""
    try:
        dev_fd = anchors.open("/dev", os.O_RDONLY | os.O_DIRECTORY)
    except OSError as e:
        raise failure("devices", "open `/dev`", e) from e
    try:
        given = {device.get("path") for device in devices}
        for name, major, minor in _NODES:
            if f"/dev/{name}" not in given:
                _node(dev_fd, name, stat.S_IFCHR | 0o666, os.makedev(major, minor))
        for name, target in _LINKS:
            _link(dev_fd, name, target)
        if os.path.exists("/proc/kcore"):
            _link(dev_fd, "core", "/proc/kcore")
        for device in devices:
            _make_device(anchors, device)
        _ptmx(dev_fd)
    finally:
        os.close(dev_fd)


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


def _make_device(anchors: Anchors, device: OciDevice) -> None:
    path, kind = device.get("path") or "", _TYPES.get(device.get("type") or "")
    if kind is None or not path.startswith("/"):
        raise RuntimeFailure(f"make device `{path}`: type `{device.get('type')}` is not one of b c u p", step="devices")
    mode = device.get("fileMode")
    number = 0 if kind == stat.S_IFIFO else os.makedev(device.get("major") or 0, device.get("minor") or 0)
    directory, name = os.path.split(os.path.normpath(path))
    try:
        parent_fd = paths.make_dirs(*anchors.find(directory))
        try:
            with suppress(FileExistsError):
                os.mknod(name, kind | (0o666 if mode is None else mode & 0o7777), number, dir_fd=parent_fd)
            node_fd = os.open(name, paths.O_PATH | os.O_NOFOLLOW, dir_fd=parent_fd)
        finally:
            os.close(parent_fd)
        try:
            _check_same(node_fd, path, kind, number)
            uid, gid = device.get("uid") or 0, device.get("gid") or 0
            if uid or gid:
                chown_node(node_fd, uid, gid)
        finally:
            os.close(node_fd)
    except OSError as e:
        raise failure("devices", f"make device `{path}`", e) from e


def _check_same(node_fd: int, path: str, kind: int, number: int) -> None:
    status = os.fstat(node_fd)
    if stat.S_IFMT(status.st_mode) != kind or (kind != stat.S_IFIFO and status.st_rdev != number):
        raise RuntimeFailure(f"make device `{path}`: something else is there", step="devices", errno=EEXIST)
