"""Descriptors of a client's process that a request names: taken, and refused."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys

import pytest
from aiohttp import web

from ketch.api import peer_fds
from ketch.api.connection import Server
from ketch.errors import InvalidArgument, KetchError, PermissionDenied, Unavailable
from ketch.storage import peer_descriptors
from ketch.storage.peer_descriptors import PeerDescriptor


def name_of(fd: int) -> str:
    status = os.fstat(fd)
    return f"fd:{fd}:{status.st_dev}:{status.st_ino}"


async def names_in(request: web.BaseRequest) -> web.StreamResponse:
    """The names in the directory that the path means, or the error's kind."""
    try:
        fd = peer_fds.taken(request, request.query["fd"])
    except KetchError as e:
        return web.Response(text=e.kind)
    try:
        return web.Response(text=" ".join(os.listdir(fd)) + f" inherited={os.get_inheritable(fd)}")
    finally:
        os.close(fd)


async def ask(family: int, where, handed: str) -> str:
    reader, writer = await (
        asyncio.open_unix_connection(where) if family == socket.AF_UNIX else asyncio.open_connection(*where)
    )
    writer.write(f"GET /?fd={handed} HTTP/1.0\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    return answer.partition(b"\r\n\r\n")[2].decode()


async def test_over_the_api(tmp_path):
    """A directory that only the client knows; over TCP, and of wrong texts, nothing is taken."""
    loop, server = asyncio.get_running_loop(), Server(names_in)
    path = str(tmp_path / "socket")
    hidden = tmp_path / "context"
    hidden.mkdir()
    fd = os.open(hidden, os.O_RDONLY | os.O_DIRECTORY)
    (hidden / "found").touch()
    hidden.rename(tmp_path / "renamed")
    over_unix = await loop.create_unix_server(server, path)
    over_tcp = await loop.create_server(server, "127.0.0.1")
    try:
        assert await ask(socket.AF_UNIX, path, name_of(fd)) == "found inherited=False"
        for text in ("5", "fd:x:1:1", f"{name_of(fd)}x", "fd:9999999999:1:1"):
            assert await ask(socket.AF_UNIX, path, text) == "invalid_argument"
        assert await ask(socket.AF_INET, over_tcp.sockets[0].getsockname(), name_of(fd)) == "permission_denied"
    finally:
        over_unix.close()
        over_tcp.close()
        await server.shutdown(1)
        os.close(fd)


CLIENT = """
import os, socket, sys
sock = socket.socket(socket.AF_UNIX)
sock.connect(sys.argv[1])
fd = os.open(sys.argv[2], os.O_RDONLY)
status = os.fstat(fd)
print(fd, status.st_dev, status.st_ino, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def client(tmp_path):
    """(our end of the connection, what the client says of its descriptor, the client)."""
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        command = [sys.executable, "-c", CLIENT, path, str(tmp_path)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            connection, _ = listener.accept()
            with connection:
                yield connection, PeerDescriptor(*map(int, process.stdout.readline().split())), process
            process.stdin.close()


@pytest.mark.parametrize("old_kernel", [False, True])
def test_of_another_process(client, tmp_path, monkeypatch, old_kernel):
    connection, wanted, process = client
    if old_kernel:  # an option that no kernel knows
        monkeypatch.setattr(peer_descriptors, "_SO_PEERPIDFD", 9999)
    before = set(os.listdir("/proc/self/fd"))
    fd = peer_descriptors.take(connection, wanted)
    assert os.path.samestat(os.fstat(fd), os.stat(tmp_path))
    os.close(fd)
    with pytest.raises(InvalidArgument, match="none of that number"):
        peer_descriptors.take(connection, wanted._replace(number=1000))
    with pytest.raises(PermissionDenied, match="another object"):
        peer_descriptors.take(connection, wanted._replace(inode=wanted.inode + 1))
    process.stdin.close()
    process.wait()
    with pytest.raises(Unavailable, match="ended"):
        peer_descriptors.take(connection, wanted)
    assert set(os.listdir("/proc/self/fd")) <= before, "nothing is left open"
