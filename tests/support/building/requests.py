"""Requests of builds whose client may go away, and what is told of builds."""

from __future__ import annotations

import base64
import contextlib
import json
import os
from typing import TYPE_CHECKING

from tests.support.rawapi import Api, connected
from tests.support.waiting import patient

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from tests.support.engines import Engine


@contextlib.contextmanager
def request(engine: Engine, path: str, body: bytes, *, length: int = 0) -> Iterator[socket.socket]:
    """A request whose client goes away where the block ends; ``length``: what it says of its body."""
    with connected(engine.socket) as sock:
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-tar\r\n"
        sock.sendall(f"{head}Content-Length: {length or len(body)}\r\n\r\n".encode() + body)
        sock.settimeout(patient(20))
        yield sock


def heard(sock: socket.socket, text: bytes) -> bytes:
    """Read the answer until it has a text."""
    data = b""
    while text not in data:
        piece = sock.recv(1 << 16)
        assert piece, data
        data += piece
    return data


def own(text: str, **fields: object) -> bytes:
    """The body of `POST /ketch/build`, of a build without a context."""
    line = {"dockerfile": {"data": base64.b64encode(text.encode()).decode()}, **fields}
    return json.dumps(line).encode() + b"\n"


def states(engine: Engine) -> list[str]:
    """What became of the last builds, the newest first."""
    return [row["status"] for row in Api(engine.socket).must("GET", "/ketch/builds")]


class Gate:
    """A cache mount that commands wait in for a file, and write a log to: its option, and the words that wait."""

    mount = "--mount=type=cache,id=gate,target=/gate,sharing=shared"
    wait = "while ! test -e /gate/go; do usleep 20000; done"

    def __init__(self, engine: Engine) -> None:
        self._root = os.path.join(engine.data_root, "builder", "mounts")

    def _file(self, name: str) -> str:
        for one in os.listdir(self._root):
            with open(os.path.join(self._root, one, "record.json"), encoding="utf-8") as f:
                if json.load(f)["key"][0].endswith("gate"):
                    return os.path.join(self._root, one, "files", name)
        raise FileNotFoundError("no command has begun")

    def log(self) -> str:
        """What commands have written."""
        with contextlib.suppress(OSError), open(self._file("log"), encoding="ascii") as f:
            return f.read()
        return ""

    def go(self) -> None:
        """Let them go on."""
        with open(self._file("go"), "w", encoding="ascii"):
            pass
