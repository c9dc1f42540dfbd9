"""Owners of files that operations make: by number, or by a name that a tree's own files explain."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ketch.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.build.llb import ops_pb2 as pb
    from ketch.storage.drafts.stack import LayerStack

_LARGEST = 16 << 20  # of a file of names
_HIGHEST = (1 << 32) - 2
_ROOT = "root"  # known even where nothing explains names


def owner_of(owner: pb.ChownOpt, tree: Callable[[int], LayerStack]) -> tuple[int, int]:
    """User and group; ``tree`` gives the files of an input.  A name that is unknown there is root's, as in BuildKit.

    A user's group is that of its entry, or of its number; a group that is named goes before.  InvalidArgument: no input
    explains a name.
    """
    uid = gid = 0
    match owner.user.WhichOneof("user"):
        case "byName":
            found = _entry(owner.user.byName, tree, "/etc/passwd")
            if found:
                uid, gid = _number(found, 2), _number(found, 3)
        case "byID":
            uid = gid = owner.user.byID
    match owner.group.WhichOneof("user"):
        case "byName":
            found = _entry(owner.group.byName, tree, "/etc/group")
            if found:
                gid = _number(found, 2)
        case "byID":
            gid = owner.group.byID
    return uid, gid


def _entry(name: pb.NamedUserOpt, tree: Callable[[int], LayerStack], path: str) -> list[str]:
    """The fields of the first entry of a name; none: there is no such entry, or no such file."""
    if name.input < 0 and name.name == _ROOT:
        return []
    if name.input < 0:
        raise InvalidArgument(
            f"invalid user index: {name.input}",
            hint=f"nothing here says which number `{name.name}` has (COPY --link knows no base): give the number",
        )
    files = tree(name.input)
    fd = files.open_file(files.resolve(path))
    if fd is None:
        return []
    with open(fd, "rb") as file:
        text = file.read(_LARGEST).decode("utf-8", "surrogateescape")
    for line in text.splitlines():
        fields = line.strip().split(":")
        if fields[0] == name.name:
            return fields
    return []


def _number(fields: list[str], index: int) -> int:
    text = fields[index] if index < len(fields) else ""
    return min(int(text), _HIGHEST) if text.isascii() and text.isdigit() and len(text) < 12 else 0
