"""The connection to systemd: what a bus may answer; one that breaks off, is silent, or talks nonsense."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import TYPE_CHECKING

import jeepney
import pytest
from jeepney.low_level import HeaderFields, Parser

from ketch.errors import RuntimeFailure
from ketch.runtime.cgroups.systemd import bus, scopes, state
from tests.support.waiting import patient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Answer = Callable[[socket.socket, list[jeepney.Message]], None]

_JOB = jeepney.DBusAddress("/org/freedesktop/systemd1", interface="org.freedesktop.systemd1.Manager")
_OK = b"OK 0123\r\n"


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Answer], None]]:
    """A function that has the next connection's calls, three of a start, answered by another one."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "bus"))
    listener.listen()
    monkeypatch.setattr(bus, "_BUS", str(tmp_path / "bus"))
    monkeypatch.setattr(bus, "_PRIVATE", str(tmp_path / "nothing"))
    threads: list[threading.Thread] = []

    def serve(answer: Answer) -> None:
        def work() -> None:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(ConnectionError):
                parser, calls, data = Parser(), [], b""
                while b"BEGIN\r\n" not in data:
                    data += connection.recv(65536)
                calls += parser.feed(data.partition(b"BEGIN\r\n")[2])
                while not calls or calls[-1].header.fields[HeaderFields.member] not in (
                    "StartTransientUnit",
                    "StopUnit",
                ):
                    calls += parser.feed(connection.recv(65536))
                answer(connection, calls)
                connection.recv(1)  # the client ends first

        threads.append(threading.Thread(target=work))
        threads[-1].start()

    yield serve
    for thread in threads:
        thread.join(patient(10))
        assert not thread.is_alive()
    listener.close()


def _reply(call: jeepney.Message, signature: str = "", values: tuple[object, ...] = ()) -> bytes:
    return jeepney.new_method_return(call, signature or None, values).serialise(serial=50)


def _removed(unit: str, result: str) -> bytes:
    return jeepney.new_signal(_JOB, "JobRemoved", "uoss", (7, "/job/7", unit, result)).serialise(serial=51)


def test_a_start_ends_with_its_job(served):
    """The signal may come before the answer, and those of other units do not count."""

    def answer(connection, calls):
        names = [call.header.fields[HeaderFields.member] for call in calls]
        assert names == ["Hello", "AddMatch", "StartTransientUnit"]
        early = _removed("other.scope", "failed") + _removed("a.scope", "done")
        data = _OK + _reply(calls[0], "s", (":1.7",)) + early + _reply(calls[1]) + _reply(calls[2], "o", ("/job/7",))
        for at in range(0, len(data), 7):  # in pieces
            connection.sendall(data[at : at + 7])

    served(answer)
    assert scopes.start("a.scope", [("Delegate", ("b", True))])


@pytest.mark.parametrize(
    ("name", "found"),
    [("org.freedesktop.systemd1.UnitExists", False), ("org.freedesktop.DBus.Error.AccessDenied", None)],
)
def test_a_start_that_is_refused(served, name, found):
    """A name that is taken is an answer, everything else an error with systemd's words."""

    def answer(connection, calls):
        error = jeepney.new_error(calls[2], name, "s", ("the reason",)).serialise(serial=52)
        connection.sendall(_OK + _reply(calls[0], "s", (":1.7",)) + _reply(calls[1]) + error)

    served(answer)
    if found is None:
        with pytest.raises(RuntimeFailure, match=r"start unit `a\.scope`: the reason"):
            scopes.start("a.scope", [])
    else:
        assert scopes.start("a.scope", []) is found


def test_a_job_that_failed(served):
    def answer(connection, calls):
        data = _OK + _reply(calls[0], "s", (":1.7",)) + _reply(calls[1]) + _reply(calls[2], "o", ("/job/7",))
        connection.sendall(data + _removed("a.scope", "failed"))

    served(answer)
    with pytest.raises(RuntimeFailure, match="its job ended as `failed`"):
        scopes.start("a.scope", [])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"REJECTED EXTERNAL\r\n", "it does not know this user"),
        (_OK + b"nonsense, and more of it", "not a D-Bus message"),
        (_OK + b"l\x02\x00\x01\xff\xff\xff\x7f" + bytes(8), "too long"),
    ],
)
def test_a_bus_that_talks_nonsense(served, data, words):
    served(lambda connection, _: connection.sendall(data))
    with pytest.raises(RuntimeFailure, match=words):
        scopes.stop("a.scope")


def test_a_bus_that_breaks_off(served):
    def answer(connection, calls):
        connection.sendall(_OK + _reply(calls[0], "s", (":1.7",))[:20])
        connection.shutdown(socket.SHUT_WR)

    served(answer)
    with pytest.raises(RuntimeFailure, match="it ended the connection"):
        scopes.stop("a.scope")


def test_a_bus_that_is_silent(served, monkeypatch):
    monkeypatch.setattr(scopes, "_STOP_S", 0.1)
    served(lambda connection, calls: None)
    with pytest.raises(RuntimeFailure, match=r"no answer within 0\.1 s"):
        scopes.stop("a.scope")


def test_a_bus_that_tells_of_everything_but_the_answer(served, monkeypatch):
    monkeypatch.setattr(scopes, "_STOP_S", 0.1)

    def answer(connection, calls):
        connection.sendall(_OK + _reply(calls[0], "s", (":1.7",)))
        for _ in range(60):
            connection.sendall(_removed("other.scope", "done"))
            time.sleep(0.01)
        connection.sendall(_reply(calls[1]))

    served(answer)
    with pytest.raises(RuntimeFailure, match=r"no answer within 0\.1 s"):
        scopes.stop("a.scope")


def test_jobs_of_others_are_not_waited_for_without_end(served, monkeypatch):
    monkeypatch.setattr(scopes, "_JOB_S", 0.1)

    def answer(connection, calls):
        connection.sendall(_OK + _reply(calls[0], "s", (":1.7",)) + _reply(calls[1]))
        connection.sendall(_reply(calls[2], "o", ("/job/7",)))
        connection.sendall(jeepney.new_signal(_JOB, "JobRemoved").serialise(serial=51))  # nobody's
        for _ in range(60):
            connection.sendall(_removed("other.scope", "done"))
            time.sleep(0.01)
        connection.sendall(_removed("a.scope", "done"))

    served(answer)
    with pytest.raises(RuntimeFailure, match=r"its job has not ended within 0\.1 s"):
        scopes.start("a.scope", [])


def test_no_bus_at_all(tmp_path, monkeypatch):
    for name in ("_BUS", "_PRIVATE"):
        monkeypatch.setattr(bus, name, str(tmp_path / "nothing"))
    with pytest.raises(RuntimeFailure, match="connect to systemd: .*no such file") as caught:
        scopes.stop("a.scope")
    assert "cgroupfs" in (caught.value.hint or "")


@pytest.mark.parametrize(("said", "found"), [("stopping", True), ("degraded", False)])
def test_whether_systemd_stops_everything(tmp_path, monkeypatch, said, found):
    """It is asked on its own socket, and not before it has answered the authentication: it would not look."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "private"))
    listener.listen()
    listener.settimeout(patient(10))
    monkeypatch.setattr(bus, "_PRIVATE", str(tmp_path / "private"))
    monkeypatch.setattr(state, "_BOOTED", str(tmp_path))
    seen: list[object] = []

    def work() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(patient(10))
            data = b""
            while b"BEGIN\r\n" not in data:
                data += connection.recv(65536)
            connection.sendall(b"DATA\r\n" + _OK)
            parser, calls = Parser(), []
            while not calls:
                calls = list(parser.feed(connection.recv(65536)))
            seen.extend((data.endswith(b"BEGIN\r\n"), calls[0].header.fields[HeaderFields.member], calls[0].body))
            connection.sendall(_reply(calls[0], "v", (("s", said),)))

    server = threading.Thread(target=work)
    server.start()
    try:
        assert state.stopping() is found
    finally:
        server.join(patient(10))
        listener.close()
    assert seen == [True, "Get", ("org.freedesktop.systemd1.Manager", "SystemState")]


def test_without_systemd_nothing_is_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(state, "_BOOTED", str(tmp_path / "nothing"))
    assert state.stopping() is False
