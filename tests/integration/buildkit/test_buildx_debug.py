"""Debuggers of ``docker buildx``: the monitor of ``debug`` on a terminal, and ``dap`` as an editor talks to it."""

from __future__ import annotations

import os
import signal

import pytest

from tests.support import peers
from tests.support.building.debug_adapter import DebugAdapter
from tests.support.leaks import Census, descendants
from tests.support.terminal import Terminal
from tests.support.waiting import until

pytestmark = pytest.mark.usefixtures("no_images_left")
PROMPT, MONITOR = r"/ # ", r"\(buildx\) "
FAILING = "FROM busybox\nRUN echo one > /one\nRUN echo two > /two\nRUN echo three > /three; exit 3\n"
GOOD = "FROM busybox\nRUN echo one > /one\nRUN echo two > /two\n"
TO_MONITOR = "\x01c"  # Ctrl-a c


@pytest.fixture
def census(engine):
    """Nothing of a debugger's containers may be left behind it."""
    before = Census.take(engine.name)
    yield before
    if engine.kind == "ketch":
        until(lambda: not containers(engine), "nothing of containers runs", 30)
        assert before.leaks() == []


def containers(engine):
    """The processes that are neither the launcher nor what it keeps ready."""
    own = ("ketch-launcher", "ketch-spare")
    return {pid: line for pid, line in descendants(engine.process.pid).items() if line not in own}


@pytest.fixture
def context(tmp_path):
    top = tmp_path / "context"
    top.mkdir()
    (top / "Dockerfile").write_text(FAILING)
    return top


@pytest.fixture
def environment(engine, census):
    peers.need()
    return {**engine.environment(), "BUILDX_EXPERIMENTAL": "1"}


@pytest.fixture
def debug(environment, context):
    """Debugs a build, on a terminal."""

    def begin(*words):
        command = [peers.docker(), "buildx", "debug", *words, "--progress=plain", str(context)]
        return Terminal(command, environment)

    return begin


def say(terminal, text, answer):
    """Type a command into a shell, whose answer does not stand in it."""
    terminal.expect(PROMPT, 60)
    terminal.send(f"{text}\r")
    terminal.expect(answer)


def test_a_failed_step(debug):
    """A shell in what a failed step left; further processes; the step's beginning; the end is the build's error."""
    with debug("--on=error", "build") as terminal:
        say(terminal, "echo =$(cat /one /two /three)=; hostname > /made", "=one two three=")
        terminal.expect(PROMPT)
        terminal.send(TO_MONITOR)
        terminal.expect(MONITOR)
        terminal.send("exec /bin/sh\r")  # which waits: output on its way when a process ends is lost in the monitor
        say(terminal, "cat /made", "buildkitsandbox")
        say(terminal, "exit", MONITOR)
        terminal.send("exit\r")
        assert terminal.wait() == 1
        assert "did not complete successfully: exit code: 3" in terminal.text


def test_the_beginning_of_a_failed_step(debug):
    with debug("--on=error", "build") as terminal:
        terminal.expect(PROMPT, 60)
        terminal.send(TO_MONITOR)
        terminal.expect(MONITOR)
        terminal.send("rollback --init /bin/sh\r")
        terminal.expect("Interactive container was restarted")
        say(terminal, "echo =$(ls /two /three 2>/dev/null)=", "=/two=")
        say(terminal, "exit", "exit")
        terminal.expect(MONITOR)
        terminal.send("exit\r")
        assert terminal.wait() == 1


def test_the_result_of_a_build(debug, context):
    """A shell in the result, although nothing failed; what is done in it is no part of the image."""
    (context / "Dockerfile").write_text(GOOD)
    with debug("--on=always", "--invoke=/bin/sh", "build", "-t", "debugged") as terminal:
        say(terminal, "echo =$(cat /one /two)=; touch /lost", "=one two=")
        say(terminal, "exit", "exit")
        terminal.expect(MONITOR)
        terminal.send("exit\r")
        assert terminal.wait() == 0


def test_the_image_has_nothing_of_it(debug, context, engine):
    (context / "Dockerfile").write_text(GOOD)
    with debug("--on=always", "--invoke=/bin/sh", "build", "-t", "debugged") as terminal:
        say(terminal, "touch /lost", PROMPT)
        terminal.send("exit\r")
        terminal.expect(MONITOR)
        terminal.send("exit\r")
        assert terminal.wait() == 0
    found = engine.docker("run", "--rm", "debugged", "ls", "/").out.split()
    assert "two" in found
    assert "lost" not in found
    engine.docker("rmi", "debugged")


@pytest.mark.ketch_only  # BuildKit waits for the end of an input that nobody ends
def test_a_process_with_its_own_settings(debug, context):
    (context / "Dockerfile").write_text(GOOD)
    words = '"args=/bin/sh","args=-c","args=id -u; pwd; echo $A; exit 4","env=A=b","user=12","cwd=/tmp","tty=false"'
    with debug("--on=always", f"--invoke={words}", "build") as terminal:
        terminal.expect(r"12\s+/tmp\s+b\s", 60)
        terminal.expect(MONITOR)
        terminal.send("exit\r")
        assert terminal.wait() == 0


@pytest.mark.ketch_only
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_a_debugger_that_is_killed(debug, engine, number):
    """Its shell and what that has started end with it; the fixture counts what is left."""
    with debug("--on=error", "build") as terminal:
        say(terminal, "sleep 1000 & echo =$((40+2))=", "=42=")
        until(lambda: "sleep 1000" in containers(engine).values(), "it runs")
        os.kill(terminal.pid, number)
        for pid in descendants(terminal.pid):
            os.kill(pid, number)
        until(lambda: not containers(engine), "nothing of containers runs", 30)


# -- dap -------------------------------------------------------------------------------------------


@pytest.fixture
def adapter(environment, context):
    """A build that waits to be debugged."""
    command = [peers.docker(), "buildx", "dap", "build", "--progress=plain", str(context)]
    with DebugAdapter(command, environment) as one:
        wanted = {"supportsRunInTerminalRequest": True, "linesStartAt1": True, "columnsStartAt1": True}
        assert one.request("initialize", adapterID="buildx", **wanted)["supportsConfigurationDoneRequest"]
        one.begin("launch", contextPath=str(context), dockerfile=str(context / "Dockerfile"))
        one.event("initialized")
        yield one


def begin(adapter, context, *lines):
    """Let it run to its first stop, which is returned."""
    points = [{"line": line} for line in lines]
    adapter.request("setBreakpoints", source={"path": str(context / "Dockerfile")}, breakpoints=points)
    adapter.request("configurationDone")
    return adapter.event("stopped")


def frame(adapter, stop):
    return adapter.request("stackTrace", threadId=stop["threadId"])["stackFrames"][0]


def shell(adapter, environment, at):
    """The shell of an ``exec``, in a terminal as an editor opens it."""
    adapter.request("evaluate", expression="exec", context="repl", frameId=at["id"])
    until(lambda: adapter.terminals, "a terminal is asked for")
    return Terminal([peers.docker(), *adapter.terminals.pop()[1:]], environment)


def test_steps_and_breakpoints(adapter, context, environment):
    """It stops before a line, shows its files, runs a shell there; goes on step by step to the one that fails."""
    stop = begin(adapter, context, 3)
    assert stop["reason"] == "breakpoint"
    at = frame(adapter, stop)
    assert at["line"] == 3
    scopes = {one["name"]: one["variablesReference"] for one in adapter.request("scopes", frameId=at["id"])["scopes"]}
    files = adapter.request("variables", variablesReference=scopes["File Explorer"])["variables"]
    names = {one["name"] for one in files}
    assert "one" in names
    assert "two" not in names
    with shell(adapter, environment, at) as terminal:
        say(terminal, "echo =$(ls /one /two 2>/dev/null)=", "=/one=")
        say(terminal, "exit", "exit")
        terminal.wait()
    adapter.request("next", threadId=stop["threadId"])
    stop = adapter.event("stopped")
    assert stop["reason"] == "step"
    assert frame(adapter, stop)["line"] == 4
    adapter.request("continue", threadId=stop["threadId"])
    stop = adapter.event("stopped")
    assert stop["reason"] == "exception"
    assert frame(adapter, stop)["line"] == 4
    adapter.request("continue", threadId=stop["threadId"])
    adapter.event("terminated")
    assert adapter.wait() == 1
    assert adapter.output.count("[2/4] RUN echo one > /one\n") == 1  # however often it was asked for


def test_a_build_without_an_error(adapter, context):
    (context / "Dockerfile").write_text(GOOD)
    stop = begin(adapter, context, 2, 3)
    assert frame(adapter, stop)["line"] == 2
    adapter.request("continue", threadId=stop["threadId"])
    assert frame(adapter, adapter.event("stopped"))["line"] == 3
    adapter.request("continue", threadId=stop["threadId"])
    adapter.event("terminated")
    assert adapter.wait() == 0


@pytest.mark.ketch_only
def test_an_editor_that_vanishes(adapter, context, environment, engine):
    """The shell that it has opened ends; the fixture counts what is left."""
    stop = begin(adapter, context, 3)
    with shell(adapter, environment, frame(adapter, stop)) as terminal:
        say(terminal, "sleep 1000 & echo =$((40+2))=", "=42=")
        assert "sleep 1000" in containers(engine).values()
        for pid in (adapter.pid, *descendants(adapter.pid)):
            os.kill(pid, signal.SIGKILL)
        until(lambda: not containers(engine), "nothing of containers runs", 30)
