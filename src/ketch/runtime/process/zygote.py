"""Starting the launcher: the engine's side, in a process that has imported whatever it likes."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys

import ketch
from ketch import faults, programs
from ketch.runtime.process import messages

_CODE = "import sys; sys.path.append({path!r}); from ketch.runtime.process.launcher import main; main({fd})"
_FLAGS = ("-I", "-S", "-E")
# No locale, no malloc arenas, nothing of the user's: the launcher's memory is every monitor's.
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "MALLOC_ARENA_MAX": "1"}


def spawn() -> tuple[subprocess.Popen[bytes], int]:
    """Start a launcher; returns its process and our end of its socket, the caller's to close."""
    # An interpreter that is linked to a library in an unusual place does not start without this.
    kept = {name: value for name, value in programs.environment().items() if name == "LD_LIBRARY_PATH"}
    ours, theirs = messages.pair()
    interpreter = os.path.realpath(sys.executable)
    copy_fd = sealed_copy(interpreter)
    try:
        source = os.path.dirname(os.path.dirname(os.path.abspath(ketch.__file__)))
        process = subprocess.Popen(
            [interpreter, *_FLAGS, "-c", _CODE.format(path=source, fd=theirs)],
            executable=f"/proc/self/fd/{copy_fd}",
            pass_fds=(theirs, copy_fd),
            stdin=subprocess.DEVNULL,
            env={**_ENVIRONMENT, **kept, **faults.environment()},
        )
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
        os.close(copy_fd)
    return process, ours


def sealed_copy(path: str) -> int:
    """A copy of a file in memory that nobody can change any more (memfd_create(2)); the caller closes it."""
    fd = os.memfd_create("ketch-launcher", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open(path, "rb") as source:
            while os.sendfile(fd, source.fileno(), None, 1 << 24):
                pass
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
        os.fchmod(fd, 0o555)
    except BaseException:
        os.close(fd)
        raise
    return fd
