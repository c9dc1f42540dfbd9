"""Values that break programs, in every place of every request's body, and in paths and queries.

A longer run by hand: ``KETCH_NASTY_SHARE=1 KETCH_NASTY_START=1 pytest …/test_nasty.py`` (all replacements; what can be
made is started, too).
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
from typing import TYPE_CHECKING

import docker
import pytest

from tests.support.engines import API
from tests.support.fuzzing import nasty
from tests.support.fuzzing.contract import EXTRAS, HABITS, Contract, load_description
from tests.support.fuzzing.world import World, descriptors, resident
from tests.support.tap import Exchange
from tests.support.waiting import patient

if TYPE_CHECKING:
    from tests.support.engines import Engine

pytestmark = pytest.mark.ketch_only
SHARE = float(os.environ.get("KETCH_NASTY_SHARE", "0.02"))
SEED = int(os.environ.get("KETCH_NASTY_SEED", "1"))
START = bool(os.environ.get("KETCH_NASTY_START"))
TIMEOUT_S = patient(15)
GROWTH = 60 << 20  # of the daemon's memory, by all that it was asked


def send(engine: Engine, one: nasty.Request) -> tuple[int, str, bytes]:
    """(status, content type, what came of the body within a second)."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(TIMEOUT_S)
        sock.connect(engine.socket)
        head = f"{one.method} /v1.51{one.target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        kind = f"Content-Type: {one.kind}\r\n" if one.body else ""
        with contextlib.suppress(BrokenPipeError):  # it has answered before it had heard all
            sock.sendall(f"{head}{kind}Content-Length: {len(one.body)}\r\n\r\n".encode("ascii") + one.body)
        answer = http.client.HTTPResponse(sock, method=one.method)
        answer.begin()
        raw = "raw-stream" in answer.headers.get("Content-Type", "")
        return answer.status, answer.headers.get("Content-Type", ""), b"" if raw else answer.read()


def judge(status: int, kind: str, body: bytes) -> str:
    """What is wrong with an answer; nothing when it may be."""
    if status < 400:
        return ""
    if status >= 500 and status != 501 and b'"unclassified_argument"' not in body:
        return f"{status} {body[:300]!r}"
    try:
        good = isinstance(json.loads(body)["message"], str) and kind.startswith("application/json")
    except (ValueError, KeyError, TypeError):
        good = False
    return "" if good else f"{status} is not an error's body: {kind} {body[:300]!r}"


class Readable:
    """After a request that was taken: can what is shown now still be read by clients with types?"""

    def __init__(self) -> None:
        self._contract = Contract(load_description(), EXTRAS, HABITS)

    def __call__(self, engine: Engine, one: nasty.Request, body: bytes) -> str:
        made = json.loads(body or b"{}")
        paths = {
            "/containers/create": (f"/containers/{made.get('Id')}/json", "/containers/json?all=1"),
            "/containers/ended/update": ("/containers/ended/json",),
            "/networks/create": (f"/networks/{made.get('Id')}",),
            "/networks/net/connect": ("/containers/new/json", "/containers/json?all=1"),
            "/volumes/create": (f"/volumes/{made.get('Name')}",),
        }.get(one.target.partition("?")[0], ())
        problems = []
        for path in paths:
            status, kind, shown = send(engine, nasty.Request("GET", path))
            problems += self._contract.check(Exchange("GET", f"/v1.51{path}", status, {"content-type": kind}, shown))
        return "; ".join(p for p in problems if "no header" not in p)


@pytest.mark.timeout(3600)
def test_one_nasty_value(own_engine):
    own_engine.start()
    own_engine.add_busybox()
    failures: dict[str, str] = {}
    with contextlib.closing(docker.DockerClient(base_url=own_engine.host, version=API, timeout=patient(30))) as client:
        world = World(client)
        world.restore()
        judge_more = Readable()
        pid = own_engine.process.pid
        memory, open_now = resident(pid), descriptors(pid)
        for one in nasty.requests(SEED, SHARE):
            try:
                status, kind, body = send(own_engine, one)
                wrong = judge(status, kind, body)
            except (TimeoutError, http.client.HTTPException, ConnectionError) as e:
                status, wrong = 0, f"no answer: {e!r}"
            if START and status == 201 and one.target.startswith("/containers/create"):
                _start(own_engine, json.loads(body)["Id"], one, failures)
            if status in (200, 201) and one.method == "POST" and not wrong:
                wrong = judge_more(own_engine, one, body)
            if wrong:
                failures.setdefault(f"{one.method} {one.target.partition('?')[0][:80]}: {wrong}", repr(one)[:3000])
            assert own_engine.process.poll() is None, (one, own_engine.log())
            if one.method != "GET" and (status in (200, 201, 204, 101) or not status):
                world.restore()
        assert not failures, f"{len(failures)}:\n" + "\n\n".join(f"{w}\n    {r}" for w, r in failures.items())
        world.restore()
        assert descriptors(pid) < open_now + 20
        assert resident(pid) < memory + GROWTH
        own_engine.remove_all()
        assert own_engine.docker("ps", "-aq").out == ""
        for volume in client.volumes.list():
            volume.remove(force=True)
    # (and the fixture: no process, mount, link, cgroup or table is left)


def _start(engine: Engine, made: str, one: nasty.Request, failures: dict[str, str]) -> None:
    status, _, body = send(engine, nasty.Request("POST", f"/containers/{made}/start"))
    if status >= 500 and b"internal error" in body:
        failures.setdefault(f"start: {body[:300]!r}", repr(one)[:3000])
