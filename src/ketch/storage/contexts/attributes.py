"""Extended attributes of files that clients give: those that go along into a layer."""

from __future__ import annotations

import os
from errno import ENOTSUP
from typing import TYPE_CHECKING

from ketch.storage import overlay_notes

if TYPE_CHECKING:
    from collections.abc import Iterable

# overlay's own, and the label of the place where it was
_LEFT_OUT = ("trusted.", overlay_notes.PREFIX, "security.selinux")


def attributes(fd: int) -> dict[str, bytes]:
    """The extended attributes of an open file that go along with it."""
    try:
        names = os.listxattr(fd)
    except OSError as e:
        if e.errno != ENOTSUP:
            raise
        return {}
    return {name: os.getxattr(fd, name) for name in names if not name.startswith(_LEFT_OUT)}


def set_attributes(fd: int, given: Iterable[tuple[str, bytes]]) -> None:
    """Set those extended attributes of an open file that go along; that its file system has no such is no error."""
    for name, value in given:
        if name.startswith(_LEFT_OUT):
            continue
        try:
            os.setxattr(fd, name, value)
        except OSError as e:
            if e.errno != ENOTSUP:  # BuildKit goes on, too
                raise
