"""Compiled seccomp filters that are kept from one call of ``ketch-runtime`` to the next: ``ROOT/@seccomp/KEY``.

Compiling the default profile takes three times as long as all else that a container's start does.  The directory is
root's alone; the key is a hash of what the filter is for: the profile, the kernel and the version of Ketch.  Before the
filter stands all that in a line, which has to be the same, and one about the library that compiled it (its file, when
that was changed, its size): to load it only to ask for its version would take longer than to read the filter.  No
container can be called ``@seccomp``.
"""

from __future__ import annotations

import os
import stat
from _imp import source_hash

from ketch import __version__
from ketch.contexts import suppress
from ketch.runtime import documents
from ketch.runtime.security import seccomp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.runtime.oci_types import OciSeccomp

_KEPT = 32
_LARGEST = 4096 * 8  # what seccomp(2) takes
_LONGEST = 4096 + 64


def prepare(root: str, profile: OciSeccomp | None) -> None:
    """Have the filter of ``profile`` ready for the processes forked next; RuntimeFailure as `seccomp.filter_of`."""
    if not profile:
        return
    kernel = os.uname()
    versions = (__version__, kernel.release, kernel.machine)
    subject = f"{' '.join(versions)} {documents.dumps(profile)}\n".encode()
    directory = f"{root}/@seccomp"
    path = f"{directory}/{source_hash(0, subject).hex()}"  # it need not be hard to find two that have the same
    own = _is_own(directory)
    program = _read(path, subject) if own else None
    if program is None:
        from ketch.runtime.security import seccomp_compiler

        program = seccomp.compile_profile(profile)
        if own:
            with suppress(OSError):  # there is no room: the next call compiles it, too
                _keep(directory, path, subject + _library(seccomp_compiler.library_file()) + program)
    seccomp.remember(profile, program)


def _is_own(directory: str) -> bool:
    """Whether nobody else can put filters there: a root may lie where others write, and they may have been first."""
    try:
        status = os.lstat(directory)
    except FileNotFoundError:
        return True
    return stat.S_ISDIR(status.st_mode) and status.st_uid in (0, os.geteuid()) and not status.st_mode & 0o022


def _read(path: str, subject: bytes) -> bytes | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        content = os.read(fd, len(subject) + _LARGEST + _LONGEST)
    finally:
        os.close(fd)
    if not content.startswith(subject):
        return None
    line, newline, program = content[len(subject) :].partition(b"\n")
    if not program or len(program) % 8:
        return None
    try:
        return program if _library(os.fsdecode(line.split()[0])) == line + newline else None
    except (OSError, IndexError):
        return None  # it has been replaced by another


def _library(path: str) -> bytes:
    status = os.stat(path)
    return b"%s %d %d\n" % (os.fsencode(path), status.st_mtime_ns, status.st_size)


def _keep(directory: str, path: str, program: bytes) -> None:
    """Write a filter, all or nothing, and remove the oldest of too many."""
    os.makedirs(directory, mode=0o700, exist_ok=True)
    temporary = f"{path}.{os.getpid()}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        file.write(program)
    os.rename(temporary, path)
    others = [f"{directory}/{name}" for name in os.listdir(directory)]
    if len(others) > _KEPT:
        for other in sorted(others, key=_written)[:-_KEPT]:
            _remove(other)


def _written(path: str) -> float:
    try:
        return os.stat(path).st_mtime
    except FileNotFoundError:
        return 0


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
