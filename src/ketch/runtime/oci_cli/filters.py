"""Compiled seccomp filters that are kept from one call of ``ketch-runtime`` to the next: ``ROOT/@seccomp/KEY``.

Compiling the default profile takes three times as long as all else that a container's start does.  The directory is
root's alone; the key is a hash of what the filter is for: the profile, the kernel and the version of Ketch.  Before the
filter stands all that in a line, which has to be the same, and one about the library that compiled it (its file, when
that was changed, its size): to load it only to ask for its version would take longer than to read the filter.  No
container can be called ``@seccomp``.
"""

from __future__ import annotations

import os
from _imp import source_hash
from errno import ELOOP, ENOENT, ENOTDIR

from ketch import __version__
from ketch.contexts import suppress
from ketch.notation import documents
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
    name = source_hash(0, subject).hex()  # it need not be hard to find two that have the same
    directory_fd = _open(directory)
    try:
        program = _read(directory_fd, name, subject) if directory_fd >= 0 else None
        if program is None:
            from ketch.runtime.security import seccomp_compiler

            program = seccomp.compile_profile(profile)
            with suppress(OSError):  # there is no room: the next call compiles it, too
                if directory_fd < 0:
                    directory_fd = _make(directory)
                if directory_fd >= 0:
                    _keep(directory_fd, name, subject + _library(seccomp_compiler.library_file()) + program)
    finally:
        if directory_fd >= 0:
            os.close(directory_fd)
    seccomp.remember(profile, program)


def _make(directory: str) -> int:
    os.makedirs(directory, mode=0o700, exist_ok=True)
    return _open(directory)


def _open(directory: str) -> int:
    """The directory, open; -1: there is none where nobody else can put filters.

    A root may lie where others write, and they may have been first, or may replace what is there meanwhile.
    """
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as e:
        if e.errno in (ENOENT, ENOTDIR, ELOOP):
            return -1
        raise
    status = os.fstat(fd)
    if status.st_uid in (0, os.geteuid()) and not status.st_mode & 0o022:
        return fd
    os.close(fd)
    return -1


def _read(directory_fd: int, name: str, subject: bytes) -> bytes | None:
    try:
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=directory_fd)
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


def _keep(directory_fd: int, name: str, program: bytes) -> None:
    """Write a filter, all or nothing, and remove the oldest of too many."""
    temporary = f"{name}.{os.getpid()}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=directory_fd)
    with open(fd, "wb") as file:
        file.write(program)
    os.rename(temporary, name, src_dir_fd=directory_fd, dst_dir_fd=directory_fd)
    others = os.listdir(directory_fd)
    if len(others) > _KEPT:
        for other in sorted(others, key=lambda each: _written(directory_fd, each))[:-_KEPT]:
            with suppress(FileNotFoundError):
                os.unlink(other, dir_fd=directory_fd)


def _written(directory_fd: int, name: str) -> float:
    try:
        return os.stat(name, dir_fd=directory_fd).st_mtime
    except FileNotFoundError:
        return 0
