"""A real engine for the integration tests, with the real clients.

``--engine=dockerd`` runs the tests that are about behaviour against dockerd instead, in a network namespace of its own,
to see that the tests themselves are right.
"""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

import pytest

from tests.support.engines import Client, Engine
from tests.support.leaks import Census
from tests.support.rawapi import Api
from tests.support.run import daemons, runtimes, session, unprivileged, variants
from tests.support.tls import certificate

if TYPE_CHECKING:
    from pathlib import Path


_USERS = {"engine", "box", "users_engine", "own_users_engine", "given"}
_OWN = {"own_engine", "file_engine"}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--engine") == "dockerd":
        for item in items:
            if item.get_closest_marker("ketch_only") or {"own_engine", "file_engine"} & set(
                getattr(item, "fixturenames", ())
            ):
                item.add_marker(pytest.mark.skip(reason="only for Ketch"))
    if config.getoption("--rootless"):  # what starts a daemon of root's itself is no other test then
        others = [item for item in items if not _may_be_a_users(item)]
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if item not in set(others)]
    chosen = config.getoption("--userns"), config.getoption("--runtime")
    rootless = config.getoption("--rootless")
    for item in items if any(chosen) or rootless else ():
        shared = {"engine"} | (_USERS | _OWN if rootless else set())
        if shared & set(getattr(item, "fixturenames", ())) and (
            why := variants.reason(item.nodeid, *chosen, rootless=rootless)
        ):
            item.add_marker(pytest.mark.skip(reason=why))


def _may_be_a_users(item: pytest.Item) -> bool:
    """Whether the daemon of a test can be started as a user."""
    names = set(getattr(item, "fixturenames", ()))
    return bool(_USERS & names) or (bool(_OWN & names) and variants.may_be_a_users(item.nodeid))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item):
    """A failed test shows what its daemons logged."""
    report = yield
    if report.failed:
        for name in ("engine", "own_engine", "file_engine"):
            one = getattr(item, "funcargs", {}).get(name)
            if one is not None:
                report.sections.append((f"log of {name}", one.log()))
    return report


@pytest.fixture(scope="session")
def engine(request: pytest.FixtureRequest):
    """The daemon that most tests share, with ``busybox`` in it; at the end nothing may be left."""
    undo = contextlib.ExitStack()
    if runtime := request.config.getoption("--runtime"):
        undo.enter_context(runtimes.usable(runtime))
    if request.config.getoption("--rootless"):
        unprivileged.user()
    before = Census.take(session.SESSION)
    one = Engine(request.config.getoption("--engine"))
    one.extra += ["--default-runtime", runtime] if runtime else []
    if driver := request.config.getoption("--storage-driver"):
        one.extra += ["--storage-driver", driver]
    if request.config.getoption("--userns"):
        one.user_namespaces("--userns-default", request.config.getoption("--userns"))
    if request.config.getoption("--rootless"):
        one.rootless()
        one.prefix = undo.enter_context(unprivileged.own_cgroup(one.name))
    try:
        one.start()
        one.add_busybox()
        yield one
        one.remove_all()
    finally:
        if one.process is not None:
            one.stop()
        undo.close()
        left = daemons.end(one, before)
    assert left == []


@pytest.fixture(scope="session", autouse=True)
def _users_directories(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """Directories for tests (``tmp_path``) are the user's with ``--rootless``, whose containers have them mounted."""
    if not request.config.getoption("--rootless"):
        return
    unprivileged.user()
    make = tmp_path_factory.mktemp

    def made(basename: str, numbered: bool = True) -> Path:
        path = make(basename, numbered)
        unprivileged.give(path)
        return path

    tmp_path_factory.mktemp = made


@pytest.fixture(autouse=True)
def _clean(request: pytest.FixtureRequest):
    """No test leaves a container to the next one."""
    yield
    if "engine" in request.fixturenames:
        request.getfixturevalue("engine").remove_all()


@pytest.fixture
def no_images_left(request: pytest.FixtureRequest):
    """No test leaves an image without a name to the next one: for those that build."""
    yield
    if "engine" in request.fixturenames:
        one = request.getfixturevalue("engine")
        one.remove_all()
        status, answer = Api(one.socket)("POST", "/images/prune")
        assert status == 200, answer


@pytest.fixture(params=["docker", "ketch"])
def client(request: pytest.FixtureRequest, engine: Engine) -> Client:
    """The same command line through both clients."""
    return getattr(engine, request.param)


@pytest.fixture
def docker_py(engine: Engine):
    """The Docker SDK for Python."""
    with contextlib.closing(engine.py()) as one:
        yield one


@pytest.fixture(scope="module")
def dockerd():
    """A dockerd beside ours, with roots, a network and mounts of its own."""
    one = Engine("dockerd", suffix="d")
    one.own_network = True
    with one.running():
        yield one


@pytest.fixture
def own_engine(request: pytest.FixtureRequest):
    """A daemon for one test alone: to be started with other flags, killed, started again."""
    with daemons.one_of_its_own("b", rootless=request.config.getoption("--rootless")) as one:
        yield one


@pytest.fixture(scope="module")
def file_engine(request: pytest.FixtureRequest):
    """The same for the tests of one file, which need no fresh one each."""
    with daemons.one_of_its_own("f", rootless=request.config.getoption("--rootless")) as one:
        yield one


@pytest.fixture
def private_engine(request: pytest.FixtureRequest):
    """A daemon with ``busybox`` for one scenario, whose program must clean up after itself: nothing is removed here."""
    one = Engine(request.config.getoption("--engine"), suffix="p")
    before = Census.take(one.name)
    left = []
    try:
        one.start()
        one.add_busybox()
        yield one
        left = [
            one.client(*command.split()).out for command in ("ps -aq", "volume ls -q", "network ls -q -f type=custom")
        ]
    finally:
        if one.process is not None:
            one.remove_all()
        left += daemons.end(one, before)
    assert left == ["", "", ""]


@pytest.fixture
async def yard(tmp_path: Path):
    """A launcher and its monitors, without a daemon."""
    from tests.support.boxes.monitor_box import Yard  # it loads the engine, which few tests look into

    one = await Yard.open(tmp_path)
    yield one
    await one.close()


@pytest.fixture
def secured(own_engine, tmp_path):
    """An engine that listens with TLS, and the flags with which a client may use it."""
    certificate(tmp_path, "authority")
    certificate(tmp_path, "stranger")
    for name, authority in (("server", "authority"), ("client", "authority"), ("intruder", "stranger")):
        certificate(tmp_path, name, signed_by=authority)
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as s:
        port = s.getsockname()[1]
    own_engine.extra = [
        "-H",
        f"tcp://127.0.0.1:{port}",
        "--tlsverify",
        "--tlscacert",
        f"{tmp_path}/authority.pem",
        "--tlscert",
        f"{tmp_path}/server.pem",
        "--tlskey",
        f"{tmp_path}/server.key",
    ]
    own_engine.start()
    own_engine.add_busybox()

    def flags(name: str) -> list[str]:
        return [
            "-H",
            f"tcp://127.0.0.1:{port}",
            "--tlsverify",
            "--tlscacert",
            f"{tmp_path}/authority.pem",
            "--tlscert",
            f"{tmp_path}/{name}.pem",
            "--tlskey",
            f"{tmp_path}/{name}.key",
        ]

    return own_engine, flags
