"""Caches that Ketch and dockerd, by buildx, write for each other: in registries, and within images."""

from __future__ import annotations

import contextlib

import pytest

from tests.support.engines import Engine
from tests.support.registries import registries

pytestmark = [pytest.mark.ketch_only, pytest.mark.timeout(120)]

# The same base for both: `FROM scratch` and a program of the context.
DOCKERFILE = """\
FROM scratch AS tools
COPY busybox /bin/sh
FROM tools AS made
COPY text /text
RUN ["/bin/sh", "-c", "read -r id </proc/sys/kernel/random/uuid; echo $id >/id"]
FROM tools
COPY --from=made /text /id /
RUN ["/bin/sh", "-c", "read -r id </proc/sys/kernel/random/uuid; echo $id >/own"]
"""


@pytest.fixture(scope="module")
def containerd():
    """A dockerd whose images are containerd's: the only kind that writes caches to registries.

    It is in the tests' network, where the registries are, and leaves that as it is.
    """
    one = Engine("dockerd", suffix="c")
    one.extra += ["--feature", "containerd-snapshotter=true"]
    one.extra += ["--bridge=none", "--iptables=false", "--ip6tables=false"]
    with one.running():
        yield one


@pytest.fixture(scope="module", params=["ours", "registry"])
def registry(request):
    """A registry of each kind."""
    with getattr(registries, request.param)() as one:
        yield one


@pytest.fixture
def context(tmp_path):
    with open("/bin/busybox", "rb") as program:
        (tmp_path / "busybox").write_bytes(program.read())
    (tmp_path / "busybox").chmod(0o755)
    (tmp_path / "text").write_text(f"of {tmp_path}\n")
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    return tmp_path


def built(engine, context, *words):
    """The build's progress, and the files that it left."""
    out = context / "out"
    engine.docker("buildx", "prune", "-af", timeout=60)
    words = ("buildx", "build", "--progress=plain", "--provenance=false", "--network=none", *words)
    done = engine.docker(*words, "-o", f"type=local,dest={out}", str(context), timeout=60)
    found = tuple((out / name).read_text() for name in ("text", "id", "own"))
    with contextlib.suppress(FileNotFoundError):
        (out / "id").unlink()
    return done.err, found


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("writer", ["ketch", "dockerd"])
def test_in_a_registry(engine, containerd, registry, context, writer, mode):
    first, second = (engine, containerd) if writer == "ketch" else (containerd, engine)
    place = f"type=registry,ref={registry.host}/{context.name}:cache"
    _, made = built(first, context, "--cache-to", f"{place},mode={mode}")
    progress, found = built(second, context, "--cache-from", place)
    assert found == made, progress
    assert progress.count("CACHED") >= (4 if mode == "max" else 1), progress
    assert built(first, context, "--cache-from", place)[1] == made
    assert built(second, context)[1] != made


@pytest.mark.parametrize("writer", ["ketch", "dockerd"])
def test_within_an_image(engine, containerd, registry, context, writer):
    first, second = (engine, containerd) if writer == "ketch" else (containerd, engine)
    name = f"{registry.host}/{context.name}:inline"
    words = ("--cache-to", "type=inline", "-o", f"type=image,name={name},push=true")
    _, made = built(first, context, *words)
    first.docker("rmi", "-f", name, check=False)
    _, found = built(second, context, "--cache-from", f"type=registry,ref={name}")
    assert found[2] == made[2]


@pytest.mark.parametrize("writer", ["ketch", "dockerd"])
def test_in_a_directory(engine, containerd, context, writer):
    first, second = (engine, containerd) if writer == "ketch" else (containerd, engine)
    place = context.parent / f"{context.name}-cache"
    _, made = built(first, context, "--cache-to", f"type=local,dest={place},mode=max")
    assert built(second, context, "--cache-from", f"type=local,src={place}")[1] == made
