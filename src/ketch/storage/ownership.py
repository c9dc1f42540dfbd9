"""Owners of files, where not every one can be had.

The machine's root gives a file to whomever.  Root of a user namespace gives it to the users that are mapped there
(user_namespaces(7)), and only where the file system lets it: a server of NFS sees the user outside, who may give
nothing away.  With one user alone in the namespace, or on such a file system, all files of images are that user's:
root's, as the namespace has it.  The daemon says so when it starts.  A program that runs as its owner, whoever starts
it, would run as root then: where there are other users, such a bit of its mode is left out.
"""

from __future__ import annotations

import os
import stat
from errno import EINVAL, EOPNOTSUPP, EPERM

from ketch.errors import InvalidArgument
from ketch.linux.ns import LIMITED

_REFUSED = (EPERM, EINVAL, EOPNOTSUPP)


def _has_one_user() -> bool:
    with open("/proc/self/uid_map", encoding="ascii") as file:
        return sum(int(line.split()[2]) for line in file) == 1


def give(target: int | str, uid: int, gid: int, dir_fd: int | None = None, *, follow: bool = False) -> bool:
    """chown(2) of an open file, or of a path; without effect where the file system, or the map, has root alone.

    False: it is root's, and not all users are.
    """
    try:
        if isinstance(target, int):
            os.fchown(target, uid, gid)
        else:
            os.chown(target, uid, gid, dir_fd=dir_fd, follow_symlinks=follow)
    except OSError as e:
        if not LIMITED or e.errno not in _REFUSED:
            raise
        if e.errno == EINVAL and not _has_one_user():
            raise InvalidArgument(
                f"files of {uid}:{gid} cannot be made: these are not among the ids of this user's containers",
                hint="give the user more ids (usermod --add-subuids, --add-subgids), and start ketchd anew",
            ) from e
        return _has_one_user()
    return True


def give_with_mode(fd: int, uid: int, gid: int, mode: int) -> None:
    """Owner and mode of an open file, in an order in which none takes away the other."""
    if not give(fd, uid, gid) and stat.S_ISREG(os.fstat(fd).st_mode):
        mode &= ~(stat.S_ISUID | stat.S_ISGID)
    os.fchmod(fd, mode)


def problem(directory: str) -> str:
    """The reason why files below a directory cannot have other owners than root; empty when they can.

    Of any other failure it says nothing: who writes there meets it.
    """
    if LIMITED and _has_one_user():
        return ""  # who has one user is told so elsewhere
    path = os.path.join(directory, ".owner")
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except OSError:
        return ""
    try:
        os.chown(path, 1, 1)
    except OSError as e:
        return os.strerror(e.errno or 0).lower() if e.errno in _REFUSED else ""
    finally:
        os.unlink(path)
    return ""
