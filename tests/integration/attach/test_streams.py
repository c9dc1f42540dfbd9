"""Logs, attach, exec and terminals, through both clients."""

from __future__ import annotations

import re
import socket
import time

import pytest

from tests.support.waiting import patient

ECHO = 'echo ready; while read line; do echo "got $line"; done; echo end of input'


def test_logs(client):
    client("run", "--name", "both", "busybox", "sh", "-c", "echo one; echo two >&2; echo three")
    result = client("logs", "both")
    assert (result.out, result.err) == ("one\nthree\n", "two\n")


def test_part_of_the_logs(client):
    client("run", "--name", "talker", "busybox", "sh", "-c", "echo one; echo three")
    assert client("logs", "-n", "1", "talker").out == "three\n"
    stamped = client("logs", "-t", "talker").out.splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z one", stamped[0])
    assert client("logs", "--since", "1h", "talker").out == "one\nthree\n"
    assert client("logs", "--until", "1h", "talker").out == ""


def test_logs_follow_to_the_end(client):
    client("run", "-d", "-i", "--name", "talker", "busybox", "sh", "-c", ECHO)
    with client.piped("logs", "-f", "talker") as logs:
        logs.expect("ready\n")
        with client.piped("attach", "talker") as typist:
            typist.send("a\n")
            logs.expect("got a\n")
            typist.send("b\n")
            logs.expect("got b\n")
        client("kill", "talker")
        assert logs.wait() == 0


def test_logs_of_a_terminal_are_raw(client):
    client("run", "-d", "-t", "--name", "talker", "busybox", "echo", "hello")
    client("wait", "talker")
    assert client("logs", "talker").out == "hello\r\n"


def test_attach_several_at_once(client):
    client("run", "-d", "-i", "--name", "hub", "busybox", "sh", "-c", ECHO)
    with client.piped("attach", "hub") as one, client.piped("attach", "hub") as two:
        # Neither client says when it is attached: type until each has seen something.
        deadline = time.monotonic() + patient(10)
        while not (one.text and two.text) and time.monotonic() < deadline:
            one.send("hello\n")
            one.read(0.1)
            two.read(0.1)
        two.send("from two\n")
        one.expect("got from two\n")
        two.expect("got from two\n")
        one.close_stdin()
    client("kill", "hub")


def test_attach_shows_exit_code(client):
    client("run", "-d", "-i", "--name", "hub", "busybox", "sh", "-c", "read x; echo $x; exit 6")
    with client.piped("attach", "hub") as one:
        one.send("last\n")
        one.expect("last\n")
        assert one.wait() == 6


def test_detach_keys_and_attach_again(client):
    with client.terminal("run", "-it", "--name", "tty", "busybox", "sh") as t:
        t.expect("/ # ")
        t.send("\x10\x11")
        t.wait()
    assert client("inspect", "-f", "{{.State.Running}}", "tty").out == "true\n"
    with client.terminal("attach", "--detach-keys", "ctrl-a,d", "tty") as t:
        t.send("echo he''re\n")
        t.expect("here\r\n")
        t.send("\x01d")
        t.wait()
    assert client("inspect", "-f", "{{.State.Running}}", "tty").out == "true\n"


def test_terminal_is_resized(client):
    with client.terminal("run", "-it", "--rm", "busybox", "sh") as t:
        t.expect("/ # ")
        t.resize(31, 97)
        deadline = time.monotonic() + patient(10)
        while time.monotonic() < deadline:  # the client sends the size when its own signal arrives
            t.send("stty size\n")
            if t.expect(r"\r\n(\d+ \d+|stty: .*)\r\n").group(1) == "31 97":
                break
        else:
            pytest.fail("the size never arrives")
        t.send("exit\n")
        assert t.wait() == 0


def test_ctrl_c_reaches_the_program(client):
    with client.terminal(
        "run", "-it", "--rm", "busybox", "sh", "-c", "trap 'echo caught; exit 3' INT; echo up; sleep 100 & wait"
    ) as t:
        t.expect("up")
        t.send("\x03")
        t.expect("caught")
        assert t.wait() == 3


@pytest.fixture
def box(client) -> str:
    client("run", "-d", "--name", "box", "-e", "FROM=container", "busybox", "sleep", "1000")
    return "box"


def test_exec(client, box):
    result = client("exec", box, "sh", "-c", "echo $FROM; echo err >&2; exit 8", check=False)
    assert (result.code, result.out, result.err) == (8, "container\n", "err\n")


def test_exec_options(client, box):
    script = "echo $A $(pwd) $(id -u)"
    assert client("exec", "-e", "A=b", "-w", "/etc", "-u", "nobody", box, "sh", "-c", script).out == "b /etc 65534\n"


def test_exec_stdin(client, box):
    assert client("exec", "-i", box, "wc", "-c", stdin=b"y" * 100_000).out.strip() == "100000"


def test_exec_on_a_terminal(client, box):
    with client.terminal("exec", "-it", box, "sh") as t:
        t.expect("/ # ")
        t.send("tty\n")
        t.expect(r"/dev/pts/\d+\r\n")
        t.send("exit 11\n")
        assert t.wait() == 11


def test_exec_detached(client, box):
    client("exec", "-d", box, "sh", "-c", "mkfifo /tmp/f; echo done > /tmp/f")
    assert client("exec", box, "sh", "-c", "until [ -p /tmp/f ]; do sleep 0.05; done; cat /tmp/f").out == "done\n"


@pytest.mark.parametrize(("program", "code"), [("no-such-program", 127), ("/etc", 126)])
def test_exec_of_what_cannot_run(client, box, program, code):
    assert client("exec", box, program, check=False).code == code


def test_exec_in_a_stopped_container(client):
    client("create", "--name", "idle", "busybox")
    result = client("exec", "idle", "true", check=False)
    assert result.code == 1
    assert "is not running" in result.err


def test_exec_shares_the_namespaces(client, box):
    script = "readlink /proc/self/ns/net /proc/self/ns/mnt /proc/self/ns/pid; hostname"
    inside = client("exec", box, "sh", "-c", script.replace("self", "1")).out
    assert client("exec", box, "sh", "-c", script).out == inside


@pytest.mark.ketch_only  # dockerd makes everybody wait for the slowest
def test_slow_reader_does_not_stop_others(client):
    script = "until read -t 1 x; do echo waiting; done; seq 400000; echo flooded"
    client("run", "-d", "-i", "--name", "flood", "busybox", "sh", "-c", script)
    with client.piped("attach", "--no-stdin", "flood") as slow, client.piped("attach", "flood") as starter:
        slow.expect("waiting\n")  # it is there before the flood comes
        starter.send("go\n")
        starter.expect("flooded\n", timeout=20)
        slow.expect("400000\nflooded\n", timeout=20)


@pytest.mark.ketch_only  # dockerd sends both as they come
@pytest.mark.parametrize("what", ["attach", "exec"])
def test_no_output_in_the_read_of_the_head(engine, docker_py, what):
    """A client that reads the answer's head through a buffer of its own, as docker-py does, loses nothing."""
    box = docker_py.containers.run("busybox", ["sh", "-c", "echo early; sleep 1000"], detach=True)
    with engine.docker.piped("logs", "-f", box.id) as logs:
        logs.expect("early")
    path, body = f"/containers/{box.id}/attach?stream=1&stdout=1&logs=1", b""
    if what == "exec":
        path, body = f"/exec/{docker_py.api.exec_create(box.id, ['echo', 'early'])['Id']}/start", b"{}"
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(patient(10))
        client.connect(engine.socket)
        client.sendall(
            f"POST {path} HTTP/1.1\r\nHost: x\r\nUpgrade: tcp\r\nConnection: Upgrade\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        time.sleep(0.2)  # a busy machine: the client gets no turn
        assert client.recv(8192).endswith(b"\r\n\r\n")
        assert client.recv(8192) == b"\x01\0\0\0\0\0\0\x06early\n"
