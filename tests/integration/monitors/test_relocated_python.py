"""A Python that may be moved: its libpython is looked up beside the interpreter's own file ($ORIGIN, ld.so(8)).

python-build-standalone, uv and conda lay it out so.  The launcher runs from a copy in memory, which has nothing beside
it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig

import pytest

import ketch
from tests.support.engines import BIN

pytestmark = pytest.mark.ketch_only
_LINES = "cat /proc/1/environ /proc/self/environ | tr '\\0' '\\n'"


@pytest.fixture
def relocated(tmp_path):
    """An interpreter like the one that runs this, in a directory of its own, which nothing but $ORIGIN names."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    library = f"lib{version}-moved.so.1.0"  # the machine may have another under the usual name
    (tmp_path / "bin").mkdir()
    (tmp_path / "lib").mkdir()
    program, copy = tmp_path / "bin" / version, tmp_path / "lib" / library
    shutil.copy(os.path.realpath(sys.executable), program)
    (tmp_path / "lib" / version).symlink_to(sysconfig.get_path("stdlib"))
    with open("/proc/self/maps", encoding="utf-8") as f:
        mapped = next((line.split()[5] for line in f if f"/lib{version}" in line), None)
    # An interpreter that has it all in itself (Debian's) gets to need a library of that name.
    shutil.copy(mapped or _libc_part(), copy)
    patch = [os.path.join(BIN, "patchelf")]
    needed = ["--replace-needed", os.path.basename(mapped), library] if mapped else ["--add-needed", library]
    subprocess.run([*patch, "--set-soname", library, copy], check=True)
    subprocess.run([*patch, *needed, "--force-rpath", "--set-rpath", "$ORIGIN/../lib", program], check=True)
    return str(program)


def _libc_part() -> str:
    """A small library that is everywhere and depends on libc alone."""
    with open("/proc/self/maps", encoding="utf-8") as f:
        libc = next(line.split()[5] for line in f if os.path.basename(line.split()[-1]) == "libc.so.6")
    return os.path.join(os.path.dirname(libc), "libutil.so.1")


def test_the_layout_is_what_it_claims_to_be(relocated, tmp_path):
    """Where it stands it runs, a copy of the program alone does not."""
    assert subprocess.run([relocated, "-S", "-c", ""], check=False).returncode == 0
    alone = shutil.copy(relocated, tmp_path / "alone")
    done = subprocess.run([alone, "-S", "-c", ""], capture_output=True, text=True, check=False)
    assert done.returncode == 127
    assert "libpython" in done.stderr


def test_containers_run(relocated, own_engine, monkeypatch):
    """The launcher starts, and the place where it found libpython is nobody else's business."""
    site = sysconfig.get_path("purelib")
    source = os.path.dirname(os.path.dirname(os.path.abspath(ketch.__file__)))
    own_engine.settings = {"PYTHONPATH": f"{source}:{site}"}
    ketchd = own_engine.command()
    monkeypatch.setattr(own_engine, "command", lambda: [relocated, "-P", "-m", "ketch.daemon", *ketchd[1:]])
    own_engine.start()
    with open(f"/proc/{own_engine.process.pid}/maps", encoding="utf-8") as f:
        assert os.path.dirname(os.path.dirname(relocated)) in f.read()
    own_engine.add_busybox()
    run = own_engine.ketch("run", "--name", "one", "busybox", "sh", "-c", _LINES).out
    own_engine.ketch("run", "-d", "--name", "two", "busybox", "sleep", "1000")
    executed = own_engine.ketch("exec", "two", "sh", "-c", _LINES).out
    assert "PATH=" in run
    assert "PATH=" in executed
    assert "LD_LIBRARY_PATH" not in run + executed
