"""How output is cut into messages on connections without a terminal, and the answers' media types; as dockerd's."""

from __future__ import annotations

import contextlib
import http.client
import json

import pytest

from ketch.notation import stream_frames
from tests.support.rawapi import Api, Unix

RAW, MULTIPLEXED = "application/vnd.docker.raw-stream", "application/vnd.docker.multiplexed-stream"
UPGRADE = {"Connection": "Upgrade", "Upgrade": "tcp"}
K16 = 16 << 10
WORDS = "printf 'one\\ntwo\\n'; printf a; sleep 0.1; echo b; printf half"
LONG = "head -c 40000 /dev/zero | tr '\\0' x; echo; head -c 16384 /dev/zero | tr '\\0' y; echo"


def messages(data: bytes) -> list[tuple[int, bytes]]:
    """[(stream, text of one frame)]"""
    found = []
    while data:
        stream, length = stream_frames.HEADER.unpack_from(data)
        found.append((stream, data[8 : 8 + length]))
        data = data[8 + length :]
    return found


def ask(engine, method: str, path: str, body: object = None, **headers: str) -> tuple[int, str, bytes]:
    """(status, media type, everything up to the end of the connection)"""
    with contextlib.closing(Unix(engine.socket)) as connection:
        raw = None if body is None else json.dumps(body)
        connection.request(method, path, raw, {"Content-Type": "application/json", **headers})
        answer = http.client.HTTPResponse(connection.sock, method=method)
        answer.begin()
        text = answer.fp.read() if answer.status == 101 else answer.read()
        return answer.status, answer.headers["Content-Type"], text


@pytest.fixture
def ended(engine):
    """Runs a script in a container to its end; returns the container's path."""

    def run(script: str, **more: object) -> str:
        api = Api(engine.socket)
        made = api.must("POST", "/containers/create", {"Image": "busybox", "Cmd": ["sh", "-c", script], **more})
        path = f"/containers/{made['Id']}"
        api.must("POST", f"{path}/start")
        api.must("POST", f"{path}/wait")
        return path

    return run


@pytest.mark.parametrize("driver", ["", "json-file", "local"])
def test_a_logged_line_is_one_message(engine, docker_py, ended, driver):
    config = {"HostConfig": {"LogConfig": {"Type": driver, "Config": {}}}} if driver else {}
    words, long = ended(WORDS, **config), ended(LONG, **config)
    lines = [b"one\n", b"two\n", b"ab\n", b"half"]
    pieces = [b"x" * K16, b"x" * K16, b"x" * (40000 - 2 * K16) + b"\n", b"y" * K16, b"\n"]
    container = docker_py.containers.get(words.rpartition("/")[2])
    assert list(container.logs(stream=True)) == list(container.logs(stream=True, follow=True)) == lines
    for query, wanted in (("", lines), ("&tail=2", lines[2:]), ("&tail=0", []), ("&since=9999999999", [])):
        _, _, text = ask(engine, "GET", f"{words}/logs?stdout=1&stderr=1{query}")
        assert messages(text) == [(1, line) for line in wanted]
    _, _, text = ask(engine, "GET", f"{words}/logs?stdout=1&timestamps=1")
    assert [(message[19:20], message[31:]) for _, message in messages(text)] == [(b".", line) for line in lines]
    for path, wanted in ((words, lines), (long, pieces)):
        asked = (("GET", f"{path}/logs?stdout=1"), ("POST", f"{path}/attach?stdout=1&logs=1"))
        for method, target in asked:
            assert messages(ask(engine, method, target)[2]) == [(1, line) for line in wanted]
    _, _, text = ask(engine, "GET", f"{long}/logs?stdout=1&timestamps=1")
    assert [message[31:] for _, message in messages(text)] == pieces
    assert len({message[:30] for _, message in messages(text)[:3]}) == 1  # the time is the line's


def test_replayed_lines_of_a_running_container(engine, docker_py):
    script = "printf 'one\\ntwo\\nab\\nhalf'; sleep 1000"  # in one go: of a line in two a busy machine shows the half
    box = docker_py.containers.run("busybox", ["sh", "-c", script], detach=True)
    follower = box.logs(stream=True, follow=True)
    assert [next(follower) for _ in range(3)] == [b"one\n", b"two\n", b"ab\n"]
    with contextlib.closing(Unix(engine.socket)) as connection:
        connection.request("POST", f"/containers/{box.id}/attach?logs=1&stream=1&stdout=1", headers=UPGRADE)
        answer = http.client.HTTPResponse(connection.sock)
        answer.begin()
        assert answer.fp.read(8 + 4 + 8 + 4 + 8 + 3) == b"".join(
            stream_frames.frame(1, line) for line in (b"one\n", b"two\n", b"ab\n")
        )
        answer.close()


def test_a_terminal_has_no_stderr(engine, ended):
    path = ended("echo one; echo two >&2", Tty=True)
    assert ask(engine, "GET", f"{path}/logs?stderr=1")[1:] == (RAW, b"")
    assert ask(engine, "POST", f"{path}/attach?stderr=1&logs=1", **UPGRADE) == (101, RAW, b"")
    assert ask(engine, "POST", f"{path}/attach?stdout=1&logs=1", **UPGRADE) == (101, RAW, b"one\r\ntwo\r\n")


@pytest.mark.parametrize(("version", "kind"), [("/v1.41", RAW), ("/v1.42", MULTIPLEXED), ("", MULTIPLEXED)])
def test_media_types(engine, ended, version, kind):
    path = ended("echo one")
    framed = stream_frames.frame(1, b"one\n")
    assert ask(engine, "GET", f"{version}{path}/logs?stdout=1") == (200, kind, framed)
    attach = f"{version}{path}/attach?stdout=1&logs=1"
    assert ask(engine, "POST", attach) == (200, RAW, framed)  # the old way, and the old media type
    assert ask(engine, "POST", attach, **UPGRADE) == (101, kind, framed)
    assert ask(engine, "POST", attach, Connection="Upgrade", Upgrade="anything") == (101, kind, framed)


def test_an_exec_is_framed_as_its_start_asks(engine, docker_py):
    box = docker_py.containers.run("busybox", ["sleep", "1000"], detach=True)
    api = Api(engine.socket)

    def start(*, tty: bool, asked: bool, **streams: bool) -> tuple[int, str, bytes]:
        command = ["sh", "-c", "echo out; sleep 0.05; echo err >&2"]
        made = api.must("POST", f"/containers/{box.id}/exec", {"Cmd": command, "Tty": tty, **streams})
        return ask(engine, "POST", f"/exec/{made['Id']}/start", {"Tty": asked}, **UPGRADE)

    both = {"AttachStdout": True, "AttachStderr": True}
    out, err = stream_frames.frame(1, b"out\n"), stream_frames.frame(2, b"err\n")
    assert start(tty=False, asked=False, **both) == (101, MULTIPLEXED, out + err)
    assert start(tty=False, asked=True, **both) == (101, RAW, b"out\n")  # a terminal has no stderr
    assert start(tty=True, asked=True, **both) == (101, RAW, b"out\r\nerr\r\n")
    status, kind, text = start(tty=True, asked=False, **both)
    assert (status, kind, b"".join(part for _, part in messages(text))) == (101, MULTIPLEXED, b"out\r\nerr\r\n")
    assert start(tty=False, asked=False, AttachStderr=True) == (101, MULTIPLEXED, err)
    assert start(tty=True, asked=True, AttachStderr=True) == (101, RAW, b"")
    assert docker_py.api.exec_start(docker_py.api.exec_create(box.id, "echo hi", tty=True)["Id"]) == b"hi\r\n"
    script = "echo out; sleep 0.1; echo err >&2"
    assert list(box.exec_run(["sh", "-c", script], stream=True, demux=True).output) == [
        (b"out\n", None),
        (None, b"err\n"),
    ]


def test_what_an_exec_answers_without_running(engine, docker_py):
    box = docker_py.containers.run("busybox", ["sleep", "1000"], detach=True)
    api = Api(engine.socket)

    def create(*command: str, **more: object) -> str:
        body = {"Cmd": command, "AttachStdout": True, "AttachStderr": True, **more}
        return api.must("POST", f"/containers/{box.id}/exec", body)["Id"]

    absent = create("nope")
    ((stream, text),) = messages(ask(engine, "POST", f"/exec/{absent}/start", {}, **UPGRADE)[2])
    assert stream == 1
    assert b'exec: "nope": executable file not found in $PATH' in text
    told = f"exec command {absent} has already run"
    again = ask(engine, "POST", f"/exec/{absent}/start", {}, **UPGRADE)
    assert again == (101, MULTIPLEXED, stream_frames.frame(1, f"{told}\r\n".encode()))
    status, answer = api("POST", f"/exec/{absent}/start", {"Detach": True})
    assert (status, answer["message"]) == (409, told)
    seen = api.must("GET", f"/exec/{absent}/json")
    assert seen["CanRemove"] is False
    assert seen["ProcessConfig"] == {"tty": False, "entrypoint": "nope", "arguments": [], "privileged": False}
    # Without a terminal its size does not matter.
    for body in ({"ConsoleSize": [1]}, {"ConsoleSize": [1, 2, 3]}):
        assert ask(engine, "POST", f"/exec/{create('true')}/start", body, **UPGRADE)[0] == 101
