"""`ketch build` and what it hands over, against a server that knows nothing but the form of requests and answers."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import socket
import stat
import tarfile
import threading
from typing import Any

import pytest
from aiohttp import web

from ketch.api import peer_fds
from ketch.api.connection import Server
from ketch.cli import main
from ketch.errors import KetchError

NOW = "2026-01-01T00:00:00Z"


def archive(files: dict[str, bytes]) -> bytes:
    to = io.BytesIO()
    with tarfile.open(fileobj=to, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return to.getvalue()


class Daemon:
    """Answers each build with what it found in the directories, and each output with an archive of one file."""

    def __init__(self) -> None:
        self.forbids = False
        self.fails = False
        self.asked: list[dict[str, Any]] = []
        self.found: list[dict[str, list[str]]] = []

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/_ping":
            return web.Response(headers={"Server": "Ketch"})
        if request.path == "/ketch/descriptors":  # an older one
            return web.json_response({"message": "page not found"}, status=404)
        wanted = json.loads(await request.content.readline())
        self.asked.append(wanted)
        try:
            directories = {name: await self._directory(request, where) for name, where in wanted["directories"].items()}
            outputs = [self._output(request, row["to"]) for row in wanted["outputs"]]
        except KetchError as e:
            return web.json_response({"message": e.message, "kind": e.kind}, status=403)
        self.found.append(directories)
        answer = web.StreamResponse()
        await answer.prepare(request)
        for line in [*self._lines(), *(line for number, fd in enumerate(outputs) for line in self._bytes(number, fd))]:
            await answer.write(json.dumps(line).encode() + b"\n")
        await answer.write(json.dumps(self._end(wanted)).encode() + b"\n")
        return answer

    async def _directory(self, request: web.BaseRequest, where: str) -> list[str]:
        if where.startswith("fd:"):
            fd = peer_fds.taken(request, f"{where}0" if self.forbids else where)  # another inode's number
            try:
                return sorted(os.listdir(fd))
            finally:
                os.close(fd)
        data = await request.content.read()
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            return sorted(tar.getnames())

    def _output(self, request: web.BaseRequest, to: str) -> int | None:
        return peer_fds.taken(request, to) if to.startswith("fd:") else None

    def _lines(self) -> list[dict[str, Any]]:
        step = {"digest": "a", "name": "[1/1] COPY . /", "started": NOW}
        log = {"vertex": "a", "data": base64.b64encode(b"hello\n").decode(), "timestamp": NOW}
        error = {"error": "no"} if self.fails else {}
        return [
            {"status": {"vertexes": [step]}},
            {"status": {"logs": [log]}},
            {"status": {"vertexes": [{**step, "completed": NOW, **error}]}},
            {"explain": [{"name": "[1/1] COPY . /", "reason": "a file changed", "details": ["changed: x"]}]},
        ]

    def _bytes(self, number: int, fd: int | None) -> list[dict[str, Any]]:
        data = archive({"result": b"content"})
        if fd is None:
            pieces = [data[at : at + 4000] for at in range(0, len(data), 4000)]
            return [{"output": {"index": number, "data": base64.b64encode(piece).decode()}} for piece in pieces]
        with open(fd, "wb") as f:
            f.write(data)
        return []

    def _end(self, wanted: dict[str, Any]) -> dict[str, Any]:
        if self.fails:
            return {
                "error": {"message": "step failed", "kind": "failure", "hint": "mend it", "excerpt": "Dockerfile:1"}
            }
        if wanted["call"] == "build":
            return {"result": {"image": "sha256:1234", "metadata": {"image.name": "app"}}}
        facts = {"result.json": '{"a":1}', "result.txt": "some text", "result.statuscode": "1"}
        return {"result": {"metadata": facts}}


@pytest.fixture
def daemon(tmp_path, monkeypatch):
    """(the daemon, its address on a unix socket, its address over TCP); we are in an empty directory."""
    for name in ("DOCKER_CONFIG", "HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    one, path, loop = Daemon(), str(tmp_path / "socket"), asyncio.new_event_loop()
    with socket.create_server(("127.0.0.1", 0)) as tcp:

        async def begin() -> Server:
            server = Server(one.handle)
            await loop.create_unix_server(server, path)
            await loop.create_server(server, sock=tcp)
            return server

        server = loop.run_until_complete(begin())
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        try:
            yield one, f"unix://{path}", f"tcp://127.0.0.1:{tcp.getsockname()[1]}"
        finally:
            asyncio.run_coroutine_threadsafe(server.shutdown(1), loop).result()
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()


def context() -> None:
    for name, text in (("Dockerfile", "FROM scratch\n"), ("kept", ""), ("dropped", ""), (".dockerignore", "dropped\n")):
        with open(name, "w") as f:
            f.write(text)


def place_of(fd: str) -> str:
    """The path of a descriptor of ours; that of the directory that was listed is gone by now."""
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except FileNotFoundError:
        return ""


def build(host: str, *words: str) -> int:
    return main.run(["-H", host, "build", *words])


def test_a_local_context_is_handed_over(daemon, capsys):
    one, host, _ = daemon
    context()
    words = ["-q", "--iidfile", "id", "--metadata-file", "facts", "--build-context", "more=/proc/self"]
    assert build(host, *words, ".") == 0
    assert capsys.readouterr().out == "sha256:1234\n"
    assert one.found[0]["context"] == [".dockerignore", "Dockerfile", "dropped", "kept"]
    assert "status" in one.found[0]["more"] and one.asked[0]["contexts"] == {"more": "local:more"}
    with open("id") as f, open("facts") as g:
        assert f.read() == "sha256:1234" and json.load(g) == {"image.name": "app"}
    assert [fd for fd in os.listdir("/proc/self/fd") if place_of(fd) == os.getcwd()] == []


@pytest.mark.parametrize("why", ["over TCP", "forbidden"])
def test_elsewhere_it_is_sent(daemon, capsys, why):
    one, local, remote = daemon
    context()
    one.forbids = why == "forbidden"
    assert build(local if one.forbids else remote, "-q", ".") == 0
    assert one.found == [{"context": ["0", "0/.dockerignore", "0/Dockerfile", "0/kept"]}]
    assert len(one.asked) == (2 if one.forbids else 1)


@pytest.mark.parametrize("which", [1, 2], ids=["unix", "tcp"])
def test_outputs(daemon, capfd, which):
    """Into a directory, a file and standard output; of a build that failed nothing is left."""
    one, host = daemon[0], daemon[which]
    context()
    os.mkfifo("pipe")
    reader = os.open("pipe", os.O_RDONLY | os.O_NONBLOCK)
    words = ["--progress=plain", "-o", "deep/dir", "-o", "type=tar,dest=new/file.tar", "-o", "-"]
    assert build(host, *words, "-o", "type=oci,dest=pipe", ".") == 0
    assert os.read(reader, 1 << 16).startswith(b"result\0") and stat.S_ISFIFO(os.stat("pipe").st_mode)
    os.close(reader)
    shown = capfd.readouterr()
    assert shown.err.startswith("#0 building with ketchd") and "#1 0.000 hello\n#1 DONE 0.0s\n" in shown.err
    with open("deep/dir/result") as f, tarfile.open("new/file.tar") as tar:
        assert f.read() == "content" and tar.getnames() == ["result"]
    assert shown.out.startswith("result\0")
    assert sorted(os.listdir("new")) == ["file.tar"]
    one.fails = True
    assert build(host, "--explain", "-o", "type=oci,dest=another.tar", ".") == 1
    shown = capfd.readouterr()
    assert shown.err.endswith(
        "\nSteps that were not cached:\n  [1/1] COPY . /\n    a file changed\n      changed: x\n"
        "Dockerfile:1\nketch: step failed\n  mend it\n"
    )
    assert not [name for name in os.listdir(".") if "another" in name]


def test_evaluations(daemon, capsys):
    one, host, _ = daemon
    context()
    assert build(host, "--check", ".") == 1
    assert capsys.readouterr().out == "some text\n"
    assert build(host, "--call=outline,format=json", ".") == 1
    assert capsys.readouterr().out == '{"a":1}\n'
    assert [asked["call"] for asked in one.asked] == ["check", "outline"]


def test_what_breaks_off(daemon, capsys):
    one, host, _ = daemon
    context()
    one._end = lambda _wanted: {"status": {}}  # type: ignore[method-assign]
    assert build(host, ".") == 1
    assert "broke off before the build had ended" in capsys.readouterr().err
