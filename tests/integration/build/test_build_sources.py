"""Builds by `ketch build` and the old API whose files come from elsewhere: registries, the web, git, layouts, links."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.support.programs import need
from tests.support.rawapi import Api
from tests.support.registries import made_images as made
from tests.support.registries.registries import registry

pytestmark = pytest.mark.usefixtures("no_images_left")

WHO = {f"GIT_{who}_{what}": "someone@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def web(tmp_path_factory):
    """A directory that is served, and its address."""
    top = tmp_path_factory.mktemp("www")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(top))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield top, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def context(tmp_path):
    """A function that makes a context with a Dockerfile, and gives its path."""

    def make(dockerfile, **files):
        top = tmp_path / "context"
        shutil.rmtree(top, ignore_errors=True)
        top.mkdir()
        (top / "Dockerfile").write_text(dockerfile)
        for name, text in files.items():
            (top / name).write_text(text)
        return str(top)

    return make


@pytest.fixture
def build(engine, tmp_path):
    """A function that builds and gives the files of the result, and what was shown."""

    def run(*words):
        out = tmp_path / "out"
        shutil.rmtree(out, ignore_errors=True)
        shown = engine.ketch("build", "--progress", "plain", "-o", str(out), *words)
        files = {str(p.relative_to(out)): p.read_text() for p in sorted(out.rglob("*")) if p.is_file()}
        return files, shown.out + shown.err

    return run


@pytest.fixture
def refused(engine):
    """A function that builds in vain, and gives what was said."""

    def run(*words):
        done = engine.ketch("build", "--progress", "plain", *words, check=False)
        assert done.code, done.out
        return done.err

    return run


def test_base_images(engine, build, refused, context):
    with registry() as one:
        base = made.image({"a": b"base"}, {"b": b"upper"})
        made.put(one.host, "base", base, "1")
        path = context(f"FROM {one.host}/base:1\nCOPY c /\n", c="own")
        files, shown = build(path)
        assert files == {"a": "base", "b": "upper", "c": "own"}
        assert f"resolve {one.host}/base:1@{base.digest}" in shown
        assert all(f"{layer}" in shown for layer in base.layers)
        assert one.host not in engine.ketch("images", "-a").out
        assert "CACHED" in build(path)[1]
        code, _ = Api(engine.socket)("POST", "/build", made.tar({"Dockerfile": f"FROM {one.host}/base:1\n".encode()}))
        assert code == 200
        assert f"{one.host}/base" in engine.ketch("images").out
        engine.ketch("rmi", f"{one.host}/base:1")
        missing = f"{one.host}/none:1"
        said = refused(context(f"FROM {missing}\n"))
    assert f"{missing}: failed to resolve source metadata for {missing}: {missing}: not found" in said
    assert "connection refused" in refused(context("FROM 127.0.0.1:1/x:1\n"))


def test_the_web(build, refused, context, web):
    top, url = web
    (top / "file").write_text("from the web")
    (top / "packed.tar").write_bytes(made.tar({"in/side": b"packed"}))
    digest = "sha256:" + hashlib.sha256(b"from the web").hexdigest()
    path = context(
        f"FROM scratch\nADD {url}/file /x/\nADD --checksum={digest} {url}/file /y\nADD {url}/packed.tar /z/\n"
    )
    files, _ = build(path)
    assert (files["x/file"], files["y"]) == ("from the web", "from the web")
    assert "z/packed.tar" in files
    assert build(path)[1].count("CACHED") == 3
    wrong = context(f"FROM scratch\nADD --checksum=sha256:{'0' * 64} {url}/file /x/\n")
    assert f"digest mismatch {digest}: sha256:{'0' * 64}" in refused(wrong)
    assert "invalid response status 404" in refused(context(f"FROM scratch\nADD {url}/none /x/\n"))


def test_git(engine, build, context, web):
    top, url = web
    git = partial(
        subprocess.run, check=True, capture_output=True, env={"PATH": os.environ["PATH"], "HOME": "/dev/null", **WHO}
    )
    work = top / "work"
    work.mkdir()
    git([need("git"), "init", "-q", "-b", "main"], cwd=work)
    (work / "sub").mkdir()
    (work / "sub" / "file").write_text("committed")
    (work / "Dockerfile").write_text("FROM scratch\nCOPY sub /got\n")
    git([need("git"), "add", "."], cwd=work)
    git([need("git"), "commit", "-qm", "x"], cwd=work)
    git([need("git"), "clone", "-q", "--bare", str(work), str(top / "app.git")])
    git([need("git"), "-C", str(top / "app.git"), "update-server-info"])
    path = context(f"FROM scratch\nADD {url}/app.git#main:sub /x/\n")
    assert build(path)[0] == {"x/file": "committed"}
    assert "CACHED" in build(path)[1]
    assert build(f"{url}/app.git#main")[0] == {"got/file": "committed"}
    code, answer = Api(engine.socket)("POST", "/build", remote=f"{url}/app.git", q="1")
    assert code == 200, answer
    rows = Api(engine.socket).must("GET", "/system/df?type=build-cache")["BuildCache"]
    [kept] = [row for row in rows if row["Description"] == f"shared git repo for {url}/app.git"]
    assert (kept["Type"], kept["InUse"], kept["Size"] > 100) == ("source.git.checkout", False, True)
    done = engine.ketch("builder", "prune", "-f", "--filter", f"id={kept['ID']}")
    assert kept["ID"] in done.out
    assert build(f"{url}/app.git#main")[0] == {"got/file": "committed"}


def test_layouts(build, context, tmp_path):
    image = made.image({"a": b"in the layout"})
    blobs = tmp_path / "layout" / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    for data in (image.data, *image.blobs.values()):
        (blobs / hashlib.sha256(data).hexdigest()).write_bytes(data)
    path = context("FROM scratch\nCOPY --from=other /a /b\n")
    place = f"other=oci-layout://{tmp_path}/layout@{image.digest}"
    assert build("--build-context", place, path)[0] == {"b": "in the layout"}
    path = context("FROM other AS one\nCOPY <<E /told\n$PATH\nE\nFROM scratch\nCOPY --from=one /told /\n")
    assert build("--build-context", place, path)[0] == {"told": "/bin\n"}  # its configuration


def test_links_do_not_lead_out_of_a_context(build, refused, context, tmp_path):
    (tmp_path / "secret").write_text("not for builds")
    for text, link, target in (
        ("COPY out/secret /x", "out", str(tmp_path)),
        ("COPY out/secret /x", "out", ".."),
        ("COPY out /x", "out", "../secret"),
    ):
        path = context(f"FROM scratch\n{text}\n")
        os.symlink(target, os.path.join(path, link))
        assert "not found" in refused(path)
    path = context("FROM scratch\nCOPY . /x/\n")
    os.symlink(str(tmp_path / "secret"), os.path.join(path, "link"))
    assert build(path)[0].keys() == {"x/Dockerfile", "x/link"} or "x/link" not in build(path)[0]


def test_files_change_between_builds(build, context):
    path = context("FROM scratch\nCOPY . /x/\n", a="one", b="same")
    assert build(path)[0] == {"x/Dockerfile": "FROM scratch\nCOPY . /x/\n", "x/a": "one", "x/b": "same"}
    for text in ("two", "six", "ten"):  # as long as before, at once
        with open(os.path.join(path, "a"), "w", encoding="ascii") as f:
            f.write(text)
        assert build(path)[0]["x/a"] == text
    os.unlink(os.path.join(path, "a"))
    os.mkdir(os.path.join(path, "a"))
    assert build(path)[0].keys() == {"x/Dockerfile", "x/b"}
