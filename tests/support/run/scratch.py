"""/tmp in memory, for one process of the run: engines and tests write there, and wait for no disk.

It is an ext4 all the same, for what file systems can do is part of what is tested.  It belongs to the process's mount
namespace and goes with it.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile

from tests.support.source.project import ROOT

_PLACE = "/tmp"
_MEMORY = "/dev/shm"
_LEAST, _MOST = 3 << 30, 16 << 30  # bytes


def own_tmp() -> bool:
    """Mount it; False (and all stays on the disk) where there is too little memory, or what is needed is missing."""
    size = min(_free() * 3 // 4 // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")), _MOST)
    if size < _LEAST or tempfile.gettempdir() != _PLACE or ROOT.startswith(f"{_PLACE}/"):
        return False
    file = os.path.join(_MEMORY, f"ketch-test-{os.getpid()}")
    # No journal: it is for a machine that loses its power.  What is removed is given back to the machine at once.
    make = ["mkfs.ext4", "-q", "-F", "-m", "0", "-O", "^has_journal", "-E", "lazy_itable_init=1", file]
    try:
        with open(file, "xb") as f:
            f.truncate(size)
        for command in (make, ["mount", "-o", "loop,discard,noatime", file, _PLACE]):
            subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return False
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(file)  # the loop device has it
    os.chmod(_PLACE, 0o1777)
    return True


def _free() -> int:
    """Bytes of memory that nobody needs."""
    with open("/proc/meminfo", encoding="ascii") as f:
        return next(int(line.split()[1]) << 10 for line in f if line.startswith("MemAvailable:"))
