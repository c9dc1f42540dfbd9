"""Addresses of engines, as the environment names them and says how they are trusted."""

from __future__ import annotations

import pytest

from ketch import aio, blocking
from ketch.aio import access
from ketch.blocking import engine as _engine  # noqa: F401 - the attribute of the package
from ketch.client.addresses import tls_of
from ketch.errors import InvalidArgument

VARIABLES = ("KETCH_HOST", "DOCKER_HOST", "DOCKER_TLS", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH")


@pytest.fixture(autouse=True)
def nothing_is_named(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_the_variables(monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", "tcp://one")
    assert aio.connect().url == blocking.engine.connect().url == "tcp://one"
    monkeypatch.setenv("KETCH_HOST", "unix:///two")
    assert access.daemon_url("", "") == aio.connect().url == "unix:///two"


def test_a_url_and_a_context():
    for connect in (aio.connect, blocking.engine.connect):
        with pytest.raises(InvalidArgument, match="and to the context"):
            connect("tcp://one", context="two")


def test_certificates(monkeypatch, tmp_path):
    (tmp_path / "ca.pem").write_text("")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(tmp_path))
    assert tls_of(aio.Engine(url="tcp://one").url) is None, "no variable asks for TLS"
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    tls = tls_of(aio.Engine(url="tcp://one").url)
    assert tls is not None
    assert (tls.verify, tls.authorities, tls.certificate) == (True, str(tmp_path / "ca.pem"), "")
    assert tls_of(aio.Engine(url="unix:///one").url) is None
    monkeypatch.delenv("DOCKER_TLS_VERIFY")
    monkeypatch.setenv("DOCKER_TLS", "1")
    tls = tls_of(aio.Engine(url="tcp://one").url)
    assert tls is not None
    assert not tls.verify
