"""Clients that go away in each phase of a build: what nobody else needs is stopped, and nothing is left."""

from __future__ import annotations

import contextlib
import os
import threading

import pytest

from tests.support.building.remains import until_nothing_is_half_made
from tests.support.building.requests import heard, own, request, states
from tests.support.builds import classic_builds
from tests.support.registries.made_images import busybox
from tests.support.registries.nasty_registry import Fault, NastyRegistry
from tests.support.waiting import patient, until

pytestmark = [pytest.mark.ketch_only, pytest.mark.usefixtures("no_images_left")]

NO_END = "while :; do usleep 50000; done"


def dockerfile(text: str, **files: str) -> bytes:
    return classic_builds.context({"Dockerfile": text, **files})


def ended(engine) -> None:
    """Wait until no build runs; the last one is told as cancelled, and nothing of it is left."""
    until(lambda: "running" not in states(engine), "a build goes on")
    assert states(engine)[0] == "canceled"
    until_nothing_is_half_made(engine)


def ways(text: str):
    """The request of a build by either way."""
    return [("/build", dockerfile(text)), ("/ketch/build", own(text))]


def test_while_it_sends_the_context(engine):
    body = dockerfile("FROM busybox\nCOPY big /\n", big="x" * 3_000_000)
    with request(engine, "/build", body[:2_000_000], length=len(body)):
        until(lambda: any("context-" in name for name in _temporary(engine)), "no context arrives")
    ended(engine)


def _temporary(engine) -> list[str]:
    return os.listdir(os.path.join(engine.data_root, "builder", "tmp"))


@pytest.mark.parametrize("way", [0, 1])
@pytest.mark.parametrize("part", ["/manifests/", "/blobs/"])
def test_while_a_base_image_comes(engine, way, part):
    with NastyRegistry() as registry:
        registry.add("base", "1", busybox({"x": os.urandom(100_000)}, compression="none"))
        registry.faults.append(Fault(path=part, stall_at=100))
        path, body = ways(f"FROM {registry.host}/base:1\nRUN true\n")[way]
        with request(engine, path, body):
            until(lambda: any(one.method == "GET" for one in registry.asked(part)), "nobody asks for it")
        until(lambda: registry.given_up, "it goes on waiting")
        ended(engine)


@pytest.mark.parametrize("way", [0, 1])
def test_while_a_command_runs(engine, way):
    path, body = ways(f"FROM busybox\nRUN echo be''gun; sleep 1000 & {NO_END}\n")[way]
    with request(engine, path, body) as sock:
        heard(sock, b"YmVndW4K" if way else b"begun\\n")
    ended(engine)


def test_while_results_are_sent(engine):
    """As lines of the answer: nobody reads them, then nobody is there."""
    text = "FROM busybox\nRUN dd if=/dev/zero of=/big bs=1M count=50\n"
    with request(engine, "/ketch/build", own(text, outputs=[{"type": "tar", "to": "stream"}])) as sock:
        heard(sock, b'"output"')
    ended(engine)


def test_while_results_are_written(engine, tmp_path):
    """To a pipe that its reader gives up."""
    text = "FROM busybox\nRUN dd if=/dev/zero of=/big bs=1M count=50\n"
    reader, writer = os.pipe()
    try:
        status = os.fstat(writer)
        to = f"fd:{writer}:{status.st_dev}:{status.st_ino}"
        with request(engine, "/ketch/build", own(text, outputs=[{"type": "tar", "to": to}])):
            assert os.read(reader, 1000)
            for fd in (writer, reader):
                os.close(fd)
            reader = writer = -1
    finally:
        for fd in (reader, writer):
            if fd >= 0:
                os.close(fd)
    ended(engine)


def test_while_nobody_reads_results(engine):
    """The pipe stays open, and unread: the build ends all the same."""
    text = "FROM busybox\nRUN dd if=/dev/zero of=/big bs=1M count=50\n"
    reader, writer = os.pipe()
    try:
        status = os.fstat(writer)
        to = f"fd:{writer}:{status.st_dev}:{status.st_ino}"
        with request(engine, "/ketch/build", own(text, outputs=[{"type": "tar", "to": to}])):
            assert os.read(reader, 1000)
        ended(engine)
    finally:
        os.close(reader)
        os.close(writer)


def test_while_it_waits_for_a_cache_mount(engine, gate):
    """Only the one that waits ends; then the other goes as well, and the next command has the cache."""
    lock = "--mount=type=cache,id=lock,target=/lock,sharing=locked"
    holding = own(f"FROM busybox\nRUN {gate.mount} {lock} echo held >>/gate/log; {gate.wait}\n")
    waiting = own(f"FROM busybox\nRUN {lock} echo waited >/lock/x\n")
    with contextlib.ExitStack() as held:
        held.enter_context(request(engine, "/ketch/build", holding))
        until(lambda: gate.log() == "held\n", "it does not begin")
        with request(engine, "/ketch/build", waiting) as other:
            heard(other, b"RUN --mount")
        until(lambda: states(engine)[0] == "canceled", "it does not end")
        assert states(engine)[1] == "running"
    ended(engine)
    with request(engine, "/ketch/build", waiting) as other:
        heard(other, b'"result"')


def test_one_of_two_that_share_a_step(engine, gate):
    """The command runs on for the other, once."""
    shared = f"FROM busybox AS shared\nRUN {gate.mount} echo ran >>/gate/log; {gate.wait}; echo made >/made\n"
    first = own(shared + "FROM shared\nRUN echo first >/which\n")
    second = own(shared + "FROM shared\nRUN cat /made\n")
    answers = []
    with request(engine, "/ketch/build", second) as staying:
        until(lambda: gate.log() == "ran\n", "it does not begin")
        with request(engine, "/ketch/build", first) as going:
            heard(going, b"echo ran")
            reading = threading.Thread(target=lambda: answers.append(heard(staying, b'"result"')))
        until(lambda: states(engine)[0] == "canceled", "it does not end")
        reading.start()
        gate.go()
        reading.join(patient(20))
    assert len(answers) == 1
    assert gate.log() == "ran\n"
