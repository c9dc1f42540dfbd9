"""`ketch build` of files that another front end reads: an image that their first line names."""

from __future__ import annotations

import json
import os

import pytest

from tests.support.building import frontend_image

pytestmark = [pytest.mark.usefixtures("no_images_left"), pytest.mark.ketch_only]


@pytest.fixture(scope="module")
def front(engine):
    """The front end, an image of the engine."""
    changes = [
        f"ENTRYPOINT {json.dumps(frontend_image.COMMAND)}",
        *(f"ENV {one}" for one in frontend_image.ENVIRONMENT),
    ]
    flags = [word for one in changes for word in ("-c", one)]
    engine.ketch("import", *flags, "-", "front:1", stdin=frontend_image.archive(), timeout=60)
    yield "front:1"
    engine.ketch("rmi", "front:1")


@pytest.fixture
def build(engine, front, tmp_path):
    """A function that builds a context; gives the exit code, what was shown, and the files."""
    context, out = tmp_path / "context", tmp_path / "out"
    context.mkdir()
    (context / "a").write_text("of the context")
    (context / "left.o").write_text("")

    def run(text, *words, do="recipe", ignore=""):
        (context / "Dockerfile").write_text(text)
        (context / ".dockerignore").write_text(ignore)
        words = ["--progress", "plain", "--build-arg", f"do={do}", *words, str(context)]
        done = engine.ketch("build", "-o", f"type=local,dest={out}", *words, check=False, timeout=60)
        found = {name: (out / name).read_text() for name in os.listdir(out)} if out.exists() else {}
        return done.code, done.out + done.err, found

    return run


def test_the_image_reads_the_file(build):
    text = "# syntax=front:1 and more\nwhatever it likes\n"
    code, shown, found = build(text)
    assert code == 0, shown
    assert (found["recipe"], found["a"]) == (text, "of the context")
    assert "[frontend] front:1" in shown
    assert "CACHED" in build(text)[1]


def test_an_image_of_it(engine, build, tmp_path):
    (tmp_path / "context/Dockerfile").write_text("whatever\nit likes\n")
    words = ["--build-arg", "do=recipe", "--build-arg", "BUILDKIT_SYNTAX=front:1 x", "-t", "fronted:1"]
    engine.ketch("build", *words, "--label", "l=v", str(tmp_path / "context"), timeout=60)
    labels = json.loads(engine.ketch("image", "inspect", "fronted:1").out)[0]["Config"]["Labels"]
    assert labels["cmdline"] == "front:1 x"
    assert {"label:l", "filename", "build-arg:do", "source"} <= set(labels["options"].split())
    assert "build-arg:BUILDKIT_SYNTAX" not in labels["options"]
    [row] = json.loads(engine.ketch("image", "inspect", "fronted:1").out)
    assert row["RepoTags"] == ["fronted:1"]
    engine.ketch("rmi", "fronted:1")


def test_calls_are_its_own(build):
    code, shown, _ = build("# syntax=front:1\nany\n", "--call", "outline")
    assert code == 0 and shown.startswith("frontend.outline"), shown


def test_failures(engine, build):
    code, shown, _ = build("# syntax=front:1\nfail\n")
    assert code == 1
    assert '"/none": not found' in shown and ">>> fail" in shown
    code, shown, _ = build("# syntax=front:1\nany\n", do="error")
    assert code == 1 and "it cannot be done" in shown
    code, shown, _ = build("# syntax=front:1\nany\n", do="silence")
    assert code == 1
    assert "front:1 ended without a result: exit code: 0" in shown and ">>> # syntax=front:1" in shown
    assert "nothing to say" in shown
    code, shown, _ = build("FROM scratch\n", "--build-arg", "BUILDKIT_SYNTAX=127.0.0.1:1/none")
    assert code == 1 and "failed with build-arg:BUILDKIT_SYNTAX = 127.0.0.1:1/none" in shown


def test_the_engine_s_own_front_end_reads_its_own(engine, build):
    code, shown, found = build("# syntax=docker/dockerfile:1.99-labs\nFROM scratch\nCOPY a /b\n")
    assert (code, found) == (0, {"b": "of the context"}), shown
