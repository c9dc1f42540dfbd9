"""The container's root: made in its own mount namespace, entered with pivot_root, closed at the end.

    isolate        mounts made from now on do not reach the host
    attach         overlay (or a directory bound on itself) appears on some directory of *this* namespace only
    enter          pivot_root; the host's tree is gone from this namespace
    (mounts …)     with `/` already the container's, so every path lookup stays inside
    finish         propagation and read-only of `/`

Sources of bind mounts are opened before `enter` (see `mounts.prepare`), while the host's paths still exist.
"""

from __future__ import annotations

import os
from errno import EINVAL, ENOTDIR
from stat import S_ISDIR

from ketch.contexts import suppress
from ketch.errors import RuntimeFailure
from ketch.linux import mount as m
from ketch.runtime.failure import failure
from ketch.runtime.rootfs import idmap
from ketch.runtime.rootfs.mount_options import MountOptions, names_propagation
from ketch.runtime.rootfs.overlay import open_overlay

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.runtime.oci_types import OciMount
    from ketch.runtime.user_namespaces import OpenUserNamespace


_OPEN_TO_ALL = ("/mnt", "/srv", "/media", "/proc")  # the last one every host has


def isolate(propagation: str | None) -> None:
    """Set the propagation of the namespace's inherited mounts: ``rslave`` unless the spec says otherwise."""
    named = names_propagation(propagation or "rslave")
    if named is None:
        raise RuntimeFailure(f"read config.json: unknown rootfsPropagation `{propagation}`", step="config")
    # What is unbindable could not be opened any more; the root becomes so at the end.
    flag = m.MS_PRIVATE if named[0] == m.MS_UNBINDABLE else named[0]
    try:
        m.mount(None, "/", None, flag | m.MS_REC)
    except OSError as e:
        raise failure("rootfs", f"set propagation `{propagation or 'rslave'}` of `/`", e) from e


def open_all(rootfs: list[OciMount], path: str, user: OpenUserNamespace | None = None) -> list[int]:
    """Detached mounts of the container's root; an empty ``rootfs`` means the directory ``path``.

    They are made before all others: newer kernels list mounts in the order in which they were made, and programs
    expect the root first.
    """
    if rootfs:
        return [open_root(mount, user) for mount in rootfs]
    fd = _open_bind(path, ["rbind"])
    if not S_ISDIR(os.fstat(fd).st_mode):
        raise RuntimeFailure(f"bind root file system `{path}`: not a directory", step="rootfs", errno=ENOTDIR)
    return [fd]


def attach(fds: list[int], path: str, bundle: str) -> str:
    """Attach the root's mounts, whose descriptors are closed, and return where they are.

    A root that is a mount of its own covers ``path`` when that is a directory, else the bundle: both only within
    this namespace, and nothing of either is needed any more.  Nobody can go to what covers `/`: a root that is the
    host's own covers the bundle, too.  Where the root of a user namespace can come to neither, it covers a directory
    that is open to all, and that hooks do not need.
    """
    mount_point = path if os.path.isdir(path) and not os.path.samefile(path, "/") else bundle
    if not os.access(mount_point, os.R_OK | os.X_OK):
        mount_point = next(place for place in _OPEN_TO_ALL if os.access(place, os.R_OK | os.X_OK))
    try:
        attach_trees(fds, mount_point)
    finally:
        for fd in fds:
            os.close(fd)
    return mount_point


def attach_trees(fds: list[int], mount_point: str) -> None:
    """Attach detached mounts, whose descriptors stay the caller's, to a directory of this namespace.

    None of them is shared afterwards, nor is what it is attached to: pivot_root(2) refuses that.
    """
    try:
        make_private_below(mount_point)
        for fd in fds:
            target_fd = os.open(mount_point, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                m.move_mount(fd, target_fd)
                m.mount_setattr(fd, propagation=m.MS_SLAVE)
            finally:
                os.close(target_fd)
    except OSError as e:
        raise failure("rootfs", f"attach root file system on `{mount_point}`", e) from e


def enter(mount_point: str, *, pivot: bool = True) -> None:
    """Make the mount at ``mount_point`` the root of this process and drop the old root from the namespace.

    Without ``pivot`` the old root is only covered.
    """
    if not pivot:
        _cover(mount_point)
        return
    try:
        old_fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.chdir(mount_point)
            # put_old == new_root stacks the old root on top of the new one: no directory is needed (pivot_root(2))
            m.pivot_root(".", ".")
            os.fchdir(old_fd)
            # What is unmounted below must not be unmounted on the host as well.
            m.mount(None, ".", None, m.MS_SLAVE | m.MS_REC)
            m.umount2(".", m.MNT_DETACH)
        finally:
            os.close(old_fd)
        os.chdir("/")
    except OSError as e:
        raise failure("rootfs", f"pivot into `{mount_point}`", e) from e


def _cover(mount_point: str) -> None:
    """Move the mount at ``mount_point`` over the old root, and change the root to it.

    For a host whose root is its initial RAM disk, which pivot_root(2) refuses to move.  The old root stays below, out
    of sight; who may unmount in the namespace could uncover it, so all that can be unmounted of it is.
    """
    try:
        os.chdir(mount_point)
        _unmount_others(os.getcwd())
        m.mount(".", "/", None, m.MS_MOVE)
        os.chroot(".")
        os.chdir("/")
    except OSError as e:
        raise failure("rootfs", f"move `{mount_point}` over the root", e) from e


def _unmount_others(kept: str) -> None:
    """Unmount what of the host's mounts is not the root, nor at ``kept``, below it or above it."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        points = [line.split()[4] for line in file]
    for point in reversed(points):
        path = _unescaped(point)
        if path == "/" or f"{path}/".startswith(f"{kept}/") or f"{kept}/".startswith(f"{path}/"):
            continue
        with suppress(OSError):  # below one that has gone, or locked together with another
            m.umount2(path, m.MNT_DETACH)


def _unescaped(text: str) -> str:
    """A path of mountinfo, where blanks are octal numbers (proc_pid_mountinfo(5))."""
    for number in ("040", "011", "012", "134"):
        text = text.replace(f"\\{number}", chr(int(number, 8)))
    return text


def change(path: str) -> None:
    """Make the directory ``path`` the root of this process alone, where no mount may be made (chroot(2))."""
    try:
        os.chdir(path)
        os.chroot(".")
    except OSError as e:
        raise failure("rootfs", f"change root to `{path}`", e) from e


def finish(root_fd: int, *, readonly: bool, propagation: str | None) -> None:
    """Set the propagation of `/` and, last of all, make it read-only."""
    named = names_propagation(propagation) if propagation else None
    if not readonly and named is None:
        return
    try:
        if named is not None:
            m.mount_setattr(root_fd, propagation=named[0], recursive=False)
        if readonly:
            m.mount_setattr(root_fd, set_=m.MOUNT_ATTR_RDONLY)
    except OSError as e:
        raise failure("rootfs", "make `/` read-only" if readonly else "set propagation of `/`", e) from e


def open_root(mount: OciMount, user: OpenUserNamespace | None = None) -> int:
    """A detached mount for an entry of the launcher's ``rootfs``; RuntimeFailure with step ``rootfs``.

    With the option ``idmap`` its files are seen through ``user``, if that is given (see `overlay.open_overlay`).
    """
    kind, options = mount.get("type", ""), mount.get("options") or []
    if kind == "overlay":
        return open_overlay(options, 0, user)
    if kind in ("bind", "rbind"):
        return _open_bind(mount.get("source", ""), [*options, kind], user)
    raise RuntimeFailure(f"mount root file system: type `{kind}` is neither overlay nor bind", step="rootfs")


def _open_bind(source: str, options: list[str], user: OpenUserNamespace | None = None) -> int:
    parsed = MountOptions(options)
    try:
        fd = m.open_tree(source, recursive=parsed.recursive)
        if parsed.idmap and user is not None:
            idmap.apply_namespace(fd, user, recursive=parsed.idmap == "ridmap")
        if parsed.set or parsed.clear:
            m.mount_setattr(fd, set_=parsed.set, clear=parsed.clear)
    except OSError as e:
        hint = idmap.HINT if parsed.idmap and user is not None and e.errno == EINVAL else None
        raise failure("rootfs", f"bind root file system `{source}`", e, hint) from e
    return fd


def make_private_below(mount_point: str) -> None:
    """Make the mount that holds ``mount_point`` private, if it is shared: pivot_root refuses a shared parent (EINVAL).

    Only a mount's own root can be changed, so the way goes upwards until one is found.
    """
    while True:
        try:
            m.mount_setattr(-100, mount_point, propagation=m.MS_PRIVATE)
            return
        except OSError as e:
            if e.errno != 22 or mount_point == "/":
                raise
        mount_point = os.path.dirname(os.path.abspath(mount_point))
