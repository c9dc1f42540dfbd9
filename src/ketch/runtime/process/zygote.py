"""Starting the launcher: the engine's side, in a process that has imported whatever it likes."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys

import ketch
from ketch import faults, programs
from ketch.runtime.process import messages

_CODE = "; ".join(
    (
        "import sys",
        "sys.path.append({path!r})",
        "from ketch.runtime.process import preload",
        "preload.prepare()",
        "from ketch.runtime.process import launcher",
        "launcher.main({fd})",
    )
)
_FLAGS = ("-I", "-S", "-E")
# No locale, no malloc arenas, nothing of the user's: the launcher's memory is every monitor's.
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "MALLOC_ARENA_MAX": "1"}


def spawn() -> tuple[subprocess.Popen[bytes], int]:
    """Start a launcher; returns its process and our end of its socket, the caller's to close."""
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
            env={**_ENVIRONMENT, **_library_path(), **faults.environment()},
        )
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
        os.close(copy_fd)
    return process, ours


def _library_path() -> dict[str, str]:
    """Where the launcher finds libpython.

    An interpreter may name that place relative to its own file ($ORIGIN, ld.so(8)), and a copy in memory has none: the
    place is where this process found it.  No container's process gets this variable, all start with their own.
    """
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as f:
        paths = {line.rstrip("\n").split(maxsplit=5)[5] for line in f if "/libpython" in line}
    found = {os.path.dirname(path): None for path in sorted(paths) if os.path.basename(path).startswith("libpython")}
    # An interpreter that is linked to a library in an unusual place does not start without what its user set.
    places = [*filter(None, [programs.environment().get("LD_LIBRARY_PATH")]), *found]
    return {"LD_LIBRARY_PATH": ":".join(places)} if places else {}


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
