"""User and groups of a container's process: names looked up in the container's *own* /etc/passwd and /etc/group."""

from __future__ import annotations

import os
from errno import EISDIR, ENOENT, ENOTDIR

from ketch.errors import RuntimeFailure
from ketch.runtime.rootfs import paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from ketch.runtime.oci_types import OciUser

_MAX_ID = (1 << 31) - 1  # what Docker accepts
_MAX_KERNEL_ID = (1 << 32) - 2
_MAX_GROUPS = 65536  # NGROUPS_MAX
_PIECE = 1 << 16
_MOST_BYTES = 16 << 20  # of a file that are read
_MAX_DIGITS = 20  # of what can be a number at all; Python refuses to read very long ones


class User:
    """Numeric identity; ``home`` is None when the passwd file has no entry."""

    __slots__ = ("gid", "groups", "home", "uid")

    def __init__(self, uid: int, gid: int, groups: list[int], home: str | None) -> None:
        self.uid = uid
        self.gid = gid
        self.groups = groups
        self.home = home


class _Passwd:
    __slots__ = ("gid", "home", "name", "uid")

    def __init__(self, name: str, uid: int, gid: int, home: str) -> None:
        self.name = name
        self.uid = uid
        self.gid = gid
        self.home = home


class _Group:
    """``members`` as the file has them: a comma between two."""

    __slots__ = ("gid", "members", "name")

    def __init__(self, name: str, gid: int, members: str) -> None:
        self.name = name
        self.gid = gid
        self.members = members

    def has(self, name: str) -> bool:
        return f",{name}," in f",{self.members},"


class _File:
    """The entries of one of the container's files, read anew at each iteration.

    A container may make it as large as it likes, and the daemon reads it, too: it is never in memory as a whole, and
    no step takes long.
    """

    def __init__(self, root_fd: int, path: str, parse: Callable[[bytes], Any]) -> None:
        self._root_fd, self._path, self._parse = root_fd, path, parse

    def __iter__(self) -> Iterator[Any]:
        fd = self._open()
        if fd < 0:
            return
        try:
            for line in _lines(lambda at: os.pread(fd, _PIECE, at)):
                if (entry := self._parse(line)) is not None:
                    yield entry
        finally:
            os.close(fd)

    def _open(self) -> int:
        """Open a file of names; -1 when it is missing, empty or a directory: as with Docker, no names then."""
        try:
            return paths.open_regular(self._root_fd, self._path)
        except OSError as e:
            if e.errno in (EISDIR, ENOENT, ENOTDIR):
                return -1
            raise RuntimeFailure(
                f"read the container's `{self._path}`: {e.strerror}", step="user", errno=e.errno or 0
            ) from e


def lookup(root_fd: int, text: str, group_add: str = "") -> User:
    """Resolve ``name|uid[:group|gid]`` (Docker's USER) plus comma-separated additional groups.

    Names must be in the files; numbers need not be.  Raises RuntimeFailure with Docker's sentences.
    """
    user, _, group = text.partition(":")
    passwd = _File(root_fd, "/etc/passwd", _passwd_entry)
    groups = _File(root_fd, "/etc/group", _group_entry)
    return resolve(user, group or None, [g for g in group_add.split(",") if g], passwd, groups)


def of_spec(user: OciUser) -> User:
    """The ``process.user`` of a bundle; RuntimeFailure for what no process can be.

    2³²-1 is "unchanged" for setresuid(2) and setresgid(2): who asks for it must not stay root.
    """
    groups = user.get("additionalGids") or []
    numbers = {"uid": user.get("uid") or 0, "gid": user.get("gid") or 0}
    for name, number in (*numbers.items(), *(("additionalGids", group) for group in groups)):
        if type(number) is not int or not 0 <= number <= _MAX_KERNEL_ID:
            raise RuntimeFailure(
                f"become user: `{name}` {number!r} is no number from 0 to {_MAX_KERNEL_ID}", step="user"
            )
    if len(groups) > _MAX_GROUPS:
        raise RuntimeFailure(f"become user: {len(groups)} additional groups, {_MAX_GROUPS} are possible", step="user")
    return User(numbers["uid"], numbers["gid"], list(groups), None)


def home_of(root_fd: int, uid: int) -> str | None:
    """The home directory that the container's passwd gives ``uid``."""
    return _home(uid, _File(root_fd, "/etc/passwd", _passwd_entry))


def resolve(
    user: str, group: str | None, additional: list[str], passwd: Iterable[_Passwd], groups: Iterable[_Group]
) -> User:
    """The pure part of `lookup`."""
    entry = _find_user(user or "0", passwd)
    uid = entry.uid if entry else _number(user or "0", "user")
    member = entry.name if entry and group is None else None
    known, supplementary = _look_through(groups, {*additional, *([] if group is None else [group])}, member)
    gid = entry.gid if entry else 0
    if group is not None:
        gid = _group_id(group, known)
    added = dict.fromkeys(_group_id(name, known) for name in additional)
    # The primary group is among them, as after initgroups(3): otherwise a set-group-ID program would run without it,
    # and could read what is closed to the group and open to others.  What is named twice stays twice: `id` shows it.
    ids = [gid, *supplementary, *added]
    for number in (uid, *ids):
        _check_range(number)
    if len(ids) > _MAX_GROUPS:
        raise RuntimeFailure(f"user {user} is in {len(ids)} groups, {_MAX_GROUPS} are possible", step="user")
    return User(uid, gid, ids, _home(uid, passwd))


def parse_passwd(data: bytes) -> list[_Passwd]:
    """Entries of a passwd(5) file; lines that are no entries are skipped."""
    return [entry for line in _lines(_reader(data)) if (entry := _passwd_entry(line)) is not None]


def parse_group(data: bytes) -> list[_Group]:
    """Entries of a group(5) file; lines that are no entries are skipped."""
    return [entry for line in _lines(_reader(data)) if (entry := _group_entry(line)) is not None]


def _passwd_entry(line: bytes) -> _Passwd | None:
    fields = _fields(line, 6)
    if len(fields) >= 4 and fields[0] and not line.startswith(b"#") and _is_id(fields[2]) and _is_id(fields[3]):
        return _Passwd(fields[0], int(fields[2]), int(fields[3]), fields[5] if len(fields) > 5 else "")
    return None


def _group_entry(line: bytes) -> _Group | None:
    fields = _fields(line, 4)
    if len(fields) >= 3 and fields[0] and not line.startswith(b"#") and _is_id(fields[2]):
        return _Group(fields[0], int(fields[2]), fields[3] if len(fields) > 3 else "")
    return None


def _fields(line: bytes, most: int) -> list[str]:
    return line.decode(errors="surrogateescape").strip().split(":", most)


def _reader(data: bytes) -> Callable[[int], bytes]:
    return lambda at: data[at : at + _PIECE]


def _lines(read: Callable[[int], bytes]) -> Iterator[bytes]:
    """Lines as libc reads them: other line ends of Unicode may occur in a full name.

    ``read`` gives what stands at an offset.
    """
    at, begun = 0, []
    while at < _MOST_BYTES and (data := read(at)):
        at += len(data)
        head, *others = data.split(b"\n")
        begun.append(head)
        if others:
            yield b"".join(begun)
            yield from others[:-1]
            begun = others[-1:]
    yield b"".join(begun)


def _home(uid: int, passwd: Iterable[_Passwd]) -> str | None:
    """The home directory of the uid's first entry, as with Docker."""
    for entry in passwd:
        if entry.uid == uid:
            return entry.home or None
    return None


def _find_user(user: str, passwd: Iterable[_Passwd]) -> _Passwd | None:
    """Find a user; a number is always a uid, although an image may have a user called ``1000``."""
    uid = _integer(user)
    for entry in passwd:
        if entry.uid == uid if uid is not None else entry.name == user:
            return entry
    return None


def _look_through(groups: Iterable[_Group], names: set[str], member: str | None) -> tuple[dict[str, int], list[int]]:
    """(the numbers of the groups with these names, those of the groups that ``member`` is in)."""
    wanted = {name for name in names if _integer(name) is None}
    known: dict[str, int] = {}
    supplementary: list[int] = []
    if not wanted and member is None:
        return known, supplementary
    for entry in groups:
        if entry.name in wanted:
            known.setdefault(entry.name, entry.gid)
        if member is not None and entry.has(member) and len(supplementary) < _MAX_GROUPS:
            supplementary.append(entry.gid)
    return known, supplementary


def _group_id(group: str, known: dict[str, int]) -> int:
    number = known.get(group)
    return number if number is not None else _number(group, "group")


def _number(text: str, what: str) -> int:
    number = _integer(text)
    if number is None:
        file = "passwd" if what == "user" else "group"
        raise RuntimeFailure(f"unable to find {what} {text}: no matching entries in {file} file", step="user")
    _check_range(number)
    return number


def _check_range(number: int) -> None:
    if not 0 <= number <= _MAX_ID:
        raise RuntimeFailure("uids and gids must be in range 0-2147483647", step="user")


def _integer(text: str) -> int | None:
    """Decimal digits with at most one sign before them, else None."""
    sign = text[:1] if text[:1] in ("+", "-") else ""
    return int(text) if _is_id(text[len(sign) :]) else None


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS
