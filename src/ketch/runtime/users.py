"""Who a container's process is: names looked up in the container's *own* /etc/passwd and /etc/group."""

from __future__ import annotations

from errno import EISDIR, ENOENT, ENOTDIR

from ketch.errors import RuntimeFailure
from ketch.runtime import paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MAX_ID = (1 << 31) - 1  # what Docker accepts
_MAX_KERNEL_ID = (1 << 32) - 2
_MAX_GROUPS = 65536  # NGROUPS_MAX
_MAX_DIGITS = 20  # of what can be a number at all; Python refuses to read very long ones


class User:
    """Numeric identity; ``home`` is None when the passwd file has no entry.

    The primary group is always among ``groups``, as after initgroups(3): otherwise a set-group-ID program would run
    without it, and could read what is closed to the group and open to others.
    """

    __slots__ = ("gid", "groups", "home", "uid")

    def __init__(self, uid: int, gid: int, groups: list[int], home: str | None) -> None:
        self.uid = uid
        self.gid = gid
        self.groups = groups if gid in groups else [gid, *groups]
        self.home = home


class _Passwd:
    __slots__ = ("gid", "home", "name", "uid")

    def __init__(self, name: str, uid: int, gid: int, home: str) -> None:
        self.name = name
        self.uid = uid
        self.gid = gid
        self.home = home


class _Group:
    __slots__ = ("gid", "members", "name")

    def __init__(self, name: str, gid: int, members: list[str]) -> None:
        self.name = name
        self.gid = gid
        self.members = members


def lookup(root_fd: int, text: str, group_add: str = "") -> User:
    """Resolve ``name|uid[:group|gid]`` (Docker's USER) plus comma-separated additional groups.

    Names must be in the files; numbers need not be.  Raises RuntimeFailure with Docker's sentences.
    """
    passwd = parse_passwd(_read(root_fd, "/etc/passwd"))
    group_text = None
    if ":" in text:
        text, _, group_text = text.partition(":")
    need_groups = group_text is not None or group_add or text not in ("", "0", "root")
    groups = parse_group(_read(root_fd, "/etc/group")) if need_groups or passwd else []
    return resolve(text, group_text or None, [g for g in group_add.split(",") if g], passwd, groups)


def of_spec(user: dict[str, Any]) -> User:
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
    if len(groups) >= _MAX_GROUPS:  # the primary one is among them
        raise RuntimeFailure(
            f"become user: {len(groups)} additional groups, {_MAX_GROUPS - 1} are possible", step="user"
        )
    return User(numbers["uid"], numbers["gid"], list(groups), None)


def home_of(root_fd: int, uid: int) -> str | None:
    """The home directory that the container's passwd gives ``uid``."""
    return _home(uid, parse_passwd(_read(root_fd, "/etc/passwd")))


def resolve(user: str, group: str | None, additional: list[str], passwd: list[_Passwd], groups: list[_Group]) -> User:
    """The pure part of `lookup`."""
    entry = _find_user(user or "0", passwd)
    uid = entry.uid if entry else _number(user or "0", "user", user)
    gid = entry.gid if entry else 0
    supplementary: list[int] = []
    if group is not None:
        gid = _group_id(group, groups)
    elif entry is not None:
        supplementary = [g.gid for g in groups if entry.name in g.members]
    added = dict.fromkeys(_group_id(name, groups) for name in additional)
    # What is named twice stays twice, as with Docker: `id` shows it.
    ids = [gid, *supplementary, *added]
    for number in (uid, *ids):
        _check_range(number)
    return User(uid, gid, ids, _home(uid, passwd))


def parse_passwd(data: bytes) -> list[_Passwd]:
    """Entries of a passwd(5) file; lines that are no entries are skipped."""
    entries = []
    for line in _lines(data):
        fields = line.strip().split(":")
        if len(fields) >= 4 and fields[0] and not line.startswith("#") and _is_id(fields[2]) and _is_id(fields[3]):
            entries.append(_Passwd(fields[0], int(fields[2]), int(fields[3]), fields[5] if len(fields) > 5 else ""))
    return entries


def parse_group(data: bytes) -> list[_Group]:
    """Entries of a group(5) file; lines that are no entries are skipped."""
    entries = []
    for line in _lines(data):
        fields = line.strip().split(":")
        if len(fields) >= 3 and fields[0] and not line.startswith("#") and _is_id(fields[2]):
            members = [m for m in fields[3].split(",") if m] if len(fields) > 3 else []
            entries.append(_Group(fields[0], int(fields[2]), members))
    return entries


def _lines(data: bytes) -> list[str]:
    """Lines as libc reads them: what else Unicode calls the end of a line may stand in somebody's full name."""
    return data.decode(errors="surrogateescape").split("\n")


def _home(uid: int, passwd: list[_Passwd]) -> str | None:
    """The first entry's, whatever name was given: as with Docker."""
    for entry in passwd:
        if entry.uid == uid:
            return entry.home or None
    return None


def _find_user(user: str, passwd: list[_Passwd]) -> _Passwd | None:
    """A number is always a number, whoever is called ``1000``: an image must not say who that user is."""
    uid = _integer(user)
    for entry in passwd:
        if entry.uid == uid if uid is not None else entry.name == user:
            return entry
    return None


def _group_id(group: str, groups: list[_Group]) -> int:
    if _integer(group) is None:
        for entry in groups:
            if entry.name == group:
                return entry.gid
    return _number(group, "group", group)


def _number(text: str, what: str, shown: str) -> int:
    number = _integer(text)
    if number is None:
        file = "passwd" if what == "user" else "group"
        raise RuntimeFailure(f"unable to find {what} {shown}: no matching entries in {file} file", step="user")
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


def _read(root_fd: int, path: str) -> bytes:
    """The file's content; where a directory is in its place, nobody has a name, as with Docker."""
    try:
        return paths.read_in(root_fd, path)
    except OSError as e:
        if e.errno in (EISDIR, ENOENT, ENOTDIR):
            return b""
        raise RuntimeFailure(f"read the container's `{path}`: {e.strerror}", step="user", errno=e.errno or 0) from e
