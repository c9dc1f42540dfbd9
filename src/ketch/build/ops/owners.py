"""Owners of files that operations make: by number, or by a name that a tree's own files explain."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.build.llb import ops_pb2 as pb
    from ketch.storage.drafts.stack import LayerStack

_LARGEST = 16 << 20  # of a file of names
_HIGHEST = (1 << 32) - 2


def owner_of(owner: pb.ChownOpt, tree: Callable[[int], LayerStack]) -> tuple[int, int]:
    """User and group; ``tree`` gives the files of an input.  A name that is unknown there is root's, as in BuildKit.

    A user's group is that of its entry, or of its number; a group that is named goes before.
    """
    uid = gid = 0
    match owner.user.WhichOneof("user"):
        case "byName":
            name = owner.user.byName
            found = _entry(tree(name.input), "/etc/passwd", name.name)
            if found:
                uid, gid = _number(found, 2), _number(found, 3)
        case "byID":
            uid = gid = owner.user.byID
    match owner.group.WhichOneof("user"):
        case "byName":
            name = owner.group.byName
            found = _entry(tree(name.input), "/etc/group", name.name)
            if found:
                gid = _number(found, 2)
        case "byID":
            gid = owner.group.byID
    return uid, gid


def _entry(tree: LayerStack, path: str, name: str) -> list[str]:
    """The fields of the first entry of a name; none: there is no such entry, or no such file."""
    fd = tree.open_file(tree.resolve(path))
    if fd is None:
        return []
    with open(fd, "rb") as file:
        text = file.read(_LARGEST).decode("utf-8", "surrogateescape")
    for line in text.splitlines():
        fields = line.strip().split(":")
        if fields[0] == name:
            return fields
    return []


def _number(fields: list[str], index: int) -> int:
    text = fields[index] if index < len(fields) else ""
    return min(int(text), _HIGHEST) if text.isascii() and text.isdigit() and len(text) < 12 else 0
