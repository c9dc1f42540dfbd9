"""File modes as Go's ``os.FileMode``, which Docker's API uses."""

from __future__ import annotations

import stat

_KINDS = {
    stat.S_IFDIR: 1 << 31,
    stat.S_IFLNK: 1 << 27,
    stat.S_IFBLK: 1 << 26,
    stat.S_IFCHR: 1 << 26 | 1 << 21,
    stat.S_IFIFO: 1 << 25,
    stat.S_IFSOCK: 1 << 24,
    stat.S_IFREG: 0,
}
_BITS = {stat.S_ISUID: 1 << 23, stat.S_ISGID: 1 << 22, stat.S_ISVTX: 1 << 20}
_IRREGULAR = 1 << 19


def from_unix(mode: int) -> int:
    """``st_mode`` → os.FileMode (package io/fs, constants ModeDir and following)."""
    result = mode & 0o777 | _KINDS.get(stat.S_IFMT(mode), _IRREGULAR)
    return result | sum(go for unix, go in _BITS.items() if mode & unix)
