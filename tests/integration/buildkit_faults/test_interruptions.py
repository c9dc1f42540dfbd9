"""Builds by the real buildx that are interrupted in each of their phases: the client is killed, or the daemon.

The build ends, nothing of it is left, and the next one is as it should be, with what was complete.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import threading

import pytest

from tests.support.building.remains import until_nothing_is_half_made
from tests.support.building.requests import Gate
from tests.support.leaks import Census
from tests.support.rawapi import Api
from tests.support.registries.nasty_registry import Fault, NastyRegistry
from tests.support.waiting import until

pytestmark = [pytest.mark.ketch_only, pytest.mark.usefixtures("no_images_left")]

FIRST = "FROM busybox\nRUN echo first > /first\n"
STEP = f"{FIRST}RUN {Gate.mount} echo begun >> /gate/log; {Gate.wait}\nRUN echo last > /last\n"
BIG = 64 << 20


class Place:
    """An engine, a context for buildx, and what the next build has to find in the cache."""

    def __init__(self, engine, top):
        self.engine, self.top, self.gate = engine, top, Gate(engine)
        self.cached = False  # the first step was complete

    def recorded(self):
        """Whether the first step's result has a row, which comes a moment after it."""
        with contextlib.closing(sqlite3.connect(f"file:{self.engine.data_root}/ketch.db?mode=ro", uri=True)) as db:
            return any(b"/first" in bytes(row[0]) for row in db.execute("SELECT record FROM build_results"))

    def begun(self, text, *words):
        (self.top / "Dockerfile").write_text(text)
        return self.engine.docker.piped("buildx", "build", "--progress=plain", *words, str(self.top))


@contextlib.contextmanager
def in_the_context(place):
    (place.top / "big").write_bytes(os.urandom(1 << 20) * (BIG >> 20))
    with place.begun(f"{FIRST}COPY big /\n") as build:
        build.expect("transferring context")
        yield build


@contextlib.contextmanager
def in_a_step(place):
    place.cached = True
    with place.begun(STEP) as build:
        until(place.gate.log, lambda: build.text)
        yield build


@contextlib.contextmanager
def in_an_export(place):
    """To a pipe that nobody reads on."""
    place.cached = True
    pipe = place.top.parent / "pipe"
    os.mkfifo(pipe)
    found = []
    opening = threading.Thread(target=lambda: found.append(os.open(pipe, os.O_RDONLY)))
    opening.start()
    text = f"{FIRST}RUN dd if=/dev/zero of=/big bs=1M count={BIG >> 20}\n"
    try:
        with place.begun(text, f"--output=type=tar,dest={pipe}") as build:
            until(lambda: found, lambda: build.text)
            assert os.read(found[0], 1000)
            yield build
    finally:
        with contextlib.suppress(OSError):
            os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
        opening.join()
        os.close(found[0])


@contextlib.contextmanager
def in_a_push(place):
    place.cached = True
    with NastyRegistry() as registry:
        registry.faults.append(Fault(path="/blobs/", method="HEAD", stall_at=0))
        with place.begun(FIRST, f"--output=type=image,name={registry.host}/pushed:1,push=true") as build:
            until(lambda: registry.requests, lambda: build.text)
            yield build


PHASES = {"context": in_the_context, "step": in_a_step, "export": in_an_export, "push": in_a_push}


def states(engine):
    return [row["status"] for row in Api(engine.socket).must("GET", "/ketch/builds")]


def open_files(engine):
    """How many connections and pipes of clients the daemon has open; those to registries are kept for a while."""
    root = f"/proc/{engine.process.pid}"
    with open(f"{root}/net/tcp", encoding="ascii") as f:
        tcp = {f"socket:[{line.split()[9]}]" for line in f.readlines()[1:]}
    found = 0
    for fd in os.listdir(f"{root}/fd"):
        with contextlib.suppress(FileNotFoundError):
            name = os.readlink(f"{root}/fd/{fd}")
            found += name.startswith(("socket:", "pipe:")) and name not in tcp
    return found


@pytest.fixture
def context(tmp_path):
    (tmp_path / "context").mkdir()
    return tmp_path / "context"


def the_next_one(place):
    """It is as it should be, and what was complete is not made again."""
    (place.top / "Dockerfile").write_text(f"{FIRST}RUN cat /first > /second\n")
    done = place.engine.docker("buildx", "build", "--progress=plain", "-t", "next:1", str(place.top), timeout=60)
    cached = [line for line in done.err.splitlines() if line.endswith(" CACHED")]
    assert cached or not place.cached, done.err
    assert place.engine.docker("run", "--rm", "next:1", "cat", "/second").out == "first\n"


@pytest.mark.parametrize("phase", PHASES)
def test_a_client_that_is_killed(engine, context, phase):
    Api(engine.socket).must("POST", "/build/prune", all=1)
    place = Place(engine, context)
    engine.docker("buildx", "du")  # what is opened once is open
    before, files = Census.take(engine.name), open_files(engine)
    with PHASES[phase](place) as build:
        assert states(engine)[0] == "running"
        build.signal(signal.SIGKILL)
        assert build.wait() != 0
        until(lambda: states(engine)[0] == "canceled", lambda: states(engine))
        until_nothing_is_half_made(engine)
    until(lambda: open_files(engine) <= files, lambda: (files, open_files(engine)))
    assert before.leaks() == []
    the_next_one(place)


@pytest.mark.parametrize("phase", PHASES)
def test_a_daemon_that_is_killed(own_engine, context, phase):
    own_engine.start()
    own_engine.add_busybox()
    place = Place(own_engine, context)
    before = Census.take(own_engine.name)
    with PHASES[phase](place) as build:
        until(lambda: place.recorded() or not place.cached, "what is complete is not recorded")
        own_engine.stop(signal.SIGKILL)
        assert build.wait() != 0
    own_engine.start()
    until_nothing_is_half_made(own_engine)
    assert before.leaks(but=("process ",)) == []
    assert states(own_engine)[0] == "error"
    shown = own_engine.docker("buildx", "history", "ls").out
    assert "Error" in shown, shown
    the_next_one(place)


@pytest.mark.parametrize("phase", PHASES)
def test_a_daemon_that_is_stopped(own_engine, context, phase):
    """It ends soon, and the client is told why."""
    own_engine.start()
    own_engine.add_busybox()
    place = Place(own_engine, context)
    with PHASES[phase](place) as build:
        assert own_engine.stop() == 0
        assert build.wait() != 0
        assert "the daemon is about to end" in build.text
    own_engine.start()
    until_nothing_is_half_made(own_engine)
    assert states(own_engine)[0] == "canceled"
    the_next_one(place)


def test_a_client_that_is_killed_and_another_with_the_same_step(engine, context, tmp_path):
    """The step that both wait for goes on for the other one."""
    Api(engine.socket).must("POST", "/build/prune", all=1)
    place = Place(engine, context)
    with place.begun(STEP) as one, place.begun(STEP, "-t", "two:1") as two:
        until(lambda: place.gate.log() == "begun\n", lambda: one.text)
        until(lambda: len([state for state in states(engine) if state == "running"]) == 2, lambda: two.text)
        one.signal(signal.SIGKILL)
        assert one.wait() != 0
        until(lambda: "canceled" in states(engine), lambda: states(engine))
        place.gate.go()
        assert two.wait(60) == 0, two.text
    assert place.gate.log() == "begun\n"
