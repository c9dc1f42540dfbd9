"""What a client tells of a directory that it sends, and the sending of it into a receiver, without any protocol."""

from __future__ import annotations

import os
import stat

from ketch.storage.contexts.sent import SentEntry


def listed(top):
    """The entries of a directory in the order of a walk; a second name of a file is a link to the first."""
    first: dict[tuple[int, int], str] = {}
    found = []
    for path in sorted(_below(os.fspath(top)), key=lambda one: os.fsencode(one).replace(b"/", b"\0")):
        whole = os.path.join(top, path)
        status = os.lstat(whole)
        mode, size, link = status.st_mode, status.st_size, ""
        if stat.S_ISLNK(mode):
            link = os.readlink(whole)
        elif stat.S_ISREG(mode) and status.st_nlink > 1:
            link = first.setdefault((status.st_dev, status.st_ino), path)
            link, size = (link, 0) if link != path else ("", size)
        attributes = tuple((name, os.getxattr(whole, name)) for name in os.listxattr(whole, follow_symlinks=False))
        device = status.st_rdev if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) else 0
        size = 0 if stat.S_ISDIR(mode) else size
        found.append(
            SentEntry(path, mode, size, status.st_mtime_ns, status.st_uid, status.st_gid, link, device, attributes)
        )
    return found


def _below(top, prefix=""):
    for name in os.listdir(os.path.join(top, prefix)):
        path = f"{prefix}{name}"
        yield path
        whole = os.path.join(top, path)
        if os.path.isdir(whole) and not os.path.islink(whole):
            yield from _below(top, f"{path}/")


def send(top, sync, entries=None, piece=1 << 15):
    """Send a directory into a receiver, and return the paths whose content was asked for."""
    asked = []
    for number, one in enumerate(listed(top) if entries is None else entries):
        if sync.entry(one):
            asked.append(one.path)
            with open(os.path.join(top, one.path), "rb") as file:
                while data := file.read(piece):
                    sync.data(number, data)
            sync.end(number)
    return asked
