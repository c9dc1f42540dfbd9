"""Private git repositories: by ssh with the client's agent or key, on loopback."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.programs import need
from tests.support.registries.registries import free_port, listens
from tests.support.waiting import until

pytest.importorskip("asyncssh")  # the server's
SERVER = "tests.support.clients.ssh_server"

pytestmark = [pytest.mark.ketch_only, pytest.mark.usefixtures("no_images_left")]


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """The address of a repository behind ssh, and the key that opens it."""
    need("ssh")
    top = tmp_path_factory.mktemp("git")
    for name in ("host", "user"):
        subprocess.run([need("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", top / name], check=True)
    work = top / "work"
    (work / "sub").mkdir(parents=True)
    (work / "sub/Dockerfile").write_text("FROM scratch\nCOPY f /f\n")

    def git(*words):
        identity = ("-c", "user.name=me", "-c", "user.email=me@example.com")
        subprocess.run([need("git"), "-C", work, *identity, *words], check=True, capture_output=True)

    git("init", "-q", "-b", "main")
    for text, branch in (("first\n", "old"), ("second\n", "new")):
        (work / "sub/f").write_text(text)
        git("add", ".")
        git("commit", "-qm", text)
        git("branch", branch)
    port = free_port()
    command = [sys.executable, "-m", SERVER, str(port), f"{top}/user.pub", f"{top}/host"]
    with subprocess.Popen(command) as server:
        try:
            until(lambda: listens(f"127.0.0.1:{port}"), "the git server does not listen")
            yield f"ssh://git@127.0.0.1:{port}{work}/.git", f"{top}/user"
        finally:
            server.terminate()


@pytest.fixture
def built(engine, tmp_path):
    """Builds; returns what is in the one file that comes out."""
    out = tmp_path / "out"

    def run(context, key):
        words = ("--ssh", f"default={key}", "-o", f"type=local,dest={out}", "--provenance=false")
        engine.docker("buildx", "build", *words, context, timeout=60)
        (found,) = (one for one in out.rglob("f") if one.is_file())
        return found.read_text()

    return run


@pytest.mark.parametrize(("branch", "text"), [("old", "first\n"), ("new", "second\n")])
def test_a_context(built, repository, branch, text):
    address, key = repository
    assert built(f"{address}#{branch}:sub", key) == text


def test_files_of_a_step(built, repository, tmp_path):
    address, key = repository
    (tmp_path / "Dockerfile").write_text(f"FROM scratch\nADD {address}#old:sub /d/\n")
    assert built(str(tmp_path), key) == "first\n"


def test_without_the_key(engine, repository, tmp_path):
    address, _ = repository
    (tmp_path / "Dockerfile").write_text(f"FROM scratch\nADD --keep-git-dir {address}#new /\n")
    done = engine.docker("buildx", "build", str(tmp_path), check=False)
    assert done.code == 1
    assert 'no SSH key "default" forwarded from the client' in done.err
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other"], check=True)
    done = engine.docker("buildx", "build", "--ssh", f"default={tmp_path}/other", str(tmp_path), check=False)
    assert done.code == 1
    assert "Permission denied" in done.err
