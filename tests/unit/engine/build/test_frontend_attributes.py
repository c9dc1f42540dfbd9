"""Attributes of `dockerfile.v0`: what BuildKit's clients write, and what is refused."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.build.llb import ops_pb2 as pb
from ketch.engine.build.frontends.attributes import FrontendAttributes
from ketch.errors import InvalidArgument, KetchError
from ketch.oci import platform as platforms


def test_what_a_dockerfile_sees():
    attrs = FrontendAttributes(
        {
            "build-arg:A": "1",
            "label:l": "m",
            "context:base": "docker-image://busybox",
            "platform": "linux/arm64,linux/amd64,linux/arm64",
            "no-cache": "",
        }
    )
    assert (attrs.args(), attrs.labels()) == ({"A": "1"}, {"l": "m"})
    assert attrs.contexts() == {"base": "docker-image://busybox"}
    assert [platforms.text(one) for one in attrs.platforms()] == ["linux/arm64", "linux/amd64"]
    assert attrs.no_cache() == []
    assert FrontendAttributes({"no-cache": "a,b"}).no_cache() == ["a", "b"]
    assert FrontendAttributes({}).no_cache() is None


def test_what_commands_see():
    attrs = FrontendAttributes(
        {
            "force-network-mode": "host",
            "add-hosts": "a=10.0.0.1,b=::1",
            "shm-size": "1024",
            "ulimit": "nofile=10:20,nproc=5",
        }
    )
    assert attrs.network() == pb.HOST
    assert attrs.hosts() == [("a", "10.0.0.1"), ("b", "::1")]
    assert attrs.shm_size() == 1024
    assert attrs.ulimits() == [("nofile", 10, 20), ("nproc", 5, 5)]


@pytest.mark.parametrize(
    ("text", "count", "many"), [("", 1, False), ("", 2, True), ("true", 1, True), ("1", 2, True), ("false", 1, False)]
)
def test_results_of_several_platforms(text, count, many):
    assert FrontendAttributes({"multi-platform": text}).many_platforms(count) is many


def test_caches():
    entries = [{"Type": "registry", "Attrs": {"ref": "r/a"}}, {"Type": "local", "Attrs": {"src": "/c"}}]
    attrs = FrontendAttributes({"cache-imports": json.dumps(entries), "cache-from": "r/b,r/c"})
    found = [(one.kind, dict(one.attrs)) for one in attrs.cache_imports()]
    assert found == [
        ("registry", {"ref": "r/a"}),
        ("local", {"src": "/c"}),
        ("registry", {"ref": "r/b"}),
        ("registry", {"ref": "r/c"}),
    ]


@pytest.mark.parametrize(
    ("name", "text", "ask", "words"),
    [
        ("platform", "nothing/at/all/x", "platforms", "failed to parse target platform"),
        ("multi-platform", "perhaps", "many", "invalid boolean value for multi-platform: perhaps"),
        ("multi-platform", "false", "many", "returning multiple target platforms is not allowed"),
        ("image-resolve-mode", "newest", "resolve_mode", "invalid image-resolve-mode: newest"),
        ("force-network-mode", "bridge", "network", "invalid netmode bridge"),
        ("add-hosts", "a", "hosts", "invalid key-value pair a"),
        ("add-hosts", "a=b", "hosts", "failed to parse IP b"),
        ("shm-size", "1k", "shm_size", "failed to parse shm size"),
        ("ulimit", "nofile", "ulimits", "invalid ulimit argument: nofile"),
        ("ulimit", "nofile=3:2", "ulimits", "soft limit must be less than or equal to hard limit: 3 > 2"),
        ("cache-imports", "[", "cache_imports", "failed to unmarshal cache-imports"),
        ("override-copy-image", "x", "refuse_removed", 'support for "override-copy-image" was removed'),
    ],
)
def test_refusals(name, text, ask, words):
    attrs = FrontendAttributes({name: text})
    with pytest.raises(InvalidArgument, match="(?s).*") as refused:
        attrs.many_platforms(2) if ask == "many" else getattr(attrs, ask)()
    assert words in refused.value.message


@given(
    name=st.sampled_from(["platform", "add-hosts", "shm-size", "ulimit", "cache-imports", "force-network-mode"]),
    text=st.text(max_size=40),
)
def test_nothing_but_an_error_of_the_family(name, text):
    attrs = FrontendAttributes({name: text})
    for ask in (attrs.platforms, attrs.hosts, attrs.shm_size, attrs.ulimits, attrs.cache_imports, attrs.network):
        with contextlib.suppress(KetchError):
            ask()
