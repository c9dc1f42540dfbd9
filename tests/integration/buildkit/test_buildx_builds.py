"""Builds by the real ``docker build``: images, progress, failures, calls, bake, cancelling."""

from __future__ import annotations

import json
import os
import re
import signal
import uuid

import pytest

from tests.support.waiting import until

pytestmark = pytest.mark.usefixtures("no_images_left")

CONTEXT = {
    "Dockerfile": "FROM busybox\nCOPY f /f\nRUN cat /f && echo made > /made\nENV A=b\nCMD cat /made\n",
    "f": "of the context\n",
}


@pytest.fixture
def docker(engine, tmp_path):
    """Runs docker in a directory with some files."""

    def run(*words, files=CONTEXT, check=True, **environment):
        top = tmp_path / "context"
        top.mkdir(exist_ok=True)
        for name, text in files.items():
            (top / name).write_text(text)
        words = [str(top) if word == "." else word for word in words]
        return engine.docker(*words, check=check, timeout=60, **environment)

    return run


def shown(done):
    return done.out + done.err


def test_an_image(docker, engine):
    done = docker("build", "--progress=plain", "-t", "one", "--label", "l=m", ".")
    assert "[internal] load build definition from Dockerfile" in done.err
    assert "[2/3] COPY f /f" in done.err
    assert "of the context" in done.err
    assert "naming to docker.io/library/one" in done.err
    assert engine.docker("run", "--rm", "one").out == "made\n"
    assert "one" in engine.docker("images", "--format", "{{.Repository}}").out.split()
    (image,) = json.loads(engine.docker("image", "inspect", "one").out)
    assert image["Config"]["Labels"] == {"l": "m"}
    assert image["Config"]["Env"][-1] == "A=b"
    again = docker("build", "--progress=plain", "-t", "two", "--label", "l=m", ".")
    assert again.err.count("CACHED") == 2
    (other,) = json.loads(engine.docker("image", "inspect", "two").out)
    assert other["Id"] == image["Id"]


def test_its_id_alone(docker, engine):
    done = docker("build", "-q", "-t", "quiet", ".")
    assert re.fullmatch(r"sha256:[0-9a-f]{64}\n", done.out)
    assert engine.docker("image", "inspect", "--format", "{{.Id}}", "quiet").out == done.out


def test_facts_for_programs(docker, engine, tmp_path):
    docker("build", "-t", "facts", "--metadata-file", f"{tmp_path}/facts", "--iidfile", f"{tmp_path}/id", ".")
    facts = json.loads((tmp_path / "facts").read_text())
    assert facts["image.name"] == "docker.io/library/facts"
    image = engine.docker("image", "inspect", "--format", "{{.Id}}", "facts").out.strip()
    assert facts["containerimage.config.digest"] == image
    assert (tmp_path / "id").read_text() == image
    assert "buildx.build.ref" in facts


def test_events(docker):
    done = docker("build", "--progress=rawjson", ".")
    rows = [json.loads(line) for line in done.err.splitlines()]
    names = {vertex["name"] for row in rows for vertex in row.get("vertexes", ())}
    assert {"[2/3] COPY f /f", "exporting to image"} <= names
    ended = {one["digest"] for row in rows for one in row.get("vertexes", ()) if one.get("completed")}
    assert ended == {one["digest"] for row in rows for one in row.get("vertexes", ())}


FAILING = "FROM busybox\n\nRUN echo before; exit 3\nRUN true\n"


def test_a_failing_step(docker):
    done = docker("build", "--progress=plain", ".", files={"Dockerfile": FAILING}, check=False)
    assert done.code == 1
    assert "   3 | >>> RUN echo before; exit 3\n" in done.err
    message = 'process "/bin/sh -c echo before; exit 3" did not complete successfully: exit code: 3'
    assert done.err.rstrip().splitlines()[-1].endswith(f"failed to solve: {message}")


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("FROM busybox\nRUNN x\n", "   2 | >>> RUNN x", "unknown instruction: RUNN"),
        ("FROM busybox\nCOPY nothing /\n", "   2 | >>> COPY nothing /", '"/nothing": not found'),
        ("FROM localhost:1/none\n", "   1 | >>> FROM localhost:1/none", "localhost:1/none"),
    ],
)
def test_lines_of_errors(docker, text, line, message):
    done = docker("build", "--progress=plain", ".", files={"Dockerfile": text}, check=False)
    assert done.code == 1
    assert line in done.err
    assert message in done.err.rstrip().splitlines()[-1]


def test_no_dockerfile(docker, tmp_path):
    (tmp_path / "context").mkdir()
    done = docker("build", "--progress=plain", ".", files={}, check=False)
    wanted = "failed to solve: failed to read dockerfile: open Dockerfile: no such file or directory"
    assert done.err.rstrip().splitlines()[-1].endswith(wanted)


def test_warnings(docker):
    text = "FROM busybox\nARG PASSWORD=x\nCMD echo $undefined\n"
    done = docker("build", "--progress=plain", ".", files={"Dockerfile": text})
    assert (
        'WARN: SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data (ARG "PASSWORD")'
        in done.err
    )
    assert "JSONArgsRecommended" in done.err
    words = ["--build-arg", "BUILDKIT_DOCKERFILE_CHECK=skip=JSONArgsRecommended;error=true"]
    done = docker("build", "--progress=plain", *words, ".", files={"Dockerfile": text}, check=False)
    assert done.code == 1
    assert "lint violation found for rules: SecretsUsedInArgOrEnv" in done.err
    assert "JSONArgsRecommended" not in done.err


OUTLINED = """\
FROM busybox AS base
# a describes a
ARG a=1
FROM base AS last
RUN --mount=type=secret,id=s true
CMD x
"""
LINES = {"ranges": [{"start": {"line": 3}, "end": {"line": 3}}]}


def test_calls(docker):
    def call(name, *words, check=True):
        return docker("build", f"--call={name}", *words, ".", files={"Dockerfile": OUTLINED}, check=check)

    assert "JSONArgsRecommended" in shown(docker("build", "--check", ".", files={"Dockerfile": OUTLINED}, check=False))
    assert re.search(r"^last \(default\)", call("targets").out, re.MULTILINE)
    targets = json.loads(call("targets,format=json").out)["targets"]
    assert [(one["name"], one["base"], one.get("default", False)) for one in targets] == [
        ("base", "busybox", False),
        ("last", "base", True),
    ]
    assert re.search(r"^a +1 +describes a$", call("outline").out, re.MULTILINE)
    outline = json.loads(call("outline,format=json", "--target=base").out)
    assert outline["args"] == [{"name": "a", "description": "describes a", "value": "1", "location": LINES}]
    assert {"outline", "targets"} <= set(call("subrequests.describe").out.split())


def test_bake(docker, engine, tmp_path):
    target = f"""
group "default" {{ targets = ["top"] }}
target "base" {{ context = "{tmp_path}/context" }}
target "top" {{
  matrix = {{ number = ["1", "2"] }}
  name = "top-${{number}}"
  context = "{tmp_path}/context"
  contexts = {{ below = "target:base" }}
  dockerfile-inline = "FROM below\\nARG number\\nRUN echo $number > /number\\nCMD cat /made /number\\n"
  args = {{ number = number }}
  tags = ["baked:${{number}}"]
}}
"""
    (tmp_path / "docker-bake.hcl").write_text(target)
    docker("buildx", "bake", "-f", f"{tmp_path}/docker-bake.hcl", BUILDX_BAKE_ENTITLEMENTS_FS="0")
    for number in ("1", "2"):
        assert engine.docker("run", "--rm", f"baked:{number}").out == f"made\n{number}\n"


def test_compose(docker, engine, tmp_path):
    (tmp_path / "compose.yaml").write_text(
        "name: composed\nservices:\n  one:\n    build: context\n    image: composed-one\n"
        "  two:\n    build:\n      context: context\n      args: {x: y}\n"
    )
    docker("version")
    docker("compose", "-f", f"{tmp_path}/compose.yaml", "build")
    assert engine.docker("run", "--rm", "composed-one").out == "made\n"
    assert engine.docker("run", "--rm", "composed-two").out == "made\n"


def begun(engine, top, text):
    """A build of a Dockerfile, under way."""
    top.mkdir()
    (top / "Dockerfile").write_text(text)
    return engine.docker.piped("build", "--progress=plain", str(top))


WAITING = """\
FROM busybox
RUN --mount=type=cache,id={key},target=/c touch /c/{me}; until test -e /c/{other}; do sleep 0.05; done
"""


def test_two_at_once(engine, tmp_path):
    """Each waits for the other."""
    key = uuid.uuid4()
    with (
        begun(engine, tmp_path / "a", WAITING.format(key=key, me="a", other="b")) as one,
        begun(engine, tmp_path / "b", WAITING.format(key=key, me="b", other="a")) as two,
    ):
        assert (one.wait(60), two.wait(60)) == (0, 0), one.text + two.text


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGKILL])
def test_a_client_that_goes(engine, tmp_path, kind):
    number = uuid.uuid4().int % 10**6 + 100_000
    with begun(engine, tmp_path / "a", f"FROM busybox\nRUN echo it; sleep {number}\n") as build:
        until(lambda: sleeping(number), lambda: build.text)
        build.signal(kind)
        assert build.wait() != 0
    until(lambda: not sleeping(number), "the step's command goes on")


def sleeping(number):
    """Whether the command of a step runs."""
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                if file.read() == b"sleep\0%d\0" % number:
                    return True
        except OSError:
            continue
    return False
