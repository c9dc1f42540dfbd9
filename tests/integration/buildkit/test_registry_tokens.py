"""Builds that need registries with token servers: the client keeps its password, and gets the tokens itself."""

from __future__ import annotations

import pytest

from tests.support.registries.registries import ours, password_file
from tests.support.registries.token_server import TokenServer

pytestmark = pytest.mark.usefixtures("no_images_left")

USERS = {"ann": "secret"}


@pytest.fixture
def server(tmp_path):
    with TokenServer(str(tmp_path / "keys.pem"), USERS) as one:
        yield one


@pytest.fixture
def registry(server):
    with ours(*server.flags) as one:
        yield one


@pytest.fixture
def build(engine, tmp_path):
    """Builds a Dockerfile."""

    def run(text, *words, check=True):
        (tmp_path / "context").mkdir(exist_ok=True)
        (tmp_path / "context/Dockerfile").write_text(text)
        words = ("buildx", "build", "--progress=plain", "--provenance=false", *words, f"{tmp_path}/context")
        return engine.docker(*words, check=check, timeout=60)

    return run


@pytest.fixture
def private(engine, registry):
    """An image that only one user may have, who is logged in; the engine has it not."""
    engine.docker("login", "-u", "ann", "--password-stdin", registry.host, stdin=b"secret")
    engine.docker("tag", "busybox", f"{registry.host}/private/box:1")
    engine.docker("push", "-q", f"{registry.host}/private/box:1")
    engine.docker("rmi", f"{registry.host}/private/box:1")
    yield f"{registry.host}/private/box:1"
    engine.docker("logout", registry.host)


def daemons(asked):
    """The requests that came from ketchd; dockerd and the client have the same name."""
    return [one for one in asked if one.agent.startswith("ketch")]


def test_the_password_stays_with_the_client(build, server, private):
    server.asked.clear()
    build(f"FROM {private}\nRUN echo made >/made\n")
    assert {one.user for one in server.asked} == {"ann"}
    assert server.scopes == ["repository:private/box:pull"]
    assert [one.agent for one in daemons(server.asked)] == []


@pytest.mark.ketch_only  # Docker's own store has no caches in registries, and its pushes get the password
def test_nor_for_what_is_pushed(build, server, registry, private):
    server.asked.clear()
    cache = f"type=registry,ref={registry.host}/private/cache:1"
    made = f"{registry.host}/private/made:1"
    build(f"FROM {private}\nRUN echo made >/made\n", "--push", "-t", made, "--cache-to", cache, "--cache-from", cache)
    assert {one.user for one in server.asked} == {"ann"}
    assert {"repository:private/cache:pull,push", "repository:private/made:pull,push"} <= set(server.scopes)
    assert [one.agent for one in daemons(server.asked)] == []


def test_who_is_not_logged_in(build, engine, registry, private):
    engine.docker("logout", registry.host)
    done = build(f"FROM {private}\n", check=False)
    assert done.code == 1
    assert "failed to authorize: failed to fetch anonymous token" in done.err
    assert "401 Unauthorized" in done.err


@pytest.mark.ketch_only
def test_a_client_that_gets_no_tokens(engine, server, tmp_path, private):
    """Its user has turned it off: the daemon asks for the password."""
    server.asked.clear()
    (tmp_path / "Dockerfile").write_text(f"FROM {private}\n")
    engine.docker("buildx", "build", str(tmp_path), BUILDKIT_NO_CLIENT_TOKEN="1")
    assert {one.user for one in server.asked} == {"ann"}
    assert daemons(server.asked) != []


def test_a_registry_that_wants_the_password(engine, build, tmp_path):
    with ours("--htpasswd", password_file(tmp_path)) as one:
        ref = f"{one.host}/private/box:1"
        engine.docker("login", "-u", "ann", "--password-stdin", one.host, stdin=b"secret")
        engine.docker("tag", "busybox", ref)
        engine.docker("push", "-q", ref)
        engine.docker("rmi", ref)
        build(f"FROM {ref}\nRUN true\n")
        engine.docker("logout", one.host)
        done = build(f"FROM {ref}\nRUN true\n", "--no-cache", "--pull", check=False)
        assert done.code == 1
        assert "no basic auth credentials" in done.err or "401 Unauthorized" in done.err
