"""Start of the launcher process from ketchd: a new, isolated interpreter."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from errno import EINVAL

import ketch
from ketch import failpoints, programs
from ketch.errors import FailedPrecondition
from ketch.runtime.process import messages

_CODE = "; ".join(
    (
        "import sys",
        "sys.path.append({path!r})",
        "from ketch.runtime.process import preload",
        "preload.prepare()",
        "from ketch.runtime.security import rlimits",
        "rlimits.soft_files = {soft_files!r}",
        "from ketch.runtime.cgroups import monitors",
        "no_cgroup = monitors.enter({cgroup!r})",
        "from ketch.runtime.process import launcher",
        "launcher.main({fd}, no_cgroup)",
    )
)
_MFD_EXEC = 0x10  # Linux 6.3
_WORDS = 4096
_FLAGS = ("-I", "-S", "-E")
# No locale, no malloc arenas, nothing of the user's: the launcher's memory is every monitor's.
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "MALLOC_ARENA_MAX": "1"}


class Spawned:
    """A started launcher: its process, our end of its socket, and a file with its stderr.

    It says ``{"ev": "ready"}`` when it is.  ``fd`` is the caller's to close, and `forget` the file.
    """

    def __init__(self, process: subprocess.Popen[bytes], fd: int, stderr_fd: int) -> None:
        self.process = process
        self.fd = fd
        self._stderr_fd = stderr_fd

    def last_stderr_line(self) -> str:
        """The last line of the launcher's stderr (the error of a traceback); empty without output."""
        lines = os.pread(self._stderr_fd, _WORDS, max(os.fstat(self._stderr_fd).st_size - _WORDS, 0)).split(b"\n")
        return next((line.decode(errors="replace").strip() for line in reversed(lines) if line.strip()), "")

    def forget(self) -> None:
        """Close the file."""
        os.close(self._stderr_fd)


def spawn(cgroup: str, soft_files: int | None = None) -> Spawned:
    """Start a launcher; it and its monitors are below the cgroup ``cgroup`` (see `cgroups.monitors`).

    ``soft_files`` is containers' soft limit of open files; without, it is that of this process.
    """
    ours, theirs = messages.pair()
    interpreter = os.path.realpath(sys.executable)
    copy_fd = stderr_fd = -1
    try:
        copy_fd = sealed_copy(interpreter)
        stderr_fd = os.memfd_create("launcher's stderr", os.MFD_CLOEXEC)
        source = os.path.dirname(os.path.dirname(os.path.abspath(ketch.__file__)))
        process = subprocess.Popen(
            [
                interpreter,
                *_FLAGS,
                "-c",
                _CODE.format(path=source, fd=theirs, cgroup=cgroup, soft_files=soft_files),
            ],
            executable=f"/proc/self/fd/{copy_fd}",
            pass_fds=(theirs, copy_fd),
            stdin=subprocess.DEVNULL,
            stderr=stderr_fd,
            env={**_ENVIRONMENT, **_library_path(), **failpoints.environment()},
        )
    except BaseException:
        for fd in (ours, stderr_fd):
            if fd >= 0:
                os.close(fd)
        raise
    finally:
        os.close(theirs)
        if copy_fd >= 0:
            os.close(copy_fd)
    return Spawned(process, ours, stderr_fd)


def _library_path() -> dict[str, str]:
    """The library path by which the launcher finds libpython.

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
    fd = _executable_memory("ketch-launcher")
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


def _executable_memory(name: str) -> int:
    """An executable in-memory file, whatever ``vm.memfd_noexec`` is."""
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create(name, flags | _MFD_EXEC)
    except PermissionError as e:
        raise FailedPrecondition(
            "start the launcher: the kernel executes no files in memory (vm.memfd_noexec is 2)",
            hint="sysctl vm.memfd_noexec=1: programs have to ask for it then, as this one does",
        ) from e
    except OSError as e:
        if e.errno != EINVAL:
            raise
    return os.memfd_create(name, flags)  # before Linux 6.3 all of them may be
