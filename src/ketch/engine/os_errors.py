"""Errors of the operating system as Ketch's errors, with hints."""

from __future__ import annotations

import errno
import os

from ketch.errors import DataLoss, FailedPrecondition, KetchError, PermissionDenied, ResourceExhausted, Unavailable
from ketch.runtime import defaults

_KNOWN: dict[int, tuple[type[KetchError], str]] = {
    errno.ENOSPC: (ResourceExhausted, "free some space; nothing was removed"),
    errno.EDQUOT: (ResourceExhausted, "raise the quota or free some space; nothing was removed"),
    errno.ENOMEM: (ResourceExhausted, "the machine, or the cgroup of ketchd, is short of memory"),
    errno.EMFILE: (Unavailable, "raise ketchd's limit of open files (LimitNOFILE), or try again when less is going on"),
    errno.ENFILE: (Unavailable, "raise the machine's limit of open files (fs.file-max)"),
    errno.EAGAIN: (Unavailable, "the machine has no process to spare; try again"),
    errno.EROFS: (FailedPrecondition, "mount the file system read-write"),
    errno.EBUSY: (FailedPrecondition, "something is mounted there (findmnt), or uses it: unmount it first"),
    errno.EISDIR: (FailedPrecondition, "there is a directory where a file belongs: move it away, or remove it"),
    errno.ENOTDIR: (
        FailedPrecondition,
        "there is something else where a directory belongs: move it away, or remove it",
    ),
    errno.EIO: (DataLoss, "the disk reports errors; the kernel's log says more"),
    errno.EACCES: (PermissionDenied, "ketchd runs as root; is a security module in the way?"),
    errno.EPERM: (PermissionDenied, "ketchd runs as root; is a capability missing, or a file immutable (lsattr)?"),
}
if defaults.mapped():
    _KNOWN |= dict.fromkeys(
        (errno.EACCES, errno.EPERM),
        (PermissionDenied, "ketchd runs as an ordinary user: what belongs to root, or to others, is out of its reach"),
    )


def explained(error: OSError, doing: str) -> KetchError:
    """The error as one of our family: "``doing``: reason: `path`"."""
    if isinstance(error, KetchError):
        return error
    kind, hint = _KNOWN.get(error.errno or 0, (KetchError, None))
    reason = os.strerror(error.errno) if error.errno else str(error)
    of_path = f": `{error.filename}`" if isinstance(error.filename, str) else ""
    return kind(f"{doing}: {reason[:1].lower()}{reason[1:]}{of_path}", hint=hint)


def is_known(error: OSError) -> bool:
    """Whether the error is the machine's and no defect of Ketch, so that no traceback is needed."""
    return (error.errno or 0) in _KNOWN
