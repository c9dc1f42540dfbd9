"""Parsing of namespace modes."""

from __future__ import annotations

import pytest

from ketch.engine.model.namespaces.mode import ModeKind, NamespaceMode
from ketch.engine.model.records import HostConfig


@pytest.mark.parametrize(
    ("text", "kind", "reference"),
    [
        ("", ModeKind.DEFAULT, ""),
        ("host", ModeKind.HOST, ""),
        ("private", ModeKind.PRIVATE, ""),
        ("shareable", ModeKind.SHAREABLE, ""),
        ("none", ModeKind.NONE, ""),
        ("container:", ModeKind.CONTAINER, ""),
        ("container:a:b", ModeKind.CONTAINER, "a:b"),
    ],
)
def test_words(text, kind, reference):
    mode = NamespaceMode.parse(text)
    assert mode == (kind, reference)
    assert mode.container == (reference if kind is ModeKind.CONTAINER else None)


@pytest.mark.parametrize("text", ["default", "container", "network", "Host", "host:x", " "])
def test_words_that_are_none(text):
    with pytest.raises(ValueError, match="is no namespace mode"):
        NamespaceMode.parse(text)


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("", "bridge"),
        ("default", "bridge"),
        ("bridge", "bridge"),
        ("host", "host"),
        ("none", "none"),
        ("mine", "mine"),
        ("private", "private"),
        ("network", "network"),
        ("container", "container"),
    ],
)
def test_networks(text, network):
    mode = NamespaceMode.of_network(text)
    assert mode.network == network
    assert (mode.container, mode.is_host, mode.is_another) == (None, text == "host", text == "host")


def test_joined_containers():
    host = HostConfig(network_mode="container:a", pid_mode="container:b", ipc_mode="shareable")
    assert host.joined == ["a", "b"]
    assert host.network.is_another
    assert not HostConfig().joined
