"""The interpreter's file: no process of a container leads to a way of writing to it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from errno import EROFS
from typing import TYPE_CHECKING

import pytest

from tests.support.engines import BIN
from tests.support.source.project import ROOT
from tests.support.waiting import patient, until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.boxes.runtime_cli import Runtime

# What a process is, before and after.
CALL = f"""
import os, sys
sys.path.append({ROOT + "/src"!r})
from ketch.runtime.process import interpreter
before = os.stat("/proc/self/exe")
interpreter.protect()
interpreter.protect()
after = os.stat("/proc/self/exe")
assert (before.st_dev, before.st_ino) == (after.st_dev, after.st_ino)
assert os.statvfs("/proc/self/exe").f_flag & os.ST_RDONLY
print(os.getpid(), sys.argv[1:], os.environ["KEPT"], os.fstat(int(sys.argv[1])).st_size)
import json, ctypes
print(json.dumps([ctypes.c_int(7).value] * 3), len(os.listdir("/proc/self/fd")))
"""


def interpreters() -> list[str]:
    """This one, and another of the machine that is built in another way, perhaps."""
    own = os.path.realpath(sys.executable)
    other = shutil.which("python3", path="/usr/bin")
    return [own, *([other] if other and os.path.realpath(other) != own else [])]


@pytest.mark.parametrize("interpreter", interpreters())
def test_a_process_leaves_it_and_is_the_same(interpreter: str, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text(CALL)
    with open(script, "rb") as kept:
        number = kept.fileno()
        command = [interpreter, "-IS", str(script), str(number), "a b"]
        environment = {**os.environ, "KEPT": "yes"}
        with subprocess.Popen(
            command, env=environment, pass_fds=[number], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            out, err = process.communicate(timeout=patient(30))
    assert (process.returncode, err) == (0, "")
    assert out.splitlines() == [f"{process.pid} ['{number}', 'a b'] yes {len(CALL)}", "[7, 7, 7] 5"]


def test_where_it_cannot_be_mounted_again(tmp_path: Path) -> None:
    script = tmp_path / "script"
    text = CALL.replace("os.statvfs", "os.readlink('/proc/self/exe').startswith('/memfd:') or os.statvfs")
    script.write_text(text.replace("assert (before.st_dev", "assert True or (before.st_dev"))
    inner = f"mount --make-runbindable / && exec {sys.executable} -IS {script} 0"
    command = ["unshare", "-m", "sh", "-c", inner]
    environment = {**os.environ, "KEPT": "yes"}
    done = subprocess.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=patient(30),
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0].endswith(" ['0'] yes 0")


def test_where_there_is_no_procfs(runtime: Runtime) -> None:
    inner = f"mount -t tmpfs none /proc && exec {BIN}/ketch-runtime --root {runtime.root} create one"
    command = ["unshare", "-m", "sh", "-c", inner]
    done = subprocess.run(command, cwd=runtime.bundle, capture_output=True, text=True, timeout=patient(30), check=False)
    assert (done.returncode, done.stderr) == (1, "ketch-runtime: /proc/self/exe: no such file or directory\n")


def change(fd: int) -> int:
    """The error number of an attempt to change the file of ``fd``; as it is executed here, too, only to what it is."""
    try:
        os.chmod(f"/proc/self/fd/{fd}", os.fstat(fd).st_mode & 0o7777)
    except OSError as e:
        return e.errno or 0
    return 0


@pytest.mark.parametrize("script", [False, True], ids=["module", "script"])
def test_it_cannot_be_written_to_by_way_of_a_container(runtime: Runtime, script: bool) -> None:
    """As an attacker does it: a descriptor of what the first process executes."""
    runtime.configure(["sleep", "100"])
    if script:
        command = [f"{BIN}/ketch-runtime", "--root", str(runtime.root)]
    else:
        command = [sys.executable, "-m", "ketch.runtime.oci_cli.main", "--root", str(runtime.root)]
    bundle = ["--bundle", str(runtime.bundle)]
    subprocess.run([*command, "create", *bundle, "held"], check=True, stdin=subprocess.DEVNULL, timeout=patient(30))
    pid = runtime.state("held")["pid"]
    fd = os.open(f"/proc/{pid}/exe", os.O_PATH | os.O_CLOEXEC)
    try:
        executed, ours = os.fstat(fd), os.stat(sys.executable)
        assert (executed.st_dev, executed.st_ino) == (ours.st_dev, ours.st_ino)
        assert os.fstatvfs(fd).f_flag & os.ST_RDONLY
        assert change(fd) == EROFS
        runtime("start", "held")
        assert change(fd) == EROFS
        with subprocess.Popen([*command, "exec", "held", "sleep", "100"], stdin=subprocess.DEVNULL) as process:
            until(lambda: len(runtime("ps", "-f", "json", "held").stdout.split(",")) == 2, "exec does not begin")
            assert os.statvfs(f"/proc/{process.pid}/exe").f_flag & os.ST_RDONLY
            runtime("kill", "--all", "held", "KILL")
            assert process.wait(patient(30)) == 128 + signal.SIGKILL
    finally:
        os.close(fd)
