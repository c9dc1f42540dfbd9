"""Modes of namespaces: which words are accepted, and which container is meant by ``container:NAME``."""

from __future__ import annotations

import pytest

from tests.support.rawapi import Api

SLEEP = ("busybox", "sleep", "1000")
JOINABLE = {"NetworkMode": "net", "PidMode": "pid", "IpcMode": "ipc"}


def create(engine, name: str = "one", **host: object) -> tuple[int, str]:
    """The status, and what the message says."""
    body = {"Image": "busybox", "Cmd": ["sleep", "1000"], "HostConfig": host}
    status, answer = Api(engine.socket)("POST", "/containers/create", body, name=name)
    return status, answer.get("message", "")


def inspected(engine, name: str):
    return Api(engine.socket).must("GET", f"/containers/{name}/json")


@pytest.mark.parametrize("field", JOINABLE)
def test_a_name_becomes_an_id(engine, field):
    """Whoever has the name by the time of the start is not who was meant."""
    ident = engine.docker("run", "-d", "--name", "target", "--ipc", "shareable", *SLEEP).out.strip()
    for name, ref in (("one", "target"), ("two", "/target"), ("three", ident[:12]), ("four", ident)):
        status, answer = create(engine, name, **{field: f"container:{ref}"})
        assert status == 201, answer
        assert inspected(engine, name)["HostConfig"][field] == f"container:{ident}"
    engine.docker("rename", "target", "other")
    engine.docker("run", "-d", "--name", "target", "--ipc", "shareable", *SLEEP)
    engine.docker("start", "one")
    links = [engine.docker("exec", n, "readlink", f"/proc/self/ns/{JOINABLE[field]}").out for n in ("one", "other")]
    assert links[0] == links[1]


@pytest.mark.parametrize("field", ["PidMode", "IpcMode"])
def test_a_container_that_is_not_there(engine, field):
    assert create(engine, **{field: "container:nobody"}) == (400, "No such container: nobody")


def test_a_network_of_a_container_that_is_not_there(engine):
    """That is an error of the start."""
    assert create(engine, NetworkMode="container:nobody")[0] == 201
    assert inspected(engine, "one")["HostConfig"]["NetworkMode"] == "container:nobody"
    failed = engine.docker("start", "one", check=False)
    assert (failed.code, "No such container: nobody" in failed.err) == (1, True), failed.err


@pytest.mark.parametrize(
    ("field", "word", "message"),
    [
        ("NetworkMode", "container:", "invalid network mode: invalid container format container:<name|id>"),
        ("PidMode", "container:", "invalid PID mode: container:"),
        ("PidMode", "private", "invalid PID mode: private"),
        ("PidMode", "default", "invalid PID mode: default"),
        ("IpcMode", "default", "invalid IPC mode: default"),
        ("IpcMode", "host:x", "invalid IPC mode: host:x"),
        ("UTSMode", "container:target", "invalid UTS mode: container:target"),
        ("UTSMode", "private", "invalid UTS mode: private"),
        ("CgroupnsMode", "container:target", "invalid cgroup namespace mode: container:target"),
        ("CgroupnsMode", "none", "invalid cgroup namespace mode: none"),
    ],
)
def test_words_that_are_none(engine, field, word, message):
    engine.docker("create", "--name", "target", *SLEEP)
    assert create(engine, **{field: word}) == (400, message)


@pytest.mark.ketch_only
def test_words_for_a_user_namespace(engine):
    """One that means nothing is refused: nobody shall believe a container confined that is not."""
    for word in ("container:x", "nonsense"):
        status, answer = create(engine, UsernsMode=word)
        assert (status, answer.partition(" (")[0]) == (400, f"invalid user namespace mode: {word}")
    for word in ("host", "private", ""):
        name = word or "default"
        assert create(engine, name, UsernsMode=word)[0] == 201
        assert inspected(engine, name)["HostConfig"]["UsernsMode"] == word
        Api(engine.socket).must("POST", f"/containers/{name}/start")
