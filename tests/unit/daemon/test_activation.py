"""Listening sockets that a service manager passes: which there are, and what is refused."""

from __future__ import annotations

import os
import socket

import pytest

from ketch.daemon import activation
from ketch.errors import FailedPrecondition, InvalidArgument


def passed(monkeypatch: pytest.MonkeyPatch, count: str, pid: int | None = None) -> None:
    monkeypatch.setenv("LISTEN_PID", str(os.getpid() if pid is None else pid))
    monkeypatch.setenv("LISTEN_FDS", count)
    monkeypatch.setattr(activation.os, "set_inheritable", lambda _fd, _value: None)


@pytest.mark.parametrize(
    ("hosts", "expected"),
    [
        (["fd://"], ["fd://3", "fd://4"]),
        (["unix:///a", "fd://4"], ["unix:///a", "fd://4"]),
        (["tcp://127.0.0.1:1"], ["tcp://127.0.0.1:1"]),
    ],
)
def test_expanded(monkeypatch, hosts, expected):
    passed(monkeypatch, "2")
    assert activation.expanded(hosts) == expected
    assert "LISTEN_FDS" not in os.environ


@pytest.mark.parametrize(
    ("count", "pid", "host"),
    [("0", None, "fd://"), ("", None, "fd://"), ("2", 1, "fd://"), ("2", None, "fd://5"), ("1", None, "fd://x")],
)
def test_refused(monkeypatch, count, pid, host):
    passed(monkeypatch, count, pid)
    with pytest.raises(FailedPrecondition, match="the service manager has passed"):
        activation.expanded([host])


def test_sockets():
    with socket.create_server(("127.0.0.1", 0)) as server:
        with activation.passed_socket(f"fd://{os.dup(server.fileno())}", secured=False) as same:
            assert same.getsockname() == server.getsockname()
    with socket.socket() as silent, pytest.raises(InvalidArgument, match="no listening stream socket"):
        activation.passed_socket(f"fd://{os.dup(silent.fileno())}", secured=False)
    with open(os.devnull, "rb") as file, pytest.raises(InvalidArgument, match="not a socket|non-socket"):
        activation.passed_socket(f"fd://{os.dup(file.fileno())}", secured=False)


@pytest.mark.parametrize(
    ("family", "address", "local"),
    [
        (socket.AF_UNIX, "\0ketch-test-{pid}", True),
        (socket.AF_INET, "127.0.0.2", True),
        (socket.AF_INET, "0.0.0.0", False),
        (socket.AF_INET6, "::1", True),
        (socket.AF_INET6, "::", False),
    ],
)
def test_other_machines_need_tls(family, address, local):
    """As with an address that is given."""
    with socket.socket(family) as server:
        try:
            server.bind(address.format(pid=os.getpid()) if family == socket.AF_UNIX else (address, 0))
        except OSError as e:
            pytest.skip(f"{address}: {e}")
        server.listen()
        for secured in (True, False):
            host = f"fd://{os.dup(server.fileno())}"
            if secured or local:
                with activation.passed_socket(host, secured=secured) as same:
                    assert same.getsockname() == server.getsockname()
            else:
                with pytest.raises(InvalidArgument, match="refused, because without TLS"):
                    activation.passed_socket(host, secured=secured)
