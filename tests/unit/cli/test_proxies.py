"""Proxies of the docker client's file."""

from __future__ import annotations

import json

import pytest

from ketch.cli import proxies
from ketch.errors import InvalidArgument


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    return lambda value: (tmp_path / "config.json").write_text(json.dumps(value))


def test_build_arguments(write):
    assert proxies.arguments({"A": "b"}, "unix:///s") == {"A": "b"}  # there is no file
    write({"auths": {}})
    assert proxies.arguments({"A": "b"}, "unix:///s") == {"A": "b"}
    default = {"httpProxy": "http://p:1", "noProxy": "a,b", "ftpProxy": ""}
    write({"proxies": {"default": default, "tcp://far:1": {"allProxy": "socks5://q"}}})
    given = {"http_proxy": "http://mine", "A": "b"}
    assert proxies.arguments(given, "unix:///s") == {
        "HTTP_PROXY": "http://p:1",
        "http_proxy": "http://mine",
        "NO_PROXY": "a,b",
        "no_proxy": "a,b",
        "A": "b",
    }
    assert proxies.arguments({}, "tcp://far:1") == {"ALL_PROXY": "socks5://q", "all_proxy": "socks5://q"}


def test_variables_of_containers(write):
    write({"proxies": {"default": {"httpsProxy": "https://p"}}})
    assert proxies.environment(["A=b", "HTTPS_PROXY"], "unix:///s") == ["A=b", "HTTPS_PROXY", "https_proxy=https://p"]


@pytest.mark.parametrize("wrong", [1, {"default": []}, {"default": {"httpProxy": 1}}])
def test_what_is_none(write, wrong):
    write({"proxies": wrong})
    with pytest.raises(InvalidArgument, match=r"config\.json"):
        proxies.arguments({}, "unix:///s")
