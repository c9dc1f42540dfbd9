"""``--userns-remap``: the user whose subordinate ids all containers share, in dockerd's words."""

from __future__ import annotations

import grp
import logging
import pwd
from typing import TYPE_CHECKING

from ketch.engine.model.namespaces.user import DEFAULT_SIZE, IdRange, UserNamespace
from ketch.engine.userns import subids
from ketch.errors import FailedPrecondition, InvalidArgument
from ketch.notation import digits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.engine.userns.subids import SubIdFiles

DEFAULT_USER = "dockremap"
_FIRST, _END = 100_000, 600_100_001  # where useradd(8) looks for ranges (login.defs(5): SUB_UID_MIN, SUB_UID_MAX)
log = logging.getLogger("ketchd")


def user_namespace(value: str, files: SubIdFiles) -> UserNamespace | None:
    """The namespace of ``USER[:GROUP]``, of their numbers, or of ``default``: dockremap, who gets ranges at first.

    None for root, who cannot be mapped to himself.  InvalidArgument for one that is not there, or has no ids.
    """
    if value == "default":
        subids.give(files, DEFAULT_USER, _free)
        return _of_ranges(files, DEFAULT_USER)
    user, _, group = value.partition(":")
    if ":" in group:
        raise InvalidArgument(f'Invalid user/group specification in --userns-remap: "{value}"')
    account = _user(user)
    _check_group(group or account.pw_name, named=bool(group))
    if account.pw_uid == 0:
        log.warning("User namespaces: root cannot be remapped with itself; user namespaces are OFF")
        return None
    return _of_ranges(files, account.pw_name, str(account.pw_uid))


def _user(text: str) -> pwd.struct_passwd:
    missing = f'getent unable to find entry "{text}" in passwd database'
    number = digits.whole(text, subids.LAST_ID)
    try:
        return pwd.getpwnam(text) if number is None else pwd.getpwuid(number)
    except KeyError as e:
        if number is None:
            raise InvalidArgument(f'Error during uid lookup for "{text}": {missing}') from e
        raise InvalidArgument(f"Uid {number} has no entry in /etc/passwd: {missing}") from e


def _check_group(text: str, *, named: bool) -> None:
    missing = f'getent unable to find entry "{text}" in group database'
    number = digits.whole(text, subids.LAST_ID) if named else None
    try:
        _ = grp.getgrnam(text) if number is None else grp.getgrgid(number)
    except KeyError as e:
        if number is not None:
            raise InvalidArgument(f"Gid {number} has no entry in /etc/group: {missing}") from e
        what = "groupname" if named else "gid"
        raise InvalidArgument(f'Error during {what} lookup for "{text}": {missing}') from e


def _free(taken: list[subids.SubIds]) -> subids.SubIds:
    first, size = subids.first_gap(taken, DEFAULT_SIZE, _FIRST, _END)
    if size < DEFAULT_SIZE:
        raise FailedPrecondition(f"find {DEFAULT_SIZE} ids for {DEFAULT_USER}: all are taken in /etc/subuid")
    return subids.SubIds(DEFAULT_USER, first, DEFAULT_SIZE)


def _of_ranges(files: SubIdFiles, *names: str) -> UserNamespace:
    """The namespace of the ids that a user has in both files, by whom dockerd takes those of groups, too."""
    uids, gids = (subids.of_owner(path, *names) for path in files)
    for found, kind in ((uids, "subuid"), (gids, "subgid")):
        if not found:
            raise InvalidArgument(
                f'Can\'t create ID mappings: no {kind} ranges found for user "{names[0]}"',
                hint=f"add a line to /etc/{kind}: {names[0]}:FIRST:COUNT",
            )
    return UserNamespace(uids=_joined(uids), gids=_joined(gids))


def _joined(ranges: Sequence[subids.SubIds]) -> tuple[IdRange, ...]:
    """Several ranges, lowest first, as one run of ids from 0 on."""
    result, inside = [], 0
    for one in sorted(ranges, key=lambda ids: ids.first):
        result.append(IdRange(inside, one.first, one.size))
        inside += one.size
    return tuple(result)
