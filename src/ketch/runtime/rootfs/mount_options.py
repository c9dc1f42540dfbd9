"""Parsing of mount options of fstab(5), Docker and the OCI specification, by the call that sets them."""

from __future__ import annotations

from ketch.linux import mount as m

# option → (attributes set, attributes cleared)
_ATTRIBUTES: dict[str, tuple[int, int]] = {
    "ro": (m.MOUNT_ATTR_RDONLY, 0),
    "rw": (0, m.MOUNT_ATTR_RDONLY),
    "nosuid": (m.MOUNT_ATTR_NOSUID, 0),
    "suid": (0, m.MOUNT_ATTR_NOSUID),
    "nodev": (m.MOUNT_ATTR_NODEV, 0),
    "dev": (0, m.MOUNT_ATTR_NODEV),
    "noexec": (m.MOUNT_ATTR_NOEXEC, 0),
    "exec": (0, m.MOUNT_ATTR_NOEXEC),
    "nosymfollow": (m.MOUNT_ATTR_NOSYMFOLLOW, 0),
    "symfollow": (0, m.MOUNT_ATTR_NOSYMFOLLOW),
    "nodiratime": (m.MOUNT_ATTR_NODIRATIME, 0),
    "diratime": (0, m.MOUNT_ATTR_NODIRATIME),
    # The access-time modes are one field of several bits: changing it means clearing all of it.
    "noatime": (m.MOUNT_ATTR_NOATIME, m.MOUNT_ATTR__ATIME),
    "atime": (m.MOUNT_ATTR_RELATIME, m.MOUNT_ATTR__ATIME),
    "relatime": (m.MOUNT_ATTR_RELATIME, m.MOUNT_ATTR__ATIME),
    "norelatime": (m.MOUNT_ATTR_RELATIME, m.MOUNT_ATTR__ATIME),
    "strictatime": (m.MOUNT_ATTR_STRICTATIME, m.MOUNT_ATTR__ATIME),
    "nostrictatime": (m.MOUNT_ATTR_RELATIME, m.MOUNT_ATTR__ATIME),
}
_PROPAGATION: dict[str, int] = {
    "private": m.MS_PRIVATE,
    "slave": m.MS_SLAVE,
    "shared": m.MS_SHARED,
    "unbindable": m.MS_UNBINDABLE,
}
# Flags of the superblock, which the new API takes by name.
_SUPERBLOCK = frozenset({"sync", "dirsync", "lazytime", "mand"})
_SUBDIR = "X-mount.subdir="
_NOTHING = frozenset({"defaults", "async", "nomand", "nolazytime", "loud", "silent", ""})


class MountOptions:
    """One mount's options: flags of mount_setattr(2), propagation, bind, the file system's own ``data``."""

    __slots__ = (
        "bind",
        "clear",
        "copy_up",
        "data",
        "idmap",
        "propagation",
        "propagation_recursive",
        "rec_clear",
        "rec_set",
        "recursive",
        "set",
        "subdir",
    )

    def __init__(self, options: list[str]) -> None:
        self.set = self.clear = 0
        self.rec_set = self.rec_clear = 0
        self.propagation = 0
        self.propagation_recursive = False
        self.bind = self.recursive = self.copy_up = False
        self.idmap = ""  # "idmap" or "ridmap"
        self.subdir = ""  # the part of the source that is meant (mount(8): X-mount.subdir)
        self.data: list[str] = []
        for option in options:
            self._add(option)

    def _add(self, option: str) -> None:
        if option in _ATTRIBUTES:
            on, off = _ATTRIBUTES[option]
            self.set = self.set & ~off | on
            self.clear = self.clear & ~on | off
        elif option in ("bind", "rbind"):
            self.bind, self.recursive = True, option == "rbind"
        elif option in _PROPAGATION:
            self.propagation, self.propagation_recursive = _PROPAGATION[option], False
        elif option[:1] == "r" and option[1:] in _PROPAGATION:
            self.propagation, self.propagation_recursive = _PROPAGATION[option[1:]], True
        elif option[:1] == "r" and option[1:] in _ATTRIBUTES:
            on, off = _ATTRIBUTES[option[1:]]
            self.rec_set = self.rec_set & ~off | on
            self.rec_clear = self.rec_clear & ~on | off
        elif option == "tmpcopyup":
            self.copy_up = True
        elif option in ("idmap", "ridmap"):
            self.idmap = option
        elif option.startswith(_SUBDIR):
            self.subdir = option[len(_SUBDIR) :]
        elif option not in _NOTHING:
            self.data.append(option)


def names_propagation(text: str) -> tuple[int, bool] | None:
    """(MS_* flag, recursive) for ``private``, ``rslave`` …; None for anything else."""
    if text in _PROPAGATION:
        return _PROPAGATION[text], False
    if text[:1] == "r" and text[1:] in _PROPAGATION:
        return _PROPAGATION[text[1:]], True
    return None


def is_superblock_flag(option: str) -> bool:
    """True for the options that belong to every file system's superblock (``sync``, ``dirsync`` …)."""
    return option in _SUPERBLOCK


def is_general_option(option: str) -> bool:
    """Whether any mount may have the option, or any tmpfs that covers a directory (``tmpcopyup``, ``noswap``)."""
    return option == "noswap" or option in known()


def known() -> list[str]:
    """The options that are not the file system's own."""
    recursive = [f"r{name}" for name in (*_ATTRIBUTES, *_PROPAGATION)]
    ours = ("bind", "rbind", "idmap", "ridmap", "tmpcopyup")
    return sorted({*_ATTRIBUTES, *_PROPAGATION, *recursive, *_SUPERBLOCK, *_NOTHING, *ours} - {""})
