"""Commits of git repositories as sources, from real servers on loopback."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
import threading
from contextlib import ExitStack
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ketch.build.cache.maps import Checkout, git_map
from ketch.build.sources.git_program import end_left
from ketch.build.sources.git_remote import GitRemote
from ketch.build.sources.kept.repositories import GitRepositories
from ketch.build.sources.kept.stores import SourceStores
from ketch.errors import Conflict, InvalidArgument, NotFound, Unavailable
from tests.support.building.sources import SourceBox, SourceWork
from tests.support.programs import need
from tests.support.registries.registries import free_port
from tests.support.waiting import patient, until

WHO = {f"GIT_{who}_{what}": "someone@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
CLEAN = {"PATH": os.environ["PATH"], "HOME": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1", **WHO}


class Repository:
    """A repository with a work tree, below the directory that is served."""

    def __init__(self, top, name):
        self.path = top / name
        self.path.mkdir()
        self.git("init", "-q", "-b", "main")

    def git(self, *arguments):
        done = subprocess.run(
            [need("git"), "-c", "protocol.file.allow=always", *arguments],
            cwd=self.path,
            env=CLEAN,
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()

    def commit(self, **files):
        for name, text in files.items():
            path = self.path / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.git("add", "-A")
        self.git("commit", "-q", "-m", "a change")
        return self.git("rev-parse", "HEAD")


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """(the directory that git daemon serves, its host and port)."""
    top, port = tmp_path_factory.mktemp("served"), free_port()
    command = [need("git"), "daemon", "--export-all", "--listen=127.0.0.1", f"--port={port}", f"--base-path={top}"]
    with subprocess.Popen([*command, "--reuseaddr", str(top)], env=CLEAN, start_new_session=True) as daemon:

        def listens():
            with socket.socket() as one:
                return one.connect_ex(("127.0.0.1", port)) == 0

        try:
            until(listens, "git daemon listens")
            yield top, f"127.0.0.1:{port}"
        finally:
            os.killpg(daemon.pid, 9)


@pytest.fixture(scope="module")
def repository(served):
    """A repository with two commits, a branch, tags, a link out and a script."""
    made = Repository(served[0], "app.git")
    made.first = made.commit(a="one", d__b="below")
    made.git("tag", "light")
    made.git("tag", "-a", "annotated", "-m", "x")
    made.git("branch", "same")
    (made.path / "run").write_text("#!/bin/sh\n")
    (made.path / "run").chmod(0o755)
    os.symlink("/etc", made.path / "out")
    made.second = made.commit(a="two")
    made.git("tag", "same")
    return made


@pytest.fixture
def box(tmp_path):
    return SourceBox(tmp_path)


@pytest.fixture
def source(box, served, repository):
    """A function that runs a source with a part of the repository."""
    address = f"{served[1]}/app.git"

    def run(part="", work=None, **attrs):
        return box.run(f"git://{address}{part}", work, git_fullurl=f"git://{address}", **attrs)

    return run


def names(top):
    return sorted(one.name for one in top.iterdir())


def test_default_branch(source, repository):
    maps, layer = source()
    assert maps == [git_map(Checkout(repository.second, ref="refs/heads/main"))]
    assert names(layer) == ["a", "d", "out", "run"]
    assert (layer / "a").read_text() == "two"
    assert os.readlink(layer / "out") == "/etc"
    modes = [(layer / name).stat(follow_symlinks=False).st_mode & 0o7777 for name in ("a", "d", "run")]
    assert modes == [0o644, 0o755, 0o755]


@pytest.mark.parametrize("ref", ["light", "annotated", "refs/tags/light", "refs/heads/same", "same", "COMMIT"])
def test_references(source, repository, ref):
    part = repository.first if ref == "COMMIT" else ref
    maps, layer = source(f"#{part}")
    assert maps == [git_map(Checkout(repository.first))]
    assert names(layer) == ["a", "d"]


def test_directories(source, repository):
    maps, layer = source("#main:d/")
    assert maps == [git_map(Checkout(repository.second, "d"))]
    assert names(layer) == ["b"]
    assert source("#main:../../d/.")[0] == maps
    for wrong in ("none", "a", "out", "out/ssh"):
        with pytest.raises(NotFound, match=f"failed to open subdir {wrong}: no such directory"):
            source(f"#main:{wrong}")


def test_the_repository_is_kept_when_asked_for(source, repository, served):
    maps, layer = source("#main", git_keepgitdir="true")
    assert maps == [git_map(Checkout(repository.second, keep=True, ref="refs/heads/main"))]
    git = [need("git"), "-C", str(layer)]
    shown = subprocess.run([*git, "log", "--format=%H %D"], env=CLEAN, check=True, capture_output=True, text=True)
    assert shown.stdout.startswith(repository.second)
    assert "HEAD -> main" in shown.stdout
    status = subprocess.run([*git, "status", "--short"], env=CLEAN, check=True, capture_output=True, text=True)
    assert status.stdout == ""
    assert f"url = git://{served[1]}/app.git" in (layer / ".git/config").read_text()
    maps, layer = source("#annotated", git_keepgitdir="true")
    assert maps == [git_map(Checkout(repository.first, keep=True, ref="refs/tags/annotated"))]


def test_kept_repositories_are_counted_and_removed(box, source, repository, tmp_path):
    source("#light")
    source("#same")
    [kept] = box.kept.repositories.records()
    assert kept.description.startswith("shared git repo for git://127.0.0.1:")
    assert (kept.kind, kept.usage_count >= 2, kept.in_use) == ("source.git.checkout", True, False)
    assert box.kept.repositories.size(kept.name) > 100
    again = SourceStores(str(tmp_path / "sources"), lambda remove: remove()).repositories
    assert again.records() == [kept]

    async def in_use():
        async with box.kept.repositories.of(GitRemote.of(kept.description.rpartition(" ")[2]), None):
            assert box.kept.repositories.records()[0].in_use
            assert await box.kept.repositories.remove(kept.name) == -1
        return await box.kept.repositories.remove(kept.name)

    assert asyncio.run(in_use()) > 100
    assert box.kept.repositories.records() == [] == os.listdir(tmp_path / "sources" / "git")
    assert (source("#light")[1] / "a").exists()


def test_a_branch_that_moves(source, repository):
    repository.git("branch", "moving", repository.first)
    assert source("#moving")[0] == [git_map(Checkout(repository.first))]
    repository.git("branch", "-f", "moving", repository.second)
    maps, layer = source("#moving")
    assert maps == [git_map(Checkout(repository.second))]
    assert (layer / "a").read_text() == "two"


def test_a_branch_that_moves_between_key_and_fetch(box, served, repository):
    repository.git("branch", "-f", "racing", repository.first)
    address = f"{served[1]}/app.git"
    operation = box.operation(f"git://{address}#racing", git_fullurl=f"git://{address}")
    work = SourceWork(box.client)
    asyncio.run(operation.cache_maps(work))
    repository.git("branch", "-f", "racing", repository.second)
    with pytest.raises(Conflict, match="refs/heads/racing of .* moved while it was fetched"):
        asyncio.run(operation.run(work, ()))
    assert list(box.layers.root.iterdir()) == []


def test_checksums(source, repository):
    assert source("#main", git_checksum=repository.second[:10].upper())[0] == [git_map(Checkout(repository.second))]
    with pytest.raises(
        InvalidArgument, match=f"expected checksum to match {repository.first}, got {repository.second}"
    ):
        source("#main", git_checksum=repository.first)
    with pytest.raises(InvalidArgument, match="invalid checksum"):
        source("#main", git_checksum="-x")


def test_submodules(box, served):
    top, host = served
    inner, outer = Repository(top, "inner.git"), Repository(top, "outer.git")
    inner.commit(inside="x")
    outer.commit(own="y", part__file="z")
    outer.git("-c", "protocol.allow=always", "submodule", "add", "-q", "../inner.git", "part/sub")
    outer.commit(more="w")
    address = f"{host}/outer.git"
    layer = box.run(f"git://{address}", git_fullurl=f"git://{address}")[1]
    assert names(layer) == [".gitmodules", "more", "own", "part"]
    assert names(layer / "part" / "sub") == ["inside"]
    assert names(box.run(f"git://{address}#main:part", git_fullurl=f"git://{address}")[1]) == ["file", "sub"]
    skipped = box.run(f"git://{address}", git_fullurl=f"git://{address}", git_skipsubmodules="true")[1]
    assert names(skipped / "part" / "sub") == []
    assert os.listdir(box.layers.root.parent / "sources" / "tmp") == []


def test_a_submodule_cannot_name_a_directory_of_this_machine(box, served, tmp_path):
    hidden, outer = Repository(tmp_path, "hidden"), Repository(served[0], "sneaky.git")
    hidden.commit(secret="x")
    outer.commit(own="y")
    outer.git("submodule", "add", "-q", str(hidden.path), "sub")
    outer.commit(more="w")
    with pytest.raises(Unavailable, match=r"(?s)failed to update submodules.*transport 'file' not allowed"):
        box.run(f"git://{served[1]}/sneaky.git", git_fullurl=f"git://{served[1]}/sneaky.git")
    assert list(box.layers.root.iterdir()) == []


def test_nothing_of_a_repository_is_run(box, served, tmp_path, monkeypatch):
    """Neither hooks of the machine's template nor filters of root's settings, whatever attributes say."""
    mark = tmp_path / "mark"
    home = tmp_path / "home"
    (home / "templates" / "hooks").mkdir(parents=True)
    hook = home / "templates" / "hooks" / "post-checkout"
    hook.write_text(f"#!/bin/sh\ntouch {mark}\n")
    hook.chmod(0o755)
    settings = f'[init]\n templateDir = {home}/templates\n[filter "x"]\n smudge = touch {mark}; cat\n'
    (home / ".gitconfig").write_text(settings)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_TEMPLATE_DIR", str(home / "templates"))
    outer = Repository(served[0], "filtered.git")
    outer.commit(**{".gitattributes": "* filter=x\n", "f": "x"})
    for keep in ("true", "false"):
        box.run(f"git://{served[1]}/filtered.git", git_fullurl=f"git://{served[1]}/filtered.git", git_keepgitdir=keep)
    assert not mark.exists()


class _Handler(SimpleHTTPRequestHandler):
    def do_GET(self):
        self.server.seen.append(self.headers.get("Authorization"))
        super().do_GET()

    def log_message(self, *_):
        pass


@pytest.fixture
def web(tmp_path, repository):
    """A plain server of files, as repositories were published before git had a protocol for the web."""
    subprocess.run(
        [need("git"), "clone", "-q", "--bare", str(repository.path), str(tmp_path / "www" / "app.git")],
        env=CLEAN,
        check=True,
    )
    subprocess.run([need("git"), "-C", str(tmp_path / "www/app.git"), "update-server-info"], env=CLEAN, check=True)

    def handler(*arguments):
        return _Handler(*arguments, directory=str(tmp_path / "www"))

    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.seen = []
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_the_web_with_secrets(box, web, repository):
    host = f"127.0.0.1:{web.server_port}"
    attrs = {"git_authheadersecret": "GIT_AUTH_HEADER", "git_authtokensecret": "GIT_AUTH_TOKEN"}
    box.client.secrets = {"GIT_AUTH_TOKEN": b"abc", f"GIT_AUTH_HEADER.{host}": b"basic xyz\n"}
    maps, layer = box.run(f"git://{host}/app.git", git_fullurl=f"http://{host}/app.git", **attrs)
    assert maps == [git_map(Checkout(repository.second))]
    assert names(layer) == ["a", "d", "out", "run"]
    assert set(web.seen) == {"basic xyz"}
    web.seen.clear()
    del box.client.secrets[f"GIT_AUTH_HEADER.{host}"]
    box.run(f"git://{host}/app.git#light", git_fullurl=f"http://{host}/app.git", **attrs)
    assert set(web.seen) == {"basic eC1hY2Nlc3MtdG9rZW46YWJj"}


def test_errors(box, source, served):
    host = served[1]
    with pytest.raises(NotFound, match="repository does not contain ref none: git://"):
        source("#none")
    with pytest.raises(NotFound, match="repository does not contain ref --upload-pack=x: git://"):
        source("#--upload-pack=x")
    with pytest.raises((NotFound, Unavailable)):
        source(f"#{'a' * 40}")
    with pytest.raises(
        Unavailable, match=f"error fetching default branch for repository git://{host}/none.git: git stderr:\n"
    ):
        box.run(f"git://{host}/none.git", git_fullurl=f"git://{host}/none.git")
    with pytest.raises(Unavailable, match="transport 'ext' not allowed|error fetching default branch"):
        box.run("git://x", git_fullurl="ext::sh -c true".replace(" ", "%20"))
    with pytest.raises(InvalidArgument, match="invalid address of a git repository"):
        box.operation("git://x", git_fullurl="https://x/a b")
    with pytest.raises(NotFound, match='no SSH key "default" forwarded from the client'):
        source("#main", git_mountsshsock="default")
    assert list(box.layers.root.iterdir()) == []


def test_ssh_with_the_agent_of_the_client(box, served, repository, tmp_path, monkeypatch):
    """The program ssh is a script that notes how it was started, and does what the other side's would."""
    program = tmp_path / "bin" / "ssh"
    program.parent.mkdir()
    script = 'printf "%s\\n" "$SSH_AUTH_SOCK" "$@" >> {note}\nfor last; do :; done\nexec sh -c "$last"\n'
    program.write_text("#!/bin/sh\n" + script.format(note=tmp_path / "note"))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    box.client.agents["default"] = "/run/agent.sock"
    address = f"git@localhost:{repository.path}"
    attrs = {"git_fullurl": address, "git_mountsshsock": "default"}
    maps, layer = box.run("git://localhost/app.git", **attrs)
    assert maps == [git_map(Checkout(repository.second, ref="refs/heads/main"))]
    assert names(layer) == ["a", "d", "out", "run"]
    words = (tmp_path / "note").read_text().splitlines()
    assert words[0] == "/run/agent.sock"
    assert {"-F", "/dev/null", "BatchMode=yes", "StrictHostKeyChecking=no", "git@localhost"} <= {*words}
    (tmp_path / "note").unlink()
    box.run("git://localhost/app.git#light", git_knownsshhosts="localhost ssh-ed25519 AAAA", **attrs)
    words = (tmp_path / "note").read_text().splitlines()
    assert any(word.startswith("UserKnownHostsFile=/") for word in words)
    assert "StrictHostKeyChecking=no" not in words


def test_passwords_are_not_shown(box, web):
    address = f"http://user:secret@127.0.0.1:{web.server_port}/none.git"
    work = SourceWork(box.client)
    with pytest.raises(Unavailable) as caught:
        box.run("git://x", work, git_fullurl=address)
    assert re.search("user:(xxxxx|<redacted>)@", caught.value.message)
    assert "secret" not in caught.value.message
    assert b"secret" not in work.output


def test_addresses():
    assert GitRemote.of("github.com/a/b.git") == GitRemote("https://github.com/a/b.git")
    assert GitRemote.of("git@host:a/b.git").host == "host"
    assert GitRemote.of("ssh://git@host:22/a").host == "host:22"
    assert GitRemote.of("https://u:p@host/a").shown == "https://u:xxxxx@host/a"


# -- what a killed daemon leaves -----------------------------------------------------------------


def test_repositories_that_were_half_made(box, source, tmp_path):
    """One has its name when it is whole; locks, indexes and packs that a killed git left are removed."""
    assert (source()[1] / "a").read_text() == "two"
    [kept] = (tmp_path / "sources" / "git").iterdir()
    left = [kept / "shallow.lock", kept / "index-0123456789abcdef.lock", kept / "objects" / "pack" / "tmp_pack_x"]
    for path in left:
        path.write_text("")
    half = kept.parent / ".new-0123456789abcdef"
    half.mkdir()
    box.sources._repositories = GitRepositories(str(kept.parent), lambda remove: remove())
    assert (source("#light")[1] / "a").read_text() == "one"
    assert [path for path in (*left, half) if path.exists()] == []


def test_runs_that_a_killed_daemon_left(tmp_path):
    """They are ended with their helpers, and those of another daemon go on."""
    with ExitStack() as stack:
        ours, theirs = [
            stack.enter_context(
                subprocess.Popen(
                    ["sh", "-c", "sleep 100 & echo; wait"], stdout=subprocess.PIPE, env={**CLEAN, "KETCH_SOURCES": root}
                )
            )
            for root in (f"{tmp_path}/git", f"{tmp_path}-other/git")
        ]
        for process in (ours, theirs):
            stack.callback(process.kill)
            process.stdout.readline()
        end_left(str(tmp_path))
        assert ours.wait(patient(10)) == -9
        assert ours.stdout.read() == b""  # its helper had it, too
        assert theirs.poll() is None
        end_left(f"{tmp_path}-other")
