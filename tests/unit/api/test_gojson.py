"""Bodies of requests are decoded as Go's encoding/json does it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.api import gojson
from ketch.api.wire import execs, networks
from ketch.api.wire.container_requests import CreateBody
from ketch.engine.model.records import ContainerConfig, HostConfig
from ketch.errors import InvalidArgument

if TYPE_CHECKING:
    import random

_TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5)
_LISTS = st.none() | st.lists(_TEXTS, max_size=3)
_NUMBERS = st.integers(-(1 << 63), (1 << 63) - 1)
_MAPS = st.none() | st.dictionaries(_TEXTS, _TEXTS, max_size=3)
_HOSTS = st.fixed_dictionaries(
    {},
    optional={
        "Memory": _NUMBERS,
        "Binds": _LISTS,
        "Init": st.none() | st.booleans(),
        "Sysctls": _MAPS,
        "RestartPolicy": st.fixed_dictionaries({}, optional={"Name": _TEXTS, "MaximumRetryCount": _NUMBERS}),
        "Ulimits": st.lists(st.fixed_dictionaries({"Name": _TEXTS, "Soft": _NUMBERS}), max_size=2),
        "PortBindings": st.dictionaries(
            _TEXTS, st.none() | st.lists(st.fixed_dictionaries({"HostPort": _TEXTS}), max_size=2), max_size=2
        ),
    },
)
_BODIES = st.fixed_dictionaries(
    {},
    optional={
        "Image": _TEXTS,
        "Tty": st.booleans(),
        "Cmd": _LISTS | _TEXTS,
        "Labels": _MAPS,
        "HostConfig": st.none() | _HOSTS,
    },
)


def encoded(**fields: object) -> bytes:
    return msgspec.json.encode(fields)


def in_other_case(value: Any, chance: random.Random) -> Any:
    """The same with the names of fields, which are those that begin with a capital letter of ASCII, in other cases."""
    if not isinstance(value, dict):
        return value
    return {
        "".join(c.upper() if chance.random() < 0.5 else c.lower() for c in name): (
            item if name in ("Labels", "Sysctls", "PortBindings") else in_other_case(item, chance)
        )
        for name, item in value.items()
    }


@given(_BODIES)
def test_what_is_exact_is_read_as_by_any_decoder(body: dict[str, Any]) -> None:
    raw = json.dumps(body).encode()
    assert gojson.decode(raw, CreateBody) == msgspec.json.decode(raw, type=CreateBody)


@given(_BODIES, st.randoms(use_true_random=False))
def test_case_does_not_count(body: dict[str, Any], chance: random.Random) -> None:
    other = json.dumps(in_other_case(body, chance)).encode()
    assert gojson.decode(other, CreateBody) == gojson.decode(json.dumps(body).encode(), CreateBody)


@given(_HOSTS, _HOSTS)
def test_a_second_object_of_a_name_is_joined_with_the_first(first: dict[str, Any], second: dict[str, Any]) -> None:
    raw = f'{{"HostConfig": {json.dumps(first)}, "hostconfig": {json.dumps(second)}}}'.encode()
    found = gojson.decode(raw, CreateBody).host_config
    alone = gojson.decode(json.dumps({**first, **second}).encode(), HostConfig)
    for name in ("memory", "binds", "init", "ulimits"):
        assert getattr(found, name) == getattr(alone, name)
    if first.get("Sysctls") is not None and second.get("Sysctls") is not None:
        assert found.sysctls == {**first["Sysctls"], **second["Sysctls"]}


@given(st.binary(max_size=30))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    try:
        gojson.decode(raw, CreateBody)
    except InvalidArgument:
        return
    text = raw.decode(errors="replace").lstrip(" \t\r\n")
    _, end = json.JSONDecoder().raw_decode(text)
    assert text[end:].lstrip(" \t\r\n")[:1] in ("", "]", "}")


@pytest.mark.parametrize(
    ("raw", "image"),
    [
        (b'{"image": "a"}', "a"),
        (b'{"Image": "a", "image": "b"}', "b"),
        (b'{"image": "b", "Image": "a"}', "a"),
        (b'{"Image": "a", "IMAGE": null}', "a"),
        (b'{"\\u0049mage": "a"}', "a"),
        (b'{"Image": "\\ud800a"}', "\ufffda"),
        (b'{"Image": "\\ud83d\\ude00"}', "\U0001f600"),
        (b'{"Image": "\xffa"}', "\ufffda"),
        ('{"Imagé": "a"}'.encode(), ""),
        (b'{"I_mage": "a"}', ""),
        (b"null", ""),
        (b'{"Image": "a"}}', "a"),
    ],
)
def test_names(raw: bytes, image: str) -> None:
    assert gojson.decode(raw, CreateBody).image == image


def test_two_letters_beyond_ascii_are_cases_of_such_of_ascii() -> None:
    body = gojson.decode('{"HoſtConfig": {"\u212aernelmemory": 1, "memory\u017fwap": 5}}'.encode(), CreateBody)
    assert body.host_config.memory_swap == 5


def test_null_is_the_default() -> None:
    check = {"Test": ["CMD", "true"], "Interval": 5, "Timeout": None, "StartPeriod": None}
    body = gojson.decode(encoded(Image="busybox", Hostname=None, Tty=None, Healthcheck=check), ContainerConfig)
    assert (body.image, body.hostname, body.tty, body.healthcheck.interval) == ("busybox", "", False, 5)
    assert body.healthcheck.start_period == 0


def test_nulls_that_mean_something_stay() -> None:
    host = {"PortBindings": {"80/tcp": None}, "Memory": None, "Ulimits": [{"Name": "nofile", "Soft": 9, "Hard": None}]}
    body = gojson.decode(encoded(HostConfig=host, Labels={"a": None}, Image=None, Env=[None]), CreateBody)
    assert body.host_config.port_bindings == {"80/tcp": None}
    assert (body.host_config.memory, body.host_config.ulimits[0].soft, body.labels) == (0, 9, {"a": ""})
    assert body.env == [""]


@pytest.mark.parametrize("kind", [ContainerConfig, HostConfig, execs.NewExec, CreateBody])
def test_every_field_may_be_null(kind: type[msgspec.Struct]) -> None:
    everything = dict.fromkeys(f.encode_name for f in msgspec.structs.fields(kind))
    assert gojson.decode(msgspec.json.encode(everything), kind) == gojson.decode(b"{}", kind)


@pytest.mark.parametrize(
    ("kind", "raw", "words"),
    [
        (CreateBody, b'{"Image": "a\\u0000"}', "Image has a NUL byte"),
        (CreateBody, b'{"a":' * 5000 + b"1" + b"}" * 5000, "invalid JSON: it is nested too deeply"),
        (CreateBody, b'{"a":' * 501 + b"1" + b"}" * 501, "invalid JSON: it is nested too deeply"),
        (CreateBody, b'{"a": 1 , }', "invalid character '}' looking for beginning of object key string"),
        (CreateBody, b'{"a": [1,\n]}', "invalid character ']' looking for beginning of value"),
        (CreateBody, b'{"a": [1,', "unexpected EOF"),
        (CreateBody, b'{"Memory": ' + b"1" * 5000 + b"}", "invalid JSON: .*digits"),
        (networks.NewNetwork, b'{"Name": "a", "EnableIPv6": 1}', "field CreateRequest.EnableIPv6 of type bool"),
        (CreateBody, b"[-Infinity]", "invalid character 'I' in numeric literal"),
        (CreateBody, b'{"a": nul', "unexpected EOF"),
        (CreateBody, b"{\"a\": 'b'}", r"invalid character '\\'' looking for beginning of value"),
    ],
)
def test_what_is_refused(kind: type[msgspec.Struct], raw: bytes, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        gojson.decode(raw, kind, getattr(kind, "GO_NAME", ""))
