"""Containers and execs in one request: a connection has the output, the end, and is the life of what it started."""

from __future__ import annotations

import contextlib
import json
import socket
from typing import TYPE_CHECKING, Any

import pytest

from ketch.notation import stream_frames
from tests.support.rawapi import Api, connected
from tests.support.waiting import patient, until

if TYPE_CHECKING:
    from collections.abc import Iterator


class Upgraded:
    """A connection that a request has taken over."""

    def __init__(self, sock: socket.socket, head: str, rest: bytes) -> None:
        self.sock, self.head, self.rest = sock, head, rest

    def id_of(self, header: str) -> str:
        return self.head.partition(f"{header}: ")[2].partition("\r\n")[0]

    def read_to_the_end(self, piece: int = 1 << 16) -> tuple[dict[int, bytes], list[int]]:
        """What came on each stream, and in which order."""
        data = self.rest
        while more := self.sock.recv(piece):
            data += more
        found, order = {1: b"", 2: b"", 3: b""}, []
        while data:
            stream, length = stream_frames.HEADER.unpack(data[:8])
            found[stream] += data[8 : 8 + length]
            order.append(stream)
            data = data[8 + length :]
        return found, order

    def ending(self) -> dict[str, Any]:
        return json.loads(self.read_to_the_end()[0][3])


def _request(path: str, body: dict[str, Any], *headers: str) -> bytes:
    payload = json.dumps(body).encode()
    lines = (
        f"POST {path} HTTP/1.1",
        "Host: localhost",
        *headers,
        "Content-Type: application/json",
        f"Content-Length: {len(payload)}",
    )
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + payload


@contextlib.contextmanager
def upgraded(engine, path: str, body: dict[str, Any]) -> Iterator[Upgraded]:
    with connected(engine.socket) as sock:
        sock.settimeout(patient(20))
        sock.sendall(_request(path, body, "Connection: Upgrade", "Upgrade: tcp"))
        data = b""
        while b"\r\n\r\n" not in data:
            more = sock.recv(1 << 16)
            assert more, data
            data += more
        head, _, rest = data.partition(b"\r\n\r\n")
        yield Upgraded(sock, head.decode() + "\r\n", rest)


def box(*cmd: str, remove: bool = True, log: str = "local", **fields: Any) -> dict[str, Any]:
    host = {"AutoRemove": remove, "NetworkMode": "none", "LogConfig": {"Type": log}}
    return {"Image": "busybox", "Cmd": list(cmd), "HostConfig": host} | fields


def state(engine, ident: str) -> str:
    status, answer = Api(engine.socket)("GET", f"/containers/{ident}/json")
    return answer["State"]["Status"] if status == 200 else "removed"


READS = {"OpenStdin": True, "StdinOnce": True, "AttachStdin": True}


def test_a_run(engine):
    """Input, both outputs, the exit code as the last; the connection ends when the container is gone."""
    with upgraded(engine, "/ketch/run", box("sh", "-c", "cat; echo e >&2; exit 3", **READS)) as run:
        assert run.head.startswith("HTTP/1.1 101 ")
        ident = run.id_of("Ketch-Container")
        until(lambda: state(engine, ident) == "running", "it runs")
        run.sock.sendall(b"input")
        run.sock.shutdown(socket.SHUT_WR)
        found, order = run.read_to_the_end()
        assert state(engine, ident) == "removed"
    assert (found[1], found[2], order[-1], order.count(3)) == (b"input", b"e\n", 3, 1)
    ending = json.loads(found[3])
    assert (ending["ExitCode"], ending["OOMKilled"]) == (3, False)
    assert 0 < ending["StartedAt"] < ending["FinishedAt"] < ending["StartedAt"] + patient(20) * 1e9


@pytest.mark.parametrize("log", ["local", "json-file", "none"])
def test_the_end_comes_behind_all_output(engine, log):
    """Also for a client that is slow, and gets the output out of a log, or out of the monitor's buffer."""
    body = box("sh", "-c", "head -c 3000000 /dev/zero; exit 4", log=log)
    with upgraded(engine, "/ketch/run", body) as run:
        run.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        if log != "none":  # such a program waits for its reader
            until(lambda: state(engine, run.id_of("Ketch-Container")) != "running", "the container ends")
        found, order = run.read_to_the_end(10_000)
    assert (len(found[1]), order[-1], json.loads(found[3])["ExitCode"]) == (3_000_000, 3, 4)


def test_a_program_that_cannot_be_started(engine):
    """The end says why; nothing is left."""
    for name, code, kind in (("nope", 127, "program_not_found"), ("/etc/passwd", 126, "program_not_executable")):
        with upgraded(engine, "/ketch/run", box(name)) as run:
            ending = run.ending()
            assert (ending["ExitCode"], ending["Error"]["kind"]) == (code, kind)
            assert name in ending["Error"]["message"]
            assert state(engine, run.id_of("Ketch-Container")) == "removed"


def test_a_client_that_goes(engine):
    """What it has started is killed, and removed if it was to be."""
    for remove, left in ((True, "removed"), (False, "exited")):
        for script in ("sleep 1000", "yes"):
            with upgraded(engine, "/ketch/run", box("sh", "-c", script, remove=remove)) as run:
                ident = run.id_of("Ketch-Container")
            until(lambda: state(engine, ident) == left, f"the container is {left}")  # noqa: B023


def test_execs(engine):
    """The same of commands in a container; one that is left is killed with what it has started."""
    engine.docker("run", "-d", "--name", "box", "busybox", "sleep", "1000")
    path = "/ketch/containers/box/exec"
    streams = {"AttachStdin": True, "AttachStdout": True, "AttachStderr": True, "Adopts": True}
    with upgraded(engine, path, {"Cmd": ["sh", "-c", "cat; echo e >&2; exit 5"], **streams}) as run:
        run.sock.sendall(b"input")
        run.sock.shutdown(socket.SHUT_WR)
        found, order = run.read_to_the_end()
        assert Api(engine.socket).must("GET", f"/exec/{run.id_of('Ketch-Exec')}/json")["ExitCode"] == 5
    assert (found[1], found[2], order[-1], json.loads(found[3])["ExitCode"]) == (b"input", b"e\n", 3, 5)
    with upgraded(engine, path, {"Cmd": ["nope"], **streams}) as run:
        ending = run.ending()
    assert (ending["ExitCode"], ending["Error"]["kind"]) == (127, "program_not_found")
    with upgraded(engine, path, {"Cmd": ["sh", "-c", "sleep 1001 & (setsid sleep 1002 &) ; sleep 1003"], **streams}):
        until(lambda: engine.docker("top", "box").out.count("sleep 100") >= 4, "all of them run")
    until(lambda: engine.docker("top", "box").out.count("sleep 100") == 1, "the container's own one is left")
    engine.docker("rm", "-f", "box")


def test_one_that_stays(engine):
    """Made and started: an ordinary answer, on a connection that is used again; what cannot be started is removed."""
    api = Api(engine.socket)
    for remove in (True, False):
        made = api.must("POST", "/ketch/start", box("sleep", "1000", remove=remove), name="back")
        assert state(engine, "back") == "running"
        api.must("DELETE", f"/containers/{made['Id']}", force=1)
        status, answer = api("POST", "/ketch/start", box("nope", remove=remove), name="back")
        assert (status, answer["kind"], state(engine, "back")) == (400, "program_not_found", "removed")
    made = api.must("POST", "/ketch/start", box("sh", "-c", "exit 3", remove=False), name="back")
    until(lambda: state(engine, made["Id"]) == "exited", "the program ends at once")
    api.must("DELETE", f"/containers/{made['Id']}")


def test_a_client_that_half_closes(engine):
    """It is there, and is answered."""
    with connected(engine.socket) as sock:
        sock.settimeout(patient(20))
        sock.sendall(_request("/ketch/start?name=half", box("sleep", "1000", remove=False)))
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(1 << 16).startswith(b"HTTP/1.1 201")
    Api(engine.socket).must("DELETE", "/containers/half", force=1)


def test_what_is_refused(engine):
    """Before anything is made."""
    api = Api(engine.socket)
    engine.docker("run", "-d", "--name", "box", "busybox", "sleep", "1000")
    before = api.must("GET", "/containers/json", all=1)
    upgrade = "takes the connection over"
    for path, body, status, word in (
        ("/ketch/run", box("true"), 400, upgrade),
        ("/ketch/containers/box/exec", {"Cmd": ["true"]}, 400, upgrade),
        ("/ketch/run", box("true") | {"Image": "none-such"}, 400, upgrade),
    ):
        assert (answer := api("POST", path, body))[0] == status
        assert word in answer[1]["message"]
    for path, body, words in (
        ("/ketch/run", box("true", Tty=True), ("HTTP/1.1 400", "terminal")),
        ("/ketch/run", box("true") | {"Image": "none-such"}, ("HTTP/1.1 404", "none-such")),
        ("/ketch/containers/box/exec", {"Cmd": ["true"], "Tty": True}, ("HTTP/1.1 400", "terminal")),
        ("/ketch/containers/none/exec", {"Cmd": ["true"]}, ("HTTP/1.1 404", "none")),
    ):
        with upgraded(engine, path, body) as run:
            assert run.head.startswith(words[0])
            assert words[1] in run.rest.decode()
    assert [one["Id"] for one in api.must("GET", "/containers/json", all=1)] == [one["Id"] for one in before]
    engine.docker("rm", "-f", "box")
