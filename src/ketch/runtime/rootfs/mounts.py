"""The spec's list of mounts: opened while the host's paths exist, attached once the container's root is `/`.

`prepare` turns each entry into a `Planned` mount, with its source already open as a detached tree when it
comes from the host.  `attach` resolves the destination inside the root (no link of the image leads out),
makes it when missing, and puts the mount there.
"""

from __future__ import annotations

import os
from errno import EINVAL, ELOOP, EPERM
from stat import S_ISDIR

from ketch import trees
from ketch.contexts import contextmanager, suppress
from ketch.errors import MountMismatch, RuntimeFailure
from ketch.linux import mount as m
from ketch.linux import nodes, ns
from ketch.runtime.failure import failure
from ketch.runtime.rootfs import paths
from ketch.runtime.rootfs import planned as sources
from ketch.runtime.rootfs.mount_options import MountOptions, is_superblock_flag
from ketch.runtime.rootfs.overlay import open_overlay
from ketch.runtime.rootfs.planned import BundlePlaces, Planned
from ketch.runtime.rootfs.root import make_private_below

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ketch.runtime.oci_types import OciMount
    from ketch.runtime.rootfs.anchors import Anchors
    from ketch.runtime.user_namespaces import OpenUserNamespace
    from ketch.storage.tree_copy import Copier


# Destinations below /proc that a bind mount may cover (LXCFS replaces these files); anything else there would
# let a mount stand in for what the runtime itself reads and writes in /proc.
_PROC_OVERMOUNTS = frozenset(
    f"/proc/{name}"
    for name in [
        "cpuinfo",
        "diskstats",
        "meminfo",
        "stat",
        "swaps",
        "uptime",
        "loadavg",
        "slabinfo",
        "net/dev",
        "sys/kernel/ns_last_pid",
        "sys/crypto/fips_enabled",
        "timer_list",
    ]
)


_HINTS = {
    "proc": "the pid namespace must belong to the container's user namespace, and the host's /proc be covered nowhere, "
    "as it is in containers (--security-opt nesting=true; of other engines: systempaths=unconfined, unmask=ALL)",
    "sysfs": "the network namespace must belong to the container's user namespace, and the host's /sys be covered "
    "nowhere",
}
_LABELLED_BY_POLICY = frozenset(("proc", "sysfs", "cgroup", "cgroup2"))
_INDEPENDENT = frozenset(("proc", "sysfs", "tmpfs", "devpts", "mqueue"))
_PASSING = "/proc"  # a directory that every host has
_ahead: dict[tuple[str, str, tuple[str, ...]], int] = {}  # contexts, by type, source and options (`create_ahead`)
_OF_TMPFS = 0o1777  # the mode of a new one, if nobody says otherwise


def plan(entries: list[OciMount], place: BundlePlaces | None = None, label: str = "") -> list[Planned]:
    """Read the mounts, without opening anything (RuntimeFailure with step ``mounts``).

    File systems that are made get the SELinux ``label``, whatever the policy gives them, if it is not empty.
    """
    planned = []
    for entry in entries:
        mount = Planned(entry)
        if place is not None:
            place.locate(mount)
        _check_destination(mount)
        if label:
            _label(mount, label)
        planned.append(mount)
    return planned


def _label(mount: Planned, label: str) -> None:
    """Have a file system that is made for the container labelled; other files keep their labels, as with runc."""
    if mount.options.bind or mount.fstype == "bind" or mount.fstype in _LABELLED_BY_POLICY:
        return
    if mount.fstype == "mqueue":  # its files have labels of their own, so it takes no context
        mount.label = label
    elif not any(option.startswith("context=") for option in mount.options.data):
        mount.options.data.append(f"context={label}")


def open_one(mount: Planned, user: OpenUserNamespace | None = None) -> None:
    """Open a mount's source on the host, if it has one; `attach` closes the descriptor (or the process's end).

    ``user``: the container's user namespace, for mounts with the option ``idmap`` and no mappings of their own.
    """
    if mount.tree_fd >= 0:
        return
    if mount.options.bind or mount.fstype == "bind":
        (sources.open_maps if mount.inside else sources.open_source)(mount, user)
    elif mount.fstype == "overlay":
        options = mount.options.data + ([mount.options.idmap] if mount.options.idmap else [])
        mount.tree_fd = open_overlay(options, mount.options.set, user)
        if mount.options.subdir:
            with _attached(mount):
                mount.tree_fd = sources.subtree(mount)
    if mount.destination == "/proc" and mount.tree_fd >= 0 and nodes.file_system(mount.tree_fd) != nodes.PROC:
        # What we and others write to it, labels for instance, would go into somebody's files, and have no effect.
        raise RuntimeFailure(
            f"{mount.describe()}: it cannot be mounted there, for it is not of type proc", step="mounts"
        )


def prepare(entries: list[OciMount], user: OpenUserNamespace | None = None) -> list[Planned]:
    """Read the mounts and open their sources, as `open_one`."""
    planned = plan(entries)
    for mount in planned:
        open_one(mount, user)
    return planned


def make_early(mount: Planned) -> None:
    """Make a file system that has nothing to do with what it will cover, while those of the host can be seen.

    Since Linux 6.8 mounts are listed in the order in which they were made, and a specification's order is what programs
    expect.  And in a user namespace the kernel makes no proc or sysfs of which a part is covered in all that this mount
    namespace has.
    """
    if not _is_independent(mount):
        return
    try:
        mount.tree_fd = _make(mount, -1)
    except OSError as e:
        raise failure("mounts", mount.describe(), e, _HINTS.get(mount.fstype) if e.errno == EPERM else None) from e


def _is_independent(mount: Planned) -> bool:
    if mount.tree_fd >= 0 or mount.inside or mount.options.bind or mount.fstype not in _INDEPENDENT:
        return False
    return mount.fstype != "tmpfs" or (_has_mode(mount) and not mount.options.copy_up)


def create_ahead(entries: list[OciMount], *, without: str = "") -> None:
    """Create the file systems of another container's mounts: those of this process's next one may be the same.

    They are created and not mounted: when a mount is made decides about its place in lists.  ``without``: a type of
    which this process is not in the right namespaces.
    """
    for mount in plan(entries):
        key = (mount.fstype, mount.source or mount.fstype, tuple(mount.options.data))
        if _is_independent(mount) and mount.fstype != without and key not in _ahead:
            _ahead[key] = _create(mount.fstype, key[1], mount.options.data)


def attach(mount: Planned, anchors: Anchors) -> None:
    """Make the mount in the root of ``anchors``; raises RuntimeFailure with step ``mounts``."""
    try:
        if mount.inside:
            sources.open_inside(mount, anchors)
        target_fd = _target(mount, anchors)
        try:
            if mount.tree_fd < 0:
                mount.tree_fd = _make(mount, target_fd)
            m.move_mount(mount.tree_fd, target_fd)
            anchors.hold(mount.destination, mount.tree_fd)
        finally:
            os.close(target_fd)
        _set_propagation(mount)
    except NotADirectoryError as e:
        raise MountMismatch.of(mount.describe()) from e
    except OSError as e:
        raise failure("mounts", mount.describe(), e) from e
    finally:
        if mount.tree_fd >= 0:
            os.close(mount.tree_fd)
            mount.tree_fd = -1


def replace(planned: list[Planned], destination: str, tree_fd: int) -> None:
    """Replace the planned file system by the tree ``tree_fd``."""
    for mount in planned:
        if mount.destination == destination and mount.tree_fd < 0:
            mount.options = MountOptions([])
            mount.tree_fd = tree_fd


def tree_of_container(pid: int, path: str) -> int:
    """A detached copy of the mount at ``path`` in the container of ``pid``, whose namespace is entered for a moment.

    The kernel copies mounts of the caller's own namespace only.
    """
    with ns.other_mount_namespace(f"/proc/{pid}/ns/mnt"):
        return m.open_tree(path)


def make_file_system(fstype: str, source: str, options: MountOptions, *, attributes: int | None = None) -> int:
    """A new detached file system; an option that it does not know is named in the error."""
    context_fd = _ahead.pop((fstype, source, tuple(options.data)), -1)
    if context_fd < 0:
        context_fd = _create(fstype, source, options.data)
    try:
        return m.fsmount(context_fd, options.set if attributes is None else attributes)
    except OSError as e:
        raise _with_kernel_log(context_fd, e) from e
    finally:
        os.close(context_fd)


def _create(fstype: str, source: str, data: list[str]) -> int:
    """Create a file system; its context is the caller's."""
    context_fd = m.fsopen(fstype)
    try:
        if source:
            m.fsconfig(context_fd, "source", source)
        for option in data:
            key, equals, value = option.partition("=")
            if not equals and is_superblock_flag(key):
                m.fsconfig(context_fd, key)
            else:
                m.fsconfig(context_fd, key, value if equals else None)
        m.fscreate(context_fd)
    except OSError as e:
        error = _with_kernel_log(context_fd, e)
        os.close(context_fd)
        raise error from e
    return context_fd


@contextmanager
def _attached(mount: Planned) -> Iterator[None]:
    """Attach a detached tree somewhere in this process's own view for a while.

    Before Linux 6.15 the kernel copies a part of a tree only where that is mounted.
    """
    try:
        make_private_below(_PASSING)  # else it would be seen wherever that is shared with
        place_fd = os.open(_PASSING, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            m.move_mount(mount.tree_fd, place_fd)
        finally:
            os.close(place_fd)
    except OSError as e:
        os.close(mount.tree_fd)
        raise failure("mounts", mount.describe(), e) from e
    try:
        yield
    finally:
        m.umount2(_PASSING, m.MNT_DETACH)


def _check_destination(mount: Planned) -> None:
    destination = mount.destination
    if destination == "/":
        raise RuntimeFailure(f"{mount.describe()}: it would hide the container's root", step="mounts")
    if destination == "/proc":
        if mount.fstype != "proc" and not (mount.options.bind or mount.fstype == "bind"):
            raise RuntimeFailure(f"{mount.describe()}: only proc may be mounted there", step="mounts")
    elif destination.startswith("/proc/") and destination not in _PROC_OVERMOUNTS:
        raise RuntimeFailure(f"{mount.describe()}: it is inside /proc", step="mounts")


def check_target(target_fd: int, destination: str) -> None:
    """Refuse a place that a link leads into /proc: a mount there would take what the runtime and others write to it."""
    if nodes.file_system(target_fd) == nodes.PROC and not destination.startswith("/proc/") and destination != "/proc":
        raise RuntimeFailure(f"mount on `{destination}`: a symbolic link there leads into /proc", step="mounts")


def _target(mount: Planned, anchors: Anchors) -> int:
    if mount.fstype in ("proc", "sysfs"):
        return _unlinked(mount, anchors)
    if mount.fstype == "tmpfs" and not mount.options.bind and not _has_mode(mount):
        target_fd = _target_of_tmpfs(mount, *anchors.find(mount.destination))
    else:
        target_fd = (paths.make_dirs if mount.directory else paths.make_file)(*anchors.find(mount.destination))
    try:
        check_target(target_fd, mount.destination)
    except BaseException:
        os.close(target_fd)
        raise
    if not mount.directory and S_ISDIR(os.fstat(target_fd).st_mode):
        os.close(target_fd)
        raise MountMismatch.of(mount.describe())
    return target_fd


def _has_mode(mount: Planned) -> bool:
    return any(option.startswith("mode=") for option in mount.options.data)


def _target_of_tmpfs(mount: Planned, root_fd: int, path: str) -> int:
    """Open the directory whose mode the tmpfs shall have; where there is none, it has that of a new one.

    A directory that is made gets this mode too where it lasts, for at later starts it is there.
    """
    try:
        return paths.open_in(root_fd, path, paths.O_PATH | os.O_DIRECTORY)
    except FileNotFoundError:
        pass
    if not mount.lasting:
        mount.options.data.append(f"mode={_OF_TMPFS:o}")
        return paths.make_dirs(root_fd, path)
    parent_fd = paths.make_dirs(root_fd, os.path.dirname(path))
    try:
        with suppress(FileExistsError):  # a link to a directory that is missing: see below
            os.mkdir(os.path.basename(path), _OF_TMPFS, dir_fd=parent_fd)
    finally:
        os.close(parent_fd)
    return paths.make_dirs(root_fd, path, _OF_TMPFS)


def _unlinked(mount: Planned, anchors: Anchors) -> int:
    """Check that no link leads /proc or /sys elsewhere than masks and read-only paths expect."""
    try:
        os.close(paths.make_dirs(*anchors.find(mount.destination)))
        return anchors.open(mount.destination, paths.O_PATH | os.O_DIRECTORY, links=False)
    except OSError as e:
        if e.errno != ELOOP:
            raise
        what = "it must be mounted on ordinary directory, and the image has a symbolic link there"
        raise RuntimeFailure(f"{mount.describe()}: {what}", step="mounts") from e


def _make(mount: Planned, target_fd: int) -> int:
    options = mount.options
    if mount.fstype == "tmpfs" and not _has_mode(mount):
        # A tmpfs over a directory of the image keeps that directory's mode, as Docker does it.
        mode = os.fstat(target_fd).st_mode & 0o7777
        if mode != _OF_TMPFS:
            options.data.append(f"mode={mode:o}")
    attributes = options.set
    if mount.destination == "/dev" or options.copy_up:
        attributes &= ~m.MOUNT_ATTR_RDONLY  # something is written first; see `seal`
    if not mount.fstype:
        raise OSError(EINVAL, "mount: no type")
    tree_fd = make_file_system(mount.fstype, mount.source or mount.fstype, options, attributes=attributes)
    if mount.label:
        os.setxattr(f"/proc/self/fd/{tree_fd}", "security.selinux", mount.label.encode())
    if mount.copier is not None:
        _copy_up(mount, mount.copier, target_fd, tree_fd)
    return tree_fd


def _copy_up(mount: Planned, copier: type[Copier], target_fd: int, tree_fd: int) -> None:
    """Fill the tmpfs with what it will cover."""
    fds = [os.open(".", trees.DIRECTORY, dir_fd=fd) for fd in (target_fd, tree_fd)]
    try:
        copier(fds[1]).content(fds[0])
    finally:
        for fd in fds:
            os.close(fd)
    if mount.options.set & m.MOUNT_ATTR_RDONLY:
        m.mount_setattr(tree_fd, set_=m.MOUNT_ATTR_RDONLY)


def _set_propagation(mount: Planned) -> None:
    options = mount.options
    if options.propagation:
        m.mount_setattr(mount.tree_fd, propagation=options.propagation, recursive=options.propagation_recursive)


def seal(anchors: Anchors, planned: list[Planned]) -> None:
    """Make mounts read-only that had to be writable during the setup (a /dev with ``ro``)."""
    for mount in planned:
        if mount.destination == "/dev" and mount.options.set & m.MOUNT_ATTR_RDONLY and not mount.options.bind:
            m.mount_setattr(anchors.find("/dev")[0], set_=m.MOUNT_ATTR_RDONLY)


def _with_kernel_log(context_fd: int, error: OSError) -> OSError:
    """The error with the kernel's own sentence, if it left one in the context (fsopen(2): `e tmpfs: Unknown …`)."""
    try:
        text = os.read(context_fd, 512).decode(errors="replace").strip()
    except OSError:
        return error
    return OSError(text[2:] if text[:2] in ("e ", "w ", "i ") else text) if text else error
