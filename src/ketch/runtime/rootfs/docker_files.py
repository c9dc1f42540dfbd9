"""Files that Docker puts into the root of every container, for programs that look for them.

``/.dockerenv`` says that this is a container, ``/etc/mtab`` shows what is mounted (older programs read nothing else).
They lie below what is mounted in the root, and `storage.snapshots.diff` leaves them out of a container's changes.
"""

from __future__ import annotations

import os

from ketch.runtime.failure import failure
from ketch.runtime.rootfs import paths

MARK, MTAB, MOUNTS = ".dockerenv", "mtab", "/proc/mounts"


def make(root_fd: int) -> None:
    """Make what is missing of them, while nothing is mounted in the root yet; the umask must be 0."""
    try:
        os.close(os.open(MARK, os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_EXCL, 0o755, dir_fd=root_fd))
    except FileExistsError:
        pass
    except OSError as e:
        raise failure("rootfs", f"make `/{MARK}`", e) from e
    try:
        etc_fd = paths.make_dirs(root_fd, "/etc")
        try:
            os.symlink(MOUNTS, MTAB, dir_fd=etc_fd)
        finally:
            os.close(etc_fd)
    except FileExistsError:
        pass
    except OSError as e:
        raise failure("rootfs", f"make `/etc/{MTAB}`", e) from e
