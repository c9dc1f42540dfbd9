"""The daemon itself: its flags, where it listens, how soon, many at once, and that it leaks nothing."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

from ketch.client.http import Client
from tests.support.engines import BIN
from tests.support.rawapi import Api
from tests.support.waiting import patient, until

KETCHD = os.path.join(BIN, "ketchd")
CLIENTS, RESTARTS = 8, 3
_PASS = """
import os, sys
fd = int(sys.argv[1])
if fd != 3:
    os.dup2(fd, 3)
    os.close(fd)
os.set_inheritable(3, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.argv[2], sys.argv[2:])
"""


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
        timeout=patient(20),
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
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1.51/version", timeout=patient(5)) as answer:
        assert json.load(answer)["Os"] == "linux"
    cat = ("run", "-i", "--rm", "busybox", "cat")
    out = own_engine.client("-H", f"tcp://127.0.0.1:{port}", *cat, stdin=b"over tcp\n").out
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
    done = subprocess.run(command, capture_output=True, text=True, timeout=patient(20), check=False)
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
    assert own_engine.client("run", "--rm", "busybox", "cat", "/sys/class/net/eth0/mtu").out == "1400\n"
    path.write_text('{"no-such-key": 1}', encoding="utf-8")
    command = [KETCHD, "--data-root", f"{tmp_path}/d", "--exec-root", f"{tmp_path}/e", "--config-file", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=patient(20), check=False)
    assert done.returncode != 0
    assert "no-such-key" in done.stderr


def test_settings_are_read_again(own_engine, tmp_path):
    """SIGHUP, as with dockerd; a file with a mistake changes nothing, and what counts at the next start is named."""
    path, api = tmp_path / "daemon.json", Api(own_engine.socket)
    path.write_text(json.dumps({"labels": ["a=b"]}), encoding="utf-8")
    own_engine.extra = ["--config-file", str(path)]
    own_engine.start()

    def told():
        info = api.must("GET", "/info")
        hosts = [host for host in info["RegistryConfig"]["IndexConfigs"] if "example" in host]
        mirrors = info["RegistryConfig"]["Mirrors"]
        told = [info[name] for name in ("Labels", "LiveRestoreEnabled", "Debug", "DefaultRuntime")]
        return *told, hosts, mirrors, "mine" in info["Runtimes"]

    def reload(text, answer):
        path.write_text(text, encoding="utf-8")
        seen = len(own_engine.log())
        own_engine.process.send_signal(signal.SIGHUP)
        until(lambda: answer in own_engine.log()[seen:], lambda: own_engine.log()[seen:])
        return own_engine.log()[seen:]

    began = told()
    assert began == (["a=b"], True, False, "ketch", [], None, False)
    begin = f"{time.time():.6f}"
    changes = {
        "labels": ["c=d"],
        "live-restore": False,
        "debug": True,
        "insecure-registries": ["example.org:5000"],
        "registry-mirrors": ["https://mirror.example.org"],
        "runtimes": {"mine": {"path": "/bin/true"}},
        "default-runtime": "mine",
        "mtu": 1400,
    }
    said = reload(json.dumps(changes), "the settings were read again")
    assert "count at ketchd's next start have changed: mtu\n" in said
    mirrors = ["https://mirror.example.org/"]
    assert told() == (["c=d"], False, True, "mine", ["example.org:5000"], mirrors, True)
    events = api("GET", "/events", since=begin, until=int(time.time()) + 1, filters='{"event":["reload"]}')[1]
    attributes = events["Actor"]["Attributes"]
    assert (attributes["labels"], attributes["live-restore"]) == ('["c=d"]', "false")
    for mistake in ('{"labels": 1}', '{"default-runtime": "nope"}', "{"):
        reload(mistake, "they stay as they are")
        assert told()[0] == ["c=d"]
    reload('{"labels": ["a=b"]}', "the settings were read again")
    assert told() == began
    own_engine.process.send_signal(signal.SIGUSR1)
    until(lambda: "Current thread" in own_engine.log(), "no stacks")


def test_a_failed_start_ends_no_containers(own_engine):
    """Also where they end with the daemon: it has not begun to serve them."""
    own_engine.start()
    own_engine.add_busybox()
    own_engine.client("run", "-d", "--name", "box", "--network", "none", "busybox", "sleep", "1000")
    pid = own_engine.client("inspect", "-f", "{{.State.Pid}}", "box").out
    own_engine.stop()
    own_engine.extra = ["--live-restore=false", "-H", "unix:///proc/no-socket"]
    own_engine.launch()
    assert own_engine.process.wait(patient(30)) == 1
    own_engine.process = None
    own_engine.extra = []
    own_engine.start()
    assert own_engine.client("inspect", "-f", "{{.State.Pid}}", "box").out == pid


def test_two_daemons_side_by_side(engine, own_engine):
    own_engine.start()
    own_engine.add_busybox()
    own_engine.client("run", "-d", "--name", "here", "busybox", "sleep", "1000")
    engine.client("run", "-d", "--name", "there", "busybox", "sleep", "1000")
    assert own_engine.client("ps", "--format", "{{.Names}}").out == "here\n"
    assert engine.client("ps", "--format", "{{.Names}}").out == "there\n"
    show = ("inspect", "-f", "{{.NetworkSettings.Networks.bridge.Gateway}}")
    assert own_engine.client(*show, "here").out != engine.client(*show, "there").out
    engine.client("rm", "-f", "there")


def test_many_at_once(engine):
    def run(number: int) -> str:
        return engine.client("run", "--rm", "busybox", "sh", "-c", f"echo {number}; exit 0", timeout=60).out

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(run, range(24))) == [f"{n}\n" for n in range(24)]
    assert engine.client("ps", "-aq").out == ""


def test_nothing_is_held_open(engine):
    """Runs, execs, logs and failures leave no descriptor behind in the daemon."""
    if engine.kind != "ketch":
        pytest.skip("only for Ketch")
    with open(engine.pidfile, encoding="utf-8") as f:
        fds = f"/proc/{f.read().strip()}/fd"

    def once() -> None:
        engine.client("run", "--rm", "busybox", "true")
        engine.client("run", "--rm", "busybox", "no-such-program", check=False)
        engine.client("run", "-d", "--name", "held", "busybox", "sleep", "1000")
        engine.client("exec", "held", "true")
        engine.client("logs", "held")
        engine.client("rm", "-f", "held")

    once()
    before = len(os.listdir(fds))
    for _ in range(15):
        once()
    # Worker threads may have come and opened the database, connections may be closing: less than one a round.
    deadline = time.monotonic() + patient(5)
    while len(os.listdir(fds)) >= before + 10:
        assert time.monotonic() < deadline, sorted(os.readlink(f"{fds}/{fd}") for fd in os.listdir(fds))
        time.sleep(0.05)


def test_ketch_command_line_is_light():
    """The hot commands must not import what they do not need."""
    code = "import sys; import ketch.cli.main, ketch.cli.commands.containers.run; print(' '.join(sys.modules))"
    python = os.path.join(BIN, "python")
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=patient(20), check=True)
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
            one.settimeout(patient(30))
            one.sendall(b"GET /_ping HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert {one.recv(12) for one in burst} == {b"HTTP/1.1 200"}


def test_who_was_let_in_is_answered_though_the_daemon_ends(own_engine):
    """Clients that connect at the moment of its end are no less than those before: nobody is hung up on."""
    own_engine.start()
    with contextlib.ExitStack() as stack:
        own_engine.process.send_signal(signal.SIGSTOP)
        try:
            own_engine.process.send_signal(signal.SIGTERM)
            clients = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(20)]
            for one in clients:
                one.settimeout(patient(20))
                one.connect(own_engine.socket)
                one.sendall(b"GET /v1.51/containers/json HTTP/1.1\r\nHost: localhost\r\n\r\n")
        finally:
            own_engine.process.send_signal(signal.SIGCONT)
        assert {one.recv(12) for one in clients} == {b"HTTP/1.1 200"}
    assert own_engine.process.wait(timeout=patient(20)) == 0


@pytest.mark.ketch_only
def test_restarts_turn_no_client_away(own_engine):
    """Clients come all the time: one waits while there is no daemon, and none is hung up on."""
    over, answered = threading.Event(), [0] * CLIENTS

    def ask(number: int) -> None:
        while not over.is_set():
            client = Client(f"unix://{own_engine.socket}")
            client.request("GET", "/containers/json").close()
            answered[number] += 1

    with (
        socket.socket(socket.AF_UNIX) as listener,
        ThreadPoolExecutor(CLIENTS) as threads,
        contextlib.ExitStack() as stack,
    ):
        listener.bind(own_engine.socket)
        listener.listen(64)
        _start(own_engine, listener)
        stack.callback(lambda: own_engine.process is not None and own_engine.stop())
        stack.callback(listener.close)  # with the daemon's, so that nobody waits for ever when one has failed
        clients = [threads.submit(ask, number) for number in range(CLIENTS)]
        stack.callback(over.set)
        for _ in range(RESTARTS):
            before = list(answered)
            until(lambda before=before: _ended(clients) or all(map(int.__gt__, answered, before)), own_engine.log, 30)
            assert _ended(clients) == []
            assert own_engine.stop() == 0
            _start(own_engine, listener)
        over.set()
        for client in clients:
            client.result(patient(60))


def _ended(clients):
    return [client.exception() for client in clients if client.done()]


def _start(engine, listener: socket.socket) -> None:
    """Start the daemon with the socket as its descriptor 3, as sd_listen_fds(3) has it."""
    command = engine.command()
    command[command.index("-H") + 1] = "fd://"
    with open(engine.log_path, "ab") as log:
        engine.process = subprocess.Popen(
            [sys.executable, "-ISc", _PASS, str(listener.fileno()), *command],
            pass_fds=[listener.fileno()],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            env=engine.daemon_environment(),
        )


_ENDS = 'trap "" TERM; trap "exit 7" USR1; echo here; while :; do sleep 0.05; done'
_POLICIES = ("always", "unless-stopped", "on-failure", "no")


def test_containers_end_with_the_daemon_and_come_back_by_their_policies(own_engine):
    """Without ``live-restore``, or by ``ketch daemon stop --containers``: each by its own signal, as with dockerd."""
    api = Api(own_engine.socket)

    def create(name, *command, policy, **more):
        host = {"NetworkMode": "none", "RestartPolicy": {"Name": policy}}
        body = {"Image": "busybox", "Cmd": command, "HostConfig": host, **more}
        api.must("POST", "/containers/create", body, name=name)
        api.must("POST", f"/containers/{name}/start")

    def states():
        return {name: api.must("GET", f"/containers/{name}/json")["State"] for name in [*_POLICIES, "stubborn", "held"]}

    def come_back():
        return {name for name, state in states().items() if state["Running"]}

    def killed():
        query = {
            "since": begin,
            "until": int(time.time()) + 1,
            "filters": '{"container":["stubborn"],"event":["kill"]}',
        }
        return api("GET", "/events", **query)[1]

    own_engine.extra = ["--live-restore=false", "--shutdown-timeout=1"]
    own_engine.start()
    own_engine.add_busybox()
    for policy in _POLICIES:
        create(policy, "sh", "-c", _ENDS, policy=policy, StopSignal="USR1", StopTimeout=60)
    create("stubborn", "sleep", "1000", policy="always", StopTimeout=0)
    create("held", "sleep", "1000", policy="unless-stopped")
    api.must("POST", "/containers/held/stop", t=0)
    for policy in _POLICIES:
        until(lambda policy=policy: b"here" in api.must("GET", f"/containers/{policy}/logs", stdout=1), policy)
    assert api.must("GET", "/info")["LiveRestoreEnabled"] is False
    assert own_engine.stop() == 0
    pids = subprocess.run(["pgrep", "-f", own_engine.exec_root], capture_output=True, text=True).stdout
    assert pids == "", own_engine.log()
    own_engine.extra = []
    own_engine.start()
    wanted = {"always", "unless-stopped", "on-failure", "stubborn"}
    until(lambda: come_back() == wanted, lambda: f"{come_back()}\n{own_engine.log()}")
    assert states()["no"]["ExitCode"] == 7
    assert api.must("GET", "/info")["LiveRestoreEnabled"] is True

    before, begin = states()["always"]["Pid"], f"{time.time():.6f}"
    with ThreadPoolExecutor(1) as pool:  # a request that is not answered yet is waited for
        stopped = pool.submit(api, "POST", "/containers/stubborn/stop", t=2)
        until(killed, "the stop does not begin")
        assert "3 containers go on" in own_engine.ketch("daemon", "stop").out
        assert stopped.result()[0] == 204
    own_engine.process.wait(patient(10))
    own_engine.start()
    assert states()["always"]["Pid"] == before
    for policy in _POLICIES[:3]:
        until(lambda policy=policy: api.must("GET", f"/containers/{policy}/logs", stdout=1).count(b"here") == 2, policy)
    told = own_engine.ketch("daemon", "stop", "--containers").out
    assert told.endswith("; 4 containers ended with it\n"), told
    assert own_engine.process.wait(patient(10)) == 0
    own_engine.start()
    until(lambda: come_back() == wanted, lambda: f"{come_back()}\n{own_engine.log()}")
