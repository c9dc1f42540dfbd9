"""The daemon itself: its flags, where it listens, how soon, many at once, and that it leaks nothing."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.engines import BIN
from tests.support.waiting import patient

KETCHD = os.path.join(BIN, "ketchd")


def test_files_of_a_running_daemon(own_engine):
    own_engine.start()
    with open(own_engine.pidfile, encoding="utf-8") as f:
        assert int(f.read()) == own_engine.process.pid
    assert os.stat(own_engine.socket).st_mode & 0o007 == 0
    assert os.path.exists(os.path.join(own_engine.data_root, "ketch.db"))
    assert own_engine.stop() == 0
    assert not os.path.exists(own_engine.pidfile)
    assert not os.path.exists(own_engine.socket)


def test_second_daemon_on_the_same_roots_is_refused(own_engine):
    own_engine.start()
    second = subprocess.run(
        [*own_engine.command(), "-H", f"unix://{own_engine.root}/other"],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert second.returncode != 0
    assert own_engine.data_root in second.stderr
    assert "Traceback" not in second.stderr
    assert own_engine.answers()


def test_listens_on_loopback_tcp(own_engine):
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as s:
        port = s.getsockname()[1]
    own_engine.extra = ["-H", f"tcp://127.0.0.1:{port}"]
    own_engine.start()
    own_engine.add_busybox()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1.51/version", timeout=5) as answer:
        assert json.load(answer)["Os"] == "linux"
    cat = ("run", "-i", "--rm", "busybox", "cat")
    out = own_engine.docker("-H", f"tcp://127.0.0.1:{port}", *cat, stdin=b"over tcp\n").out
    assert out == "over tcp\n"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["-H", "tcp://0.0.0.0:0"], "tls"),
        (["-H", "nonsense://x"], "nonsense"),
        (["--bip", "10.0.0.0/99"], "bip"),
        (["--no-such-flag"], "no-such-flag"),
        (["--log-opt", "max-size=lots"], "max-size"),
        (["--config-file", "/no/such/file"], "/no/such/file"),
        (["-H", "unix:///tmp/" + "x" * 103], "x: a socket's path has at most 107 bytes"),
        (["--data-root", "/etc/passwd"], "use directory `/etc/passwd`: there is a file in its place"),
        (["--exec-root", "/etc/passwd/x"], "use directory `/etc/passwd/x`: there is a file in its place, or above"),
        (["--pidfile", "/dev/null"], "write pid file `/dev/null`: there is something that is no file"),
    ],
)
def test_bad_flags(tmp_path, flags, message):
    roots = ["--data-root", f"{tmp_path}/d", "--exec-root", f"{tmp_path}/e", "--pidfile", f"{tmp_path}/p"]
    command = [KETCHD, *roots, "--bridge", "none", *([] if "-H" in flags else ["-H", f"unix://{tmp_path}/s"]), *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode not in (0, -9)
    assert message in done.stderr.lower()
    assert "Traceback" not in done.stderr


def test_a_pipe_in_the_place_of_the_pid_file(own_engine):
    """It is refused, not waited for."""
    os.mkfifo(own_engine.pidfile)
    own_engine.launch()
    assert own_engine.process.wait(patient(20)) == 1
    own_engine.process = None
    assert f"write pid file `{own_engine.pidfile}`: there is something that is no file" in own_engine.log()
    os.unlink(own_engine.pidfile)


def test_config_file(own_engine, tmp_path):
    path = tmp_path / "daemon.json"
    path.write_text(json.dumps({"log-opts": {"max-size": "1m"}, "mtu": 1400}), encoding="utf-8")
    own_engine.extra = ["--config-file", str(path)]
    own_engine.start()
    own_engine.add_busybox()
    assert own_engine.docker("run", "--rm", "busybox", "cat", "/sys/class/net/eth0/mtu").out == "1400\n"
    path.write_text('{"no-such-key": 1}', encoding="utf-8")
    command = [KETCHD, "--data-root", f"{tmp_path}/d", "--exec-root", f"{tmp_path}/e", "--config-file", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode != 0
    assert "no-such-key" in done.stderr


def test_two_daemons_side_by_side(engine, own_engine):
    own_engine.start()
    own_engine.add_busybox()
    own_engine.docker("run", "-d", "--name", "here", "busybox", "sleep", "1000")
    engine.docker("run", "-d", "--name", "there", "busybox", "sleep", "1000")
    assert own_engine.docker("ps", "--format", "{{.Names}}").out == "here\n"
    assert engine.docker("ps", "--format", "{{.Names}}").out == "there\n"
    show = ("inspect", "-f", "{{.NetworkSettings.Networks.bridge.Gateway}}")
    assert own_engine.docker(*show, "here").out != engine.docker(*show, "there").out
    engine.docker("rm", "-f", "there")


def test_many_at_once(engine):
    def run(number: int) -> str:
        return engine.docker("run", "--rm", "busybox", "sh", "-c", f"echo {number}; exit 0", timeout=60).out

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(run, range(24))) == [f"{n}\n" for n in range(24)]
    assert engine.docker("ps", "-aq").out == ""


def test_nothing_is_held_open(engine):
    """Runs, execs, logs and failures leave no descriptor behind in the daemon."""
    if engine.kind != "ketch":
        pytest.skip("only for Ketch")
    with open(engine.pidfile, encoding="utf-8") as f:
        fds = f"/proc/{f.read().strip()}/fd"

    def once() -> None:
        engine.docker("run", "--rm", "busybox", "true")
        engine.docker("run", "--rm", "busybox", "no-such-program", check=False)
        engine.docker("run", "-d", "--name", "held", "busybox", "sleep", "1000")
        engine.docker("exec", "held", "true")
        engine.docker("logs", "held")
        engine.docker("rm", "-f", "held")

    once()
    before = len(os.listdir(fds))
    for _ in range(15):
        once()
    # Worker threads may have come and opened the database, connections may be closing: less than one a round.
    deadline = time.monotonic() + 5
    while len(os.listdir(fds)) >= before + 10:
        assert time.monotonic() < deadline, sorted(os.readlink(f"{fds}/{fd}") for fd in os.listdir(fds))
        time.sleep(0.05)


def test_ketch_command_line_is_light():
    """The hot commands must not import what they do not need."""
    code = "import sys; import ketch.cli.main, ketch.cli.commands.containers.run; print(' '.join(sys.modules))"
    python = os.path.join(BIN, "python")
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=20, check=True)
    for heavy in ("asyncio", "aiohttp", "click", "argparse", "http.client", "logging", "pyroute2", "rich"):
        assert heavy not in done.stdout.split(), heavy


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_burst_of_connections(own_engine, kind):
    """All at once, none refused: those that are not accepted yet wait in the listener's queue."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = free.getsockname()
    own_engine.extra = ["-H", "tcp://{}:{}".format(*address)]
    own_engine.start()
    with contextlib.ExitStack() as stack:
        burst = []
        own_engine.process.send_signal(signal.SIGSTOP)  # nothing is accepted meanwhile
        try:
            for _ in range(3000):
                one = stack.enter_context(socket.socket(socket.AF_UNIX if kind == "unix" else socket.AF_INET))
                one.settimeout(0 if kind == "unix" else 10)  # on a unix socket: as Go's clients
                one.connect(own_engine.socket if kind == "unix" else address)
                burst.append(one)
        finally:
            own_engine.process.send_signal(signal.SIGCONT)
        for one in burst:
            one.settimeout(30)
            one.sendall(b"GET /_ping HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert {one.recv(12) for one in burst} == {b"HTTP/1.1 200"}
