"""Overlay file systems as detached mounts: nothing appears in any directory until the caller attaches it.

Linux 6.5 lets overlay be configured through fsconfig(2), one lower directory at a time (``lowerdir+``
came with 6.7); older kernels take all options as one string of at most a page.  There the directories are named by
descriptor, ``/proc/self/fd/N``, so that a hundred layers with long paths still fit.
"""

from __future__ import annotations

import os
from errno import EINVAL

from ketch.linux import mount as m
from ketch.linux import ns
from ketch.runtime.failure import failure
from ketch.runtime.rootfs.mount_options import MountOptions

_VALUE_MAX = 255  # fsconfig(2) refuses longer strings
_DIRECTORY_KEYS = ("upperdir", "workdir")
_one_by_one: bool | None = None


def open_overlay(options: list[str], attributes: int = 0) -> int:
    """A detached overlay mount; the descriptor is the caller's.  RuntimeFailure with step ``rootfs``."""
    parsed = MountOptions(options)
    lowers: list[str] = []
    rest: list[tuple[str, str | None]] = []
    for item in parsed.data:
        key, equals, value = item.partition("=")
        if key == "lowerdir":
            lowers = split_lowerdir(value)
        elif key == "lowerdir+":
            lowers.append(value)
        else:
            rest.append((key, value if equals else None))
    if len(lowers) == 1 and all(key != "upperdir" for key, _ in rest):
        return _only_one(lowers[0], attributes | parsed.set)
    held: list[int] = []
    try:
        way = _by_fsconfig if takes_lower_directories() else _by_one_string
        return way(lowers, rest, attributes | parsed.set, held)
    except OSError as e:
        raise _explain(e, lowers, rest) from e
    finally:
        for fd in held:
            os.close(fd)


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


def _by_fsconfig(lowers: list[str], rest: list[tuple[str, str | None]], attributes: int, held: list[int]) -> int:
    context_fd = m.fsopen("overlay")
    try:
        m.fsconfig(context_fd, "source", "overlay")
        for lower in lowers:
            m.fsconfig(context_fd, "lowerdir+", _short(lower, held))
        for key, value in rest:
            m.fsconfig(context_fd, key, _short(value, held) if value and key in _DIRECTORY_KEYS else value)
        return m.fsmount(context_fd, attributes)
    finally:
        os.close(context_fd)


def _only_one(lower: str, attributes: int) -> int:
    """A read-only bind of a single layer without an upper directory: the kernel's overlay needs two."""
    try:
        fd = m.open_tree(lower)
        m.mount_setattr(fd, set_=attributes | m.MOUNT_ATTR_RDONLY)
    except OSError as e:
        raise failure("rootfs", f"mount layer directory `{lower}`", e) from e
    return fd


def _short(path: str, held: list[int]) -> str:
    """``path``, or a name of at most _VALUE_MAX bytes for the same directory."""
    return path if len(os.fsencode(path)) <= _VALUE_MAX else _by_descriptor(path, held)


def _by_descriptor(path: str, held: list[int]) -> str:
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    held.append(fd)
    return f"/proc/self/fd/{fd}"


def _by_one_string(lowers: list[str], rest: list[tuple[str, str | None]], attributes: int, held: list[int]) -> int:
    """Mount with mount(2), for kernels whose overlay has no new API: options of one page at most.

    mount(2) needs a directory to mount on, which may be shared with the host.  So it is done in a passing mount
    namespace where everything is private, and the result picked up as a detached copy.
    """
    with ns.other_mount_namespace(None):
        m.mount(None, "/", None, m.MS_REC | m.MS_PRIVATE)
        options = ["lowerdir=" + ":".join(_by_descriptor(lower, held) for lower in lowers)]
        for key, value in rest:
            if value is None:
                options.append(key)
            elif key in _DIRECTORY_KEYS:
                options.append(f"{key}={_by_descriptor(value, held)}")
            else:
                options.append(f"{key}={value}")
        mount_point = lowers[0]  # any directory
        m.mount("overlay", mount_point, "overlay", 0, ",".join(options))
        tree_fd = m.open_tree(mount_point)
    if attributes:
        m.mount_setattr(tree_fd, set_=attributes)
    return tree_fd


def _explain(error: OSError, lowers: list[str], rest: list[tuple[str, str | None]]) -> Exception:
    """The error with the missing directory's name, which the kernel does not give."""
    directories = [*lowers, *(value for key, value in rest if value and key in _DIRECTORY_KEYS)]
    for directory in directories:
        if not os.path.isdir(directory):
            return failure("rootfs", f"mount overlay: layer directory `{directory}`", FileNotFoundError(2, ""))
    return failure("rootfs", f"mount overlay of {len(lowers)} layers", error)
