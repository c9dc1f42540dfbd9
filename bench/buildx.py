"""Measurements of BuildKit's clients: the same ``docker buildx build`` against Ketch and against dockerd's BuildKit."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from bench.builds import Context, forget
from bench.measures import timed
from bench.scale import memory_of_daemon

if TYPE_CHECKING:
    from tests.support.engines import Engine

AT_ONCE = 10
_ONE = "FROM busybox\nCOPY source /source\nRUN cat /source > /copy && echo {key} > /key\n"


def client_alone(engine: Engine) -> float:
    """Seconds that every command of ``docker buildx`` takes before it says anything to an engine."""
    return timed(engine.docker, "buildx", "version")


def build(context: Context, engine: Engine) -> float:
    """Seconds of a build by buildx."""
    command = ["buildx", "build", "-q", "-t", f"bench-{context.name}", context.path]
    begin = time.perf_counter()
    engine.docker(*command, timeout=300)
    return time.perf_counter() - begin


def cold(context: Context, engine: Engine) -> float:
    """With nothing in the cache."""
    forget(engine)
    return build(context, engine)


def one_changed(context: Context, engine: Engine) -> float:
    """After one file of many was changed."""
    context.write("d7/f7", f"changed at {time.time_ns()}\n")
    return build(context, engine)


class Several:
    """Ten projects, built at the same time, or one after the other."""

    def __init__(self, root: str) -> None:
        self._contexts = [Context(root, f"several{number}", "") for number in range(AT_ONCE)]
        self._change()

    def _change(self) -> None:
        for number, context in enumerate(self._contexts):
            context.write("source", f"{number} at {time.time_ns()}\n")
            context.write("Dockerfile", _ONE.format(key=time.time_ns()))

    def at_once(self, engine: Engine) -> float:
        """Seconds until all are built, each of them with a file and a command that are new."""
        self._change()
        begin = time.perf_counter()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda context: build(context, engine), self._contexts))
        return time.perf_counter() - begin

    def memory_after(self, engine: Engine, count: int) -> float:
        """RSS in MiB of the daemon after so many builds more, half of them of something new."""
        for number in range(count):
            if number % (2 * AT_ONCE) == 0:
                self._change()
            build(self._contexts[number % AT_ONCE], engine)
        return memory_of_daemon(engine)

    def remove(self) -> None:
        """Remove the directories."""
        for context in self._contexts:
            context.remove()
