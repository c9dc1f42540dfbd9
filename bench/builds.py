"""Measurements of builds: steps, many small files, large ones, stages beside each other, commit, memory.

``ketch build`` beside ``docker buildx build`` (BuildKit in dockerd), on the same directories; the old API through the
docker client on both.
"""

from __future__ import annotations

import os
import random
import shutil
import time
from typing import TYPE_CHECKING

from tests.support.rawapi import Api

from bench import measures
from bench.images import memory

if TYPE_CHECKING:
    from tests.support.engines import Engine

FILES = 20_000
LARGE_BYTES = 500 << 20
CONTEXT_BYTES = 2 << 30
COMMITTED_MIB = 200
_TWELVE = """FROM busybox
WORKDIR /app
COPY requirements /app/
RUN mkdir -p /app/lib && cp requirements lib/
RUN echo 1 > lib/one
RUN echo 2 > lib/two
ENV MODE=production
RUN echo 3 > lib/three
COPY source /app/source
RUN cat source/main > lib/main
RUN rm -rf lib/one
CMD ["cat", "/app/lib/main"]
"""
_STAGES = """FROM busybox AS one
RUN sleep 2; echo {key} > /one
FROM busybox AS two
RUN sleep 2; echo {key} > /two
FROM busybox
COPY --from=one /one /
COPY --from=two /two /
"""


class Context:
    """A directory that is built, with the time of the last change in it made unlike all before."""

    def __init__(self, root: str, name: str, dockerfile: str) -> None:
        self.path = os.path.join(root, f"build-{name}")
        self.name = name
        os.mkdir(self.path)
        self.write("Dockerfile", dockerfile)

    def write(self, name: str, text: str) -> None:
        """Write a file of the context."""
        path = os.path.join(self.path, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)

    def fill(self, name: str, size: int) -> None:
        """Write a file that cannot be compressed."""
        source = random.Random(7)
        with open(os.path.join(self.path, name), "wb") as f:
            for _ in range(size >> 20):
                f.write(source.randbytes(1 << 20))

    def build(self, engine: Engine, *options: str) -> float:
        """Seconds of a build by the engine's own best client."""
        client = engine.ketch if engine.kind == "ketch" else engine.docker
        verb = ["build"] if engine.kind == "ketch" else ["buildx", "build"]
        command = [*verb, "-q", "-t", f"bench-{self.name}", *options, self.path]
        begin = time.perf_counter()
        client(*command, timeout=300)
        return time.perf_counter() - begin

    def build_by_old_api(self, engine: Engine, *options: str) -> float:
        """Seconds of a build by the docker client without BuildKit."""
        command = ["build", "-q", "-t", f"bench-old-{self.name}", *options, self.path]
        begin = time.perf_counter()
        engine.docker(*command, timeout=300, DOCKER_BUILDKIT="0")
        return time.perf_counter() - begin

    def remove(self) -> None:
        """Remove the directory."""
        shutil.rmtree(self.path)


def forget(engine: Engine) -> None:
    """Remove the images of builds and the cache."""
    names = engine.docker("images", "-q", "--filter", "reference=bench-*").out.split()
    if names:
        engine.docker("rmi", "-f", *sorted(set(names)))
    status, answer = Api(engine.socket)("POST", "/build/prune?all=1", timeout=120)
    assert status == 200, (status, answer)


def twelve_steps(root: str) -> Context:
    """A Dockerfile of twelve steps, of which seven run a command."""
    context = Context(root, "steps", _TWELVE)
    context.write("requirements", "flask\n")
    context.write("source/main", "print('hello')\n")
    return context


def many_files(root: str) -> Context:
    """A copy of twenty thousand small files."""
    context = Context(root, "files", "FROM busybox\nCOPY . /data\n")
    for number in range(FILES):
        context.write(f"d{number % 200}/f{number}", f"{number}\n" * 50)
    return context


def large_file(root: str) -> Context:
    """A copy of 500 MB."""
    context = Context(root, "large", "FROM busybox\nCOPY . /data\n")
    context.fill("data", LARGE_BYTES)
    return context


def two_stages(root: str) -> Context:
    """Two stages that take two seconds each, and do not need each other."""
    return Context(root, "stages", _STAGES.format(key=0))


def cold(context: Context, engine: Engine) -> float:
    """With nothing in the cache."""
    forget(engine)
    return context.build(engine)


def cold_by_old_api(context: Context, engine: Engine) -> float:
    """With nothing in the cache, by the old API."""
    forget(engine)
    return context.build_by_old_api(engine)


def one_changed(context: Context, engine: Engine) -> float:
    """After one file of many was changed."""
    context.write("d7/f7", f"changed at {time.time_ns()}\n")
    return context.build(engine)


def stages(context: Context, engine: Engine) -> float:
    """Both stages anew."""
    context.write("Dockerfile", _STAGES.format(key=time.time_ns()))
    return context.build(engine)


def commit(engine: Engine) -> float:
    """``docker commit`` of a container that has written 200 MB which cannot be compressed."""
    engine.docker("rm", "-f", "writer", check=False)
    script = f"dd if=/dev/urandom of=/data bs=1M count={COMMITTED_MIB} 2>/dev/null"
    engine.docker("run", "--name", "writer", "busybox", "sh", "-c", script, timeout=120)
    took = measures.timed(engine.docker, "commit", "writer", "bench-committed")
    engine.docker("rm", "-f", "writer")
    engine.docker("rmi", "bench-committed")
    return took


def peak_of_large_context(root: str, engine: Engine) -> float:
    """The most memory, in MiB, that ketchd takes for a context of 2 GB: sent to it as an archive, by the old API."""
    context = Context(root, "huge", "FROM busybox\nCOPY . /data\n")
    try:
        context.fill("data", CONTEXT_BYTES)
        with memory(engine) as peak:
            context.build_by_old_api(engine)
        return float(peak())
    finally:
        context.remove()
        forget(engine)
