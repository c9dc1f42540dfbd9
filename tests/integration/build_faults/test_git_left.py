"""A daemon that is killed while git works for a build: git ends at the next start, and nothing half-made is used."""

from __future__ import annotations

import functools
import http.server
import os
import signal
import socket
import subprocess
import threading
from urllib.parse import urlencode

import pytest

from tests.support.boxes.crash_box import running
from tests.support.building.remains import notes, until_nothing_is_half_made
from tests.support.building.requests import request
from tests.support.programs import need
from tests.support.rawapi import Api
from tests.support.waiting import patient, until

pytestmark = pytest.mark.ketch_only

CLEAN = {"PATH": os.environ["PATH"], "HOME": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
WHO = ["-c", "user.name=x", "-c", "user.email=x@example.org"]


class _Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_arguments):
        pass


@pytest.fixture
def repository(tmp_path):
    """The address of a repository whose Dockerfile makes one file."""
    git = functools.partial(subprocess.run, check=True, capture_output=True, env=CLEAN)
    work, top = tmp_path / "work", tmp_path / "top"
    work.mkdir()
    top.mkdir()
    git([need("git"), "init", "-q", "-b", "main"], cwd=work)
    (work / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /got\n")
    git([need("git"), "add", "."], cwd=work)
    git([need("git"), *WHO, "commit", "-qm", "x"], cwd=work)
    git([need("git"), "clone", "-q", "--bare", str(work), str(top / "app.git")])
    git([need("git"), "-C", str(top / "app.git"), "update-server-info"])
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Silent, directory=top)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/app.git#main"
        server.shutdown()
        thread.join()


def test_a_repository_that_is_half_made(own_engine, repository):
    own_engine.settings = {"KETCH_FAULT": "source.repository-made"}
    own_engine.start()
    assert Api(own_engine.socket)("POST", "/build", remote=repository)[0] == 0
    assert own_engine.process.wait(patient(20)) == -signal.SIGKILL
    assert notes(own_engine) != []
    own_engine.settings = {}
    own_engine.start()
    status, answer = Api(own_engine.socket)("POST", "/build", remote=repository, t="git:1")
    assert status == 200 and b"Successfully" in answer, answer
    assert notes(own_engine) == []
    until_nothing_is_half_made(own_engine)


def test_git_that_works_on(own_engine):
    """Its server does not answer."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        own_engine.start()
        port = server.getsockname()[1]
        asked = urlencode({"remote": f"http://127.0.0.1:{port}/app.git#main"})
        with request(own_engine, f"/build?{asked}", b""):
            connection, _ = server.accept()
            with connection:
                until(lambda: _gits(own_engine), "git does not run")
                left = _gits(own_engine)
                own_engine.process.send_signal(signal.SIGKILL)
                own_engine.process.wait(patient(20))
                assert [pid for pid in left if running(pid)] != [], "it ends by itself: nothing is tested"
                own_engine.start()
                until(lambda: not any(map(running, left)), "git works on for a daemon that is gone")
    until_nothing_is_half_made(own_engine)


def _gits(engine) -> list[int]:
    """The processes of git for an engine, with its helpers."""
    found = []
    mark = f"KETCH_SOURCES={engine.data_root}/".encode()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/environ", "rb") as f:
                if mark in f.read():
                    found.append(int(pid))
        except OSError:
            continue
    return found
