"""Options of the ``local`` volume driver: a file system mounted at the volume's place while it is used.

    --opt type=tmpfs --opt device=tmpfs --opt o=size=100m,uid=1000       memory
    --opt type=none  --opt device=/srv/data --opt o=bind                 a directory of this host
    --opt type=nfs   --opt device=:/export --opt o=addr=10.0.0.9,rw      a share (so does cifs)

Any file system that the kernel's mount API makes from options (fsopen(2), fsconfig(2)) is possible.
"""

from __future__ import annotations

import os
import socket

from ketch.errors import InvalidArgument, KetchError
from ketch.runtime.rootfs import host_mount

Mapping = dict[str, str]
_NETWORKED = ("nfs", "nfs4", "cifs", "smb3")
_FLAGS = {"ro": 0x1, "nosuid": 0x2, "nodev": 0x4, "noexec": 0x8, "noatime": 0x400, "bind": 0x1000, "rbind": 0x5000}
_KNOWN = ("type", "o", "device", "size")
_NEEDS = {"type": ("device",), "device": ("type",), "o": ("device", "type")}


def check(name: str, options: Mapping) -> None:
    """Check the options (InvalidArgument, in Docker's words)."""
    for key in options:
        if key not in _KNOWN:
            raise InvalidArgument(f'create {name}: invalid option: "{key}"', hint="use type, device and o")
    if "size" in options:
        if not options["size"][:1].isdecimal():
            raise InvalidArgument(f"create {name}: invalid size: '{options['size']}'")
        raise InvalidArgument(
            f"create {name}: quota size requested but no quota support", hint="use type=tmpfs with o=size=…"
        )
    for key, needed in _NEEDS.items():
        if not options.get(key):
            continue
        for other in needed:
            if not options.get(other):
                raise InvalidArgument(f'create {name}: missing required option: "{other}"')


def is_needed(options: Mapping) -> bool:
    """Whether the options ask for a mount."""
    return bool(options.get("device"))


def is_elsewhere(options: Mapping) -> bool:
    """Whether they mount what others may see, too: a directory of the host, a share, a disk; no memory of its own."""
    return is_needed(options) and options["type"] != "tmpfs"


def mount(name: str, mountpoint: str, options: Mapping) -> None:
    """Mount at ``mountpoint``, unless it is mounted (KetchError with the kernel's reason)."""
    if host_mount.is_mounted(mountpoint):
        return
    device, fstype = options["device"], options["type"]
    words = [word for word in options.get("o", "").split(",") if word]
    try:
        if fstype in _NETWORKED:
            words = [_resolved(word) for word in words]
        host_mount.mount_at(mountpoint, fstype, device, words)
    except OSError as e:
        reason = os.strerror(e.errno) if e.errno else str(e)
        raise KetchError(
            f"error while mounting volume '{mountpoint}': failed to mount local volume: "
            f"mount {device}:{mountpoint}{_shown(words)}: {reason.lower()}",
            hint=f"check the volume's options: o={options.get('o', '')}",
        ) from e


def _shown(words: list[str]) -> str:
    """The options as Docker's error shows them: the flags of mount(2), and the rest."""
    flags = sum(_FLAGS.get(word, 0) for word in words)
    data = ",".join(word for word in words if word not in _FLAGS)
    return (f", flags: {flags:#x}" if flags else "") + (f", data: {data}" if data else "")


def _resolved(word: str) -> str:
    """Options with host names resolved, as the kernel needs: ``addr=filer`` → ``addr=10.0.0.9``."""
    key, equals, value = word.partition("=")
    if key not in ("addr", "ip") or not equals:
        return word
    return f"{key}={socket.getaddrinfo(value, None, type=socket.SOCK_STREAM)[0][4][0]}"


def unmount(mountpoint: str) -> None:
    """Unmount; containers that use the mount keep theirs."""
    host_mount.unmount(mountpoint)
