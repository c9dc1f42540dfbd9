"""Overlay file systems as detached mounts: nothing appears in any directory until the caller attaches it.

Linux 6.5 lets overlay be configured through fsconfig(2), one lower directory at a time (``lowerdir+``
came with 6.7); older kernels take all options as one string of at most a page.  There the directories are named by
descriptor, ``/proc/self/fd/N``, so that a hundred layers with long paths still fit.
"""

from __future__ import annotations

import os
from errno import EINVAL, ENOENT

from ketch.errors import RuntimeFailure
from ketch.failpoints import failpoint
from ketch.linux import caps, ns
from ketch.linux import mount as m
from ketch.linux.ns import LIMITED
from ketch.runtime.failure import failure
from ketch.runtime.rootfs import idmap
from ketch.runtime.rootfs.mount_options import MountOptions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.runtime.user_namespaces import OpenUserNamespace

_VALUE_MAX = 255  # fsconfig(2) refuses longer strings
_DIRECTORY_KEYS = ("upperdir", "workdir")
_COPY = "before that, ketchd --userns-copy gives containers copies of their images"
_one_by_one: bool | None = None


def open_overlay(options: list[str], attributes: int = 0, user: OpenUserNamespace | None = None) -> int:
    """A detached overlay mount; the descriptor is the caller's.  RuntimeFailure with step ``rootfs``.

    With the option ``idmap`` the layers are seen through ``user``, if there is one; the caller is then in a mount
    namespace that passes, where the mapped layers are attached.
    """
    parsed = MountOptions(options)
    if LIMITED:
        parsed.data.append("userxattr")
    layers = _Layers(parsed.data)
    if len(layers.lowers) == 1 and not layers.upper:
        return _only_one(layers.lowers[0], attributes | parsed.set, user if parsed.idmap else None)
    held: list[int] = []
    try:
        way = _by_fsconfig if takes_lower_directories() else _by_one_string
        if user is None or not parsed.idmap:
            return way(layers, attributes | parsed.set, held)
        layers.map_owners(user, held)
        failpoint("overlay.owners-mapped")
        # What overlay makes for itself, in the work directory, must have an owner on the disk as well.
        with caps.owner_of_files(*user.root()):
            return way(layers, attributes | parsed.set, held)
    except OSError as e:
        raise layers.explain(e) from e
    finally:
        layers.detach()
        for fd in held:
            os.close(fd)


class _Layers:
    """An overlay's lower directories, topmost first, and its other options.

    ``mount_point`` is a path at which to mount for a moment: the first of them, whatever is mounted there.
    """

    __slots__ = ("attached", "lowers", "mount_point", "rest")

    def __init__(self, data: list[str]) -> None:
        self.lowers: list[str] = []
        self.rest: list[tuple[str, str | None]] = []
        self.attached: list[int] = []
        for item in data:
            key, equals, value = item.partition("=")
            if key == "lowerdir":
                self.lowers = split_lowerdir(value)
            elif key == "lowerdir+":
                self.lowers.append(value)
            else:
                self.rest.append((key, value if equals else None))
        self.mount_point = self.lowers[0] if self.lowers else ""

    @property
    def upper(self) -> str:
        return next((value for key, value in self.rest if key == "upperdir" and value), "")

    def map_owners(self, user: OpenUserNamespace, held: list[int]) -> None:
        """Replace the directories by those of id-mapped mounts; the descriptors are added to ``held``.

        Before Linux 6.15 overlay takes only layers that are attached somewhere in the caller's namespace.  One mount
        serves for the upper and the work directory, which must be on the same.
        """
        place_fd = os.open(self.mount_point, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        held.append(place_fd)
        self.lowers = [self._map_one(lower, user, place_fd, held) for lower in self.lowers]
        if self.upper:
            parent = os.path.dirname(self.upper)
            mapped = self._map_one(parent, user, place_fd, held)
            self.rest = [(key, self._below(parent, mapped, key, value)) for key, value in self.rest]

    def detach(self) -> None:
        """Detach the id-mapped mounts, of which the overlay has copies; the last one that came covers the others."""
        while self.attached:
            m.umount2(f"/proc/self/fd/{self.attached.pop()}", m.MNT_DETACH)

    def _map_one(self, directory: str, user: OpenUserNamespace, place_fd: int, held: list[int]) -> str:
        try:
            fd = m.open_tree(directory)
            held.append(fd)
            idmap.apply_namespace(fd, user)
            m.move_mount(fd, place_fd)
            self.attached.append(fd)
        except OSError as e:
            if e.errno == ENOENT:
                raise failure("rootfs", f"mount overlay: layer directory `{directory}`", e) from e
            raise failure("rootfs", f"map the owners of layer directory `{directory}`", e, idmap.HINT) from e
        return f"/proc/self/fd/{fd}"

    @staticmethod
    def _below(parent: str, mapped: str, key: str, value: str | None) -> str | None:
        if not value or key not in _DIRECTORY_KEYS:
            return value
        if os.path.dirname(value) != parent:
            text = f"map the owners of `{value}`: it is not in the directory of the upper one, `{parent}`"
            raise RuntimeFailure(text, step="rootfs")
        return f"{mapped}/{os.path.basename(value)}"

    def explain(self, error: OSError) -> Exception:
        """The error with the missing directory's name, which the kernel does not give."""
        directories = [*self.lowers, *(value for key, value in self.rest if value and key in _DIRECTORY_KEYS)]
        for directory in directories:
            if not os.path.isdir(directory):
                return failure("rootfs", f"mount overlay: layer directory `{directory}`", FileNotFoundError(2, ""))
        hint = (
            f"layers with mapped owners need Linux 5.19; {_COPY}" if self.attached and error.errno == EINVAL else None
        )
        return failure("rootfs", f"mount overlay of {len(self.lowers)} layers", error, hint)


def takes_lower_directories() -> bool:
    """Whether the kernel takes lower directories one at a time; found out once, also for processes forked later.

    It is asked without a mount, of which an older kernel would complain in its log: overlays that have no new API take
    any option until they are mounted, others refuse what they do not know at once.
    """
    global _one_by_one
    if _one_by_one is None:
        context_fd = m.fsopen("overlay")
        try:
            _one_by_one = not _takes(context_fd, "no-such-option") and _takes(context_fd, "lowerdir+")
        finally:
            os.close(context_fd)
    return _one_by_one


def _takes(context_fd: int, option: str) -> bool:
    try:
        m.fsconfig(context_fd, option, "/")
    except OSError as e:
        if e.errno != EINVAL:
            raise
        return False
    return True


def split_lowerdir(value: str) -> list[str]:
    """The directories of a ``lowerdir=`` option, topmost first; ``\\:`` is a colon within a name."""
    if "\\" not in value:
        return value.split(":")
    out, current, escaped = [], "", False
    for character in value:
        if escaped:
            current += character
            escaped = False
        elif character == "\\":
            escaped = True
        elif character == ":":
            out.append(current)
            current = ""
        else:
            current += character
    out.append(current)
    return out


def _by_fsconfig(layers: _Layers, attributes: int, held: list[int]) -> int:
    context_fd = m.fsopen("overlay")
    try:
        m.fsconfig(context_fd, "source", "overlay")
        for lower in layers.lowers:
            m.fsconfig(context_fd, "lowerdir+", _short(lower, held))
        for key, value in layers.rest:
            m.fsconfig(context_fd, key, _short(value, held) if value and key in _DIRECTORY_KEYS else value)
        m.fscreate(context_fd)
        return m.fsmount(context_fd, attributes)
    finally:
        os.close(context_fd)


def _only_one(lower: str, attributes: int, user: OpenUserNamespace | None) -> int:
    """A read-only bind of a single layer without an upper directory: the kernel's overlay needs two."""
    try:
        fd = m.open_tree(lower)
        if user is not None:
            idmap.apply_namespace(fd, user)
        m.mount_setattr(fd, set_=attributes | m.MOUNT_ATTR_RDONLY)
    except OSError as e:
        raise failure("rootfs", f"mount layer directory `{lower}`", e, idmap.HINT if user else None) from e
    return fd


def _short(path: str, held: list[int]) -> str:
    """``path``, or a name of at most _VALUE_MAX bytes for the same directory."""
    return path if len(os.fsencode(path)) <= _VALUE_MAX else _by_descriptor(path, held)


def _by_descriptor(path: str, held: list[int]) -> str:
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    held.append(fd)
    return f"/proc/self/fd/{fd}"


def _by_one_string(layers: _Layers, attributes: int, held: list[int]) -> int:
    """Mount with mount(2), for kernels whose overlay has no new API: options of one page at most.

    mount(2) needs a directory to mount on, which may be shared with the host.  So it is done in a passing mount
    namespace where everything is private.  Mapped layers are in such a namespace already, and are nowhere else.
    """
    if layers.attached:
        tree_fd = _mounted(layers, held)
    else:
        with ns.other_mount_namespace(None):
            m.mount(None, "/", None, m.MS_REC | m.MS_PRIVATE)
            tree_fd = _mounted(layers, held)
    if attributes:
        m.mount_setattr(tree_fd, set_=attributes)
    return tree_fd


def _mounted(layers: _Layers, held: list[int]) -> int:
    """Mount, and pick up a detached copy."""
    options = ["lowerdir=" + ":".join(_by_descriptor(lower, held) for lower in layers.lowers)]
    for key, value in layers.rest:
        if value is None:
            options.append(key)
        elif key in _DIRECTORY_KEYS:
            options.append(f"{key}={_by_descriptor(value, held)}")
        else:
            options.append(f"{key}={value}")
    mount_point = layers.mount_point
    m.mount("overlay", mount_point, "overlay", 0, ",".join(options))
    try:
        return m.open_tree(mount_point)
    finally:
        m.umount2(mount_point, m.MNT_DETACH)
