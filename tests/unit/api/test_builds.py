"""Requests for builds as they come: Docker's query, and the line of Ketch's own endpoint."""

from __future__ import annotations

import base64
import json
import os

import pytest
from multidict import MultiDict

from ketch.api.wire.building import build_cache, builds
from ketch.errors import InvalidArgument


def query(**values):
    return MultiDict(
        [(name, item) for name, found in values.items() for item in ([found] if isinstance(found, str) else found)]
    )


def test_dockers_query():
    config = base64.urlsafe_b64encode(json.dumps({"r:5000": {"username": "u", "password": "p"}}).encode()).decode()
    asked = query(
        t=["a:1", "b:2"],
        buildargs='{"A":"1","B":null}',
        labels='{"x":"y"}',
        memory="64",
        memswap="junk",
        shmsize="7",
        ulimits='[{"Name":"nofile","Soft":1,"Hard":2}]',
        cachefrom='["c:1"]',
        extrahosts=["h:1.2.3.4"],
        nocache="1",
        platform="linux/arm64",
        dockerfile="d/F",
        target="s",
        buildid="id",
    )
    found = builds.classic(asked, config)
    assert (found.tags, found.args, found.labels) == (["a:1", "b:2"], {"A": "1", "B": None}, {"x": "y"})
    assert (found.resources.memory, found.resources.memory_swap, found.shm_size) == (64, 0, 7)
    assert [(one.name, one.soft, one.hard) for one in found.ulimits] == [("nofile", 1, 2)]
    assert (found.cache_from[0].attrs, found.hosts) == ({"ref": "c:1"}, ["h:1.2.3.4"])
    assert (found.no_cache, found.platforms, found.dockerfile_path) == (True, ["linux/arm64"], "d/F")
    assert (found.target, found.id, found.uploads) == ("s", "id", {"context": ""})
    assert found.credentials["r:5000"].username == "u"
    empty = builds.classic(query(buildargs="null", labels="", ulimits="null"), "no base64!")
    assert (empty.args, empty.labels, empty.ulimits, empty.credentials) == ({}, {}, [], {})
    assert builds.classic(query(remote="https://x/y.git"), None).uploads == {}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("buildargs", "[", "error reading build args: "),
        ("labels", '{"a":1}', "error reading labels: "),
        ("ulimits", "x", "error reading ulimit settings: "),
        ("isolation", "x", 'unsupported isolation: "x"'),
        ("squash", "1", "squash is only supported with experimental mode"),
        ("securityopt", "x", "security options are not supported on linux"),
        ("shmsize", "x", 'strconv.ParseInt: parsing "x": invalid syntax'),
    ],
)
def test_wrong_parameters(name, value, message):
    with pytest.raises(InvalidArgument, match=message):
        builds.classic(query(**{name: value}), None)


def test_ketchs_line_and_its_descriptors():
    taken = []

    def take(handed):
        taken.append(os.open("/", os.O_RDONLY))
        if handed == "fd:bad":
            raise InvalidArgument("no")
        return taken[-1]

    line = {
        "t": ["x"],
        "directories": {"context": "fd:3:1:2", "other": "tar:1"},
        "ssh": {"default": "fd:4:1:2"},
        "secrets": {"s": base64.b64encode(b"value").decode()},
        "dockerfile": {"name": "D", "data": "RlJPTSB4"},
        "outputs": [{"type": "tar", "to": "stream"}, {"type": "local", "to": "fd:5:1:2"}, {"type": "image"}],
    }
    found = builds.own(json.dumps(line).encode(), take)
    assert found.directories == {"context": taken[0]}
    assert found.agents == {"default": taken[1]}
    assert [(one.kind, one.fd, one.streamed) for one in found.outputs] == [
        ("tar", -1, True),
        ("local", taken[2], False),
        ("image", -1, False),
    ]
    assert (found.uploads, found.secrets) == ({"other": "1"}, {"s": b"value"})
    assert (found.dockerfile.data, sorted(found.descriptors())) == (b"FROM x", sorted(taken))
    for fd in taken:
        os.close(fd)
    taken.clear()
    with pytest.raises(InvalidArgument):
        builds.own(b'{"directories": {"context": "fd:3:1:2"}, "ssh": {"default": "fd:bad"}}', take)
    with pytest.raises(OSError):  # it was closed
        os.fstat(taken[0])
    os.close(taken[1])
    for wrong in (
        b"[]",
        b"{",
        b'{"t": 1}',
        b'{"directories": {"context": "tar:../x"}}',
        b'{"directories": {"a": "x"}}',
    ):
        with pytest.raises(InvalidArgument):
            builds.own(wrong, take)


def test_the_query_of_a_prune():
    found = build_cache.prune_options(query(all="1", filters='{"until":["1h"]}', **{"keep-storage": "10"}))
    assert (found.everything, found.filters, found.reserved) == (True, {"until": ["1h"]}, 10)
    with pytest.raises(InvalidArgument, match="max-used-space is in bytes and expects an integer, got x"):
        build_cache.prune_options(query(**{"max-used-space": "x"}))
