"""Calls of other runtimes, upon a program of our own: command lines, errors, limits of time."""

from __future__ import annotations

import os
import signal
import sys
import time

import pytest

from ketch.errors import ProgramNotExecutable, ProgramNotFound, RuntimeFailure
from ketch.runtime.process.foreign import container, kills, program, remains
from ketch.runtime.process.loop import Loop
from tests.support.waiting import patient

SCRIPT = """#!{python} -IS
import json, os, signal, sys
words = sys.argv[1:]
log = words[words.index("--log") + 1]
with open("{out}", "w") as f:
    streams = [os.readlink(f"/proc/self/fd/{{n}}") for n in (0, 1, 2)]
    input = open("/proc/self/fd/4").read() if os.path.exists("/proc/self/fd/4") else ""
    ignored = [n for n in range(1, 65) if n not in (9, 19, 32, 33) and signal.getsignal(n) == signal.SIG_IGN]
    json.dump([words, dict(os.environ), streams, input, ignored], f)
{body}
"""


@pytest.fixture
def runtime(tmp_path):
    """Make a runtime that does ``body`` when it is called."""

    def make(body: str = "") -> program.ForeignProgram:
        path = tmp_path / "runtime"
        path.write_text(SCRIPT.format(python=sys.executable, out=tmp_path / "out", body=body))
        path.chmod(0o755)
        return program.ForeignProgram({"command": [str(path), "--own"], "root": "/run/state"})

    return make


def called(tmp_path):
    import json

    return json.loads((tmp_path / "out").read_text())


def test_command_line(runtime, tmp_path):
    runtime().kill("box", 15)
    words, environment, streams, text, ignored = called(tmp_path)
    assert words == [
        "--own",
        "--root",
        "/run/state",
        "--log",
        "/proc/self/fd/3",
        "--log-format",
        "json",
        "kill",
        "box",
        "15",
    ]
    assert environment["PATH"].startswith("/usr/local/sbin:")
    assert set(environment) <= {"PATH", "LC_CTYPE"}
    assert (streams, text) == (["/dev/null"] * 3, "")
    assert set(ignored) <= {13, 25}  # what the interpreter itself ignores
    runtime().update("box", {"memory": {"limit": 5}})
    words, *_, text, _ = called(tmp_path)
    assert words[-3:] == ["--resources", "/proc/self/fd/4", "box"]
    assert text == '{"memory": {"limit": 5}}'


LOGGED = "open(log, 'a').write({text!r}); sys.exit(1)"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (LOGGED.format(text='{"level": "error", "msg": "first"}\n{"level": "error", "msg": "last"}\n'), "last"),
        (LOGGED.format(text='{"level": "error", "msg": "why"}\n{"level": "info", "msg": "bye"}\nno JSON'), "why"),
        (LOGGED.format(text='{"msg": "only"}\n[]\n{"msg": 5}\n'), "only"),
        ("sys.exit(3)", r"unable to retrieve OCI runtime error \(.*\): exit status 3"),
        ("os.kill(os.getpid(), 6)", r"unable to retrieve OCI runtime error \(.*\): signal: 6"),
    ],
)
def test_errors_come_from_the_log(runtime, body, words):
    with pytest.raises(RuntimeFailure, match=f"^OCI runtime pause failed: {words}$"):
        runtime(body).pause("box", True)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ('exec: \\"x\\": executable file not found in $PATH', ProgramNotFound),
        ("executable file `x` not found in $PATH: No such file or directory", ProgramNotFound),
        ('exec: \\"/etc/passwd\\": permission denied', ProgramNotExecutable),
        ("open executable: Permission denied", ProgramNotExecutable),
        ("cgroups: cannot enter", RuntimeFailure),
    ],
)
def test_kinds_of_errors(runtime, text, kind):
    with pytest.raises(RuntimeFailure) as caught:
        runtime(LOGGED.format(text=f'{{"level": "error", "msg": "{text}"}}')).start("box")
    assert type(caught.value) is kind
    assert caught.value.message.startswith(
        "failed to create task for container: failed to create shim task: OCI runtime start failed: "
    )


def test_a_program_that_is_not_there(tmp_path):
    missing = program.ForeignProgram({"command": ["/nonexistent/runtime"], "root": "/run/state"})
    for call in (lambda: missing.start("box"), lambda: missing.create("/b", "/p", "", "box")):
        with pytest.raises(ProgramNotFound, match="fork/exec /nonexistent/runtime: no such file or directory$"):
            call()


def test_the_current_directory_is_not_searched(runtime, tmp_path, monkeypatch):
    """A name that PATH lacks stays a name: a file that is called so, wherever the daemon stands, is not run."""
    runtime()
    monkeypatch.chdir(tmp_path)
    one = program.ForeignProgram({"command": ["runtime"], "root": str(tmp_path / "state")})
    for call in (lambda: one.start("box"), lambda: one.create("/b", "/p", "", "box")):
        with pytest.raises(ProgramNotFound, match='exec: "runtime": executable file not found in [$]PATH$'):
            call()
    remains.record(str(tmp_path), {"command": one.command, "root": one.root})
    remains.delete(str(tmp_path), "box")
    assert not (tmp_path / "out").exists()


def test_one_that_does_not_end(runtime, monkeypatch):
    monkeypatch.setattr(program, "_CALL_S", 0.3)
    with pytest.raises(RuntimeFailure, match="did not end within"):
        runtime("import time; time.sleep(1000)")._call(["delete", "box"], "", limit_s=0.3)


def test_record(runtime, tmp_path):
    (tmp_path / "run").mkdir()
    run_dir = str(tmp_path / "run")
    assert remains.find(run_dir) is None
    remains.delete(run_dir, "box")
    one = runtime()
    remains.record(run_dir, {"command": one.command, "root": one.root})
    remains.delete(run_dir, "box")
    assert called(tmp_path)[0][-3:] == ["delete", "--force", "box"]
    assert os.listdir(run_dir) == []
    one = runtime("sys.exit(1)")
    remains.record(run_dir, {"command": one.command, "root": one.root})
    with pytest.raises(RuntimeFailure):
        remains.delete(run_dir, "box")
    assert os.listdir(run_dir) == ["runtime.json"]
    (tmp_path / "state" / "box" / "deep").mkdir(parents=True)
    (tmp_path / "state" / "other").mkdir()
    remains.record(run_dir, {"command": ["/nonexistent/runtime"], "root": str(tmp_path / "state")})
    remains.delete(run_dir, "box")
    assert (os.listdir(run_dir), os.listdir(tmp_path / "state")) == ([], ["other"])


@pytest.mark.parametrize("text", ["", "x", "0", "-1", "1", "own", "4194305"])
def test_a_pid_that_is_no_child_of_the_monitor_is_not_believed(tmp_path, text):
    """-1 as the target of a signal is everybody."""
    path = tmp_path / "pid"
    path.write_text(text.replace("own", str(os.getpid())))
    with pytest.raises(RuntimeFailure, match="read the pid that the runtime has written"):
        container.read_pid(str(path))


def test_a_process_that_ended_before_its_pid_was_read(tmp_path):
    path = tmp_path / "pid"
    path.write_text("4194305")  # more than there can be
    assert container.read_pid(str(path), ended=True) == 4194305
    path.write_text("-1")
    with pytest.raises(RuntimeFailure, match="process -1 is none that it has made"):
        container.read_pid(str(path), ended=True)


FAILS = "open(log, 'w').write(json.dumps({'msg': 'no such container', 'level': 'error'})); sys.exit(1)"


@pytest.fixture
def kill(runtime, tmp_path):
    """Send a signal as a monitor does, by a runtime that does ``body``; returns the error."""

    def send(body: str, pid: int, number: int):
        run_dir = tmp_path / "run"
        run_dir.mkdir(exist_ok=True)
        one, loop, answers = runtime(body), Loop(), []
        remains.record(str(run_dir), {"command": one.command, "root": one.root})

        def fail() -> None:
            loop.running = False

        loop.on_error = fail
        loop.deadline, loop.on_deadline = time.monotonic() + patient(20), fail

        def done(error: object) -> None:
            answers.append(error)
            loop.running = False

        kills.Kills(loop, str(run_dir), "box").begin(pid, number, done)
        loop.run()
        os.wait()
        [error] = answers
        return error

    return send


@pytest.mark.parametrize("number", [15, 9])
def test_a_signal_before_the_first_process_is_known(kill, number):
    """The request is answered; and SIGKILL does not go to the monitor's own process group, which is what 0 means."""
    assert "no such container" in kill(FAILS, 0, number)["message"]
    assert kill("", 0, number) is None


def test_a_caller_that_dies_has_sent_no_signal(kill, runtime):
    words = kill("os.kill(os.getppid(), 9)", 0, 15)["message"]
    assert "died" in words


def test_the_monitors_own_waiting_is_not_disturbed_by_the_callers_signals(kill, monkeypatch):
    """The caller inherits the descriptor that tells of signals: its own child's end is not the monitor's."""
    reader, writer = os.pipe2(os.O_NONBLOCK)
    os.set_blocking(writer, False)

    def call(self, *_args) -> None:
        os.kill(os.getpid(), signal.SIGUSR1)

    monkeypatch.setattr(program.ForeignProgram, "kill", call)
    before, handler = signal.set_wakeup_fd(writer), signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        monkeypatch.setattr(os, "closerange", lambda *_: None)  # so that it would hear
        assert kill("", 0, 15) is None
        with pytest.raises(BlockingIOError):
            os.read(reader, 16)
    finally:
        signal.set_wakeup_fd(before)
        signal.signal(signal.SIGUSR1, handler)
        os.close(reader)
        os.close(writer)
