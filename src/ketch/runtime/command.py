"""Look-up of the program to run, with Docker's error messages."""

from __future__ import annotations

import os
import stat
from errno import EACCES, EISDIR, ENOENT, ENOEXEC, ENOTDIR

from ketch.errors import ProgramNotExecutable, ProgramNotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.errors import RuntimeFailure

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def find(name: str, path: str) -> str:
    """The file to execve for ``name``, searched in ``path`` unless it has a slash.

    Looked up as the process that will run it (root, user, working directory).  Raises ProgramNotFound and
    ProgramNotExecutable.
    """
    if not name:
        raise _failure(name, "executable file not found in $PATH", ProgramNotFound, ENOENT)
    if "/" in name:
        _check(name, name)
        return name
    denied = False
    for directory in path.split(":"):
        candidate = os.path.join(directory or ".", name)
        try:
            status = os.stat(candidate)
        except OSError as e:
            denied = denied or e.errno == EACCES
            continue
        if stat.S_ISDIR(status.st_mode):
            continue
        if os.access(candidate, os.X_OK, effective_ids=True):
            return candidate
        denied = True
    if denied:
        raise _failure(name, "permission denied", ProgramNotExecutable, EACCES)
    raise _failure(name, "executable file not found in $PATH", ProgramNotFound, ENOENT)


def execution_failed(name: str, error: OSError) -> RuntimeFailure:
    """The error of a file that execve(2) refused."""
    if error.errno == ENOEXEC:
        return _failure(name, "exec format error", ProgramNotExecutable, ENOEXEC)
    if error.errno == ENOENT:
        # The file was found: it is its interpreter (#! line or ELF loader) that is missing.
        return _failure(name, "no such file or directory", ProgramNotFound, ENOENT)
    return _failure(name, os.strerror(error.errno or 0).lower(), ProgramNotExecutable, error.errno or 0)


def _check(name: str, path: str) -> None:
    try:
        status = os.stat(path)
    except OSError as e:
        if e.errno in (ENOENT, ENOTDIR):
            reason = "no such file or directory" if e.errno == ENOENT else "not a directory"
            raise _failure(name, f"stat {path}: {reason}", ProgramNotFound, e.errno) from e
        raise _failure(name, os.strerror(e.errno or 0).lower(), ProgramNotExecutable, e.errno or 0) from e
    if stat.S_ISDIR(status.st_mode):
        raise _failure(name, "is a directory: permission denied", ProgramNotExecutable, EISDIR)
    if not os.access(path, os.X_OK, effective_ids=True):
        raise _failure(name, "permission denied", ProgramNotExecutable, EACCES)


def _failure(name: str, reason: str, error: type[RuntimeFailure], number: int) -> RuntimeFailure:
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    return error(f'exec: "{quoted}": {reason}', step="exec", errno=number)
