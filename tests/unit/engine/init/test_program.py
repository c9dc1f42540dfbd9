"""The init program of containers: its binaries are its source's, and what it does as an ordinary process.

What it does as the first of a container is in tests/integration/runtimes/test_init.py.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import signal
import stat
import subprocess

import pytest

from ketch.engine.init import program
from ketch.errors import FailedPrecondition
from ketch.programs import find

PLACE = pathlib.Path(program.__file__).parent
MACHINES = ("x86_64", "aarch64")


@pytest.fixture(params=MACHINES)
def command(request: pytest.FixtureRequest) -> list[str]:
    """How to run the program of a machine: as it is, or emulated."""
    path = str(PLACE / request.param)
    if request.param == os.uname().machine:
        return [path]
    if not (emulator := find(f"qemu-{request.param}")):
        pytest.skip(f"qemu-{request.param} (package qemu-user) is not installed")
    return [emulator, path]


@pytest.mark.parametrize("machine", MACHINES)
def test_binaries_are_of_the_source(machine):
    digest = hashlib.sha256((PLACE / "init.c").read_bytes()).digest()
    assert digest in (PLACE / machine).read_bytes(), "run scripts/init-program"


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (("sh", "-c", "exit 3"), 3, ""),
        (("--", "true"), 0, ""),
        (("--", "sh", "-c", "kill -9 $$"), 137, ""),
        (("/bin/sh", "-c", "kill -TERM $$"), 143, ""),
        (("nope",), 127, "docker-init: exec nope: no such file or directory\n"),
        (("",), 127, "docker-init: exec : no such file or directory\n"),
        (("./plain",), 126, "docker-init: exec ./plain: permission denied\n"),
        (("plain",), 126, "docker-init: exec plain: permission denied\n"),
        (("script", "one", "two words"), 5, "one two words\n"),
        ((), 1, "usage: docker-init [--] PROGRAM [ARGUMENT...]\n"),
        (("--",), 1, "usage: docker-init [--] PROGRAM [ARGUMENT...]\n"),
        # Orphans' ends are no end of the program, and it leads its own process group.
        (("sh", "-c", "(true & exec true); sleep 0.05; test $(cut -d' ' -f5 /proc/$$/stat) = $$"), 0, ""),
    ],
)
def test_ends(command, args, code, says, tmp_path):
    (tmp_path / "plain").write_text("not executable", encoding="ascii")
    script = tmp_path / "script"  # of no interpreter: the shell's
    script.write_text('echo "$@" >&2\nexit 5\n', encoding="ascii")
    script.chmod(0o755)
    environment = {"PATH": f"/nonexistent:/etc/hostname:{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run([*command, *args], capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert (done.returncode, done.stderr) == (code, says)


def test_each_signal_is_passed_on(command):
    """The program gets what this process is sent, with the mask and the dispositions that it would have had."""
    numbers = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGWINCH, signal.SIGTTOU, 37]
    script = (
        "import os, signal\n"
        "assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())\n"
        "assert signal.getsignal(signal.SIGTTOU) == signal.SIG_DFL\n"
        f"signal.pthread_sigmask(signal.SIG_BLOCK, {[int(n) for n in numbers]})\n"
        "print('ready', flush=True)\n"
        "while True: print(int(signal.sigwait(signal.valid_signals())), flush=True)\n"
    )
    argv = [*command, "--", find("python3") or "", "-c", script]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            for number in numbers:
                process.send_signal(number)
                assert process.stdout.readline() == f"{int(number)}\n"
        finally:
            child = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0]
            os.kill(int(child), signal.SIGKILL)
        assert process.wait() == 137


def test_a_file_in_the_data_root(tmp_path):
    path = program.make(str(tmp_path))
    first = os.stat(path)
    assert stat.S_IMODE(first.st_mode) == 0o755
    assert program.make(str(tmp_path)) == path
    assert os.stat(path).st_ino == first.st_ino  # written once
    pathlib.Path(path).write_bytes(b"of an older version")
    program.make(str(tmp_path))
    assert pathlib.Path(path).read_bytes() == (PLACE / os.uname().machine).read_bytes()


def test_other_machines(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "n", "6", "v", "riscv64")))
    monkeypatch.setattr(program, "_OTHERS", (str(tmp_path / "tini-static"),))
    assert program.name() == ""
    with pytest.raises(FailedPrecondition, match="no init program for riscv64"):
        program.make(str(tmp_path))
    (tmp_path / "tini-static").touch()
    assert program.name() == "tini-static"
    assert program.make("/nonexistent") == str(tmp_path / "tini-static")
