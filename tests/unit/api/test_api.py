"""The edge of the API: statuses, versions, routes, queries, filters, and Docker's JSON."""

from __future__ import annotations

import base64
import json
import os
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch import errors
from ketch.api import query
from ketch.api.errors import STATUS, body_of, message_of, status_of
from ketch.api.routes import archive
from ketch.api.server import build_routes, parse_version, split_version
from ketch.api.wire import container_filters, containers, filters
from ketch.client.errors import error_in
from ketch.engine.model.path_stat import PathStat
from ketch.engine.model.records import Container, ContainerConfig, HostConfig, State, Status
from ketch.errors import InvalidArgument, NotFound


def family(cls: type = errors.KetchError) -> set[type]:
    return {cls, *(c for sub in cls.__subclasses__() for c in family(sub))}


def test_every_error_has_a_status():
    own = {c for c in family() if c.__module__ == "ketch.errors"}
    assert own == set(STATUS)
    for cls in own:
        assert status_of(cls("why")) == STATUS[cls]


def test_a_program_that_cannot_be_executed_is_the_caller_s_mistake():
    assert status_of(errors.ProgramNotFound("why")) == status_of(errors.ProgramNotExecutable("why")) == 400
    assert status_of(errors.RuntimeFailure("why")) == 500


def test_every_error_has_a_kind_that_clients_read_back():
    own = sorted((c for c in family() if c.__module__ == "ketch.errors"), key=lambda c: c.kind)
    assert len({cls.kind for cls in own}) == len(own)
    for cls in own:
        body = json.dumps(body_of("why", cls.kind)).encode()
        error = error_in(STATUS[cls], body)
        assert (type(error), error.message, error.kind) == (cls, "why", cls.kind)


def test_the_hint_is_part_of_the_message():
    assert message_of(NotFound("no image", hint="load one")) == "no image (load one)"
    assert message_of(NotFound("no image")) == "no image"


@pytest.mark.parametrize(
    ("path", "version", "rest"),
    [
        ("/v1.24/info", (1, 24), "/info"),
        ("/v1.51/_ping", (1, 51), "/_ping"),
        ("/info", (1, 51), "/info"),
        ("/v1.24.0/a", (1, 24), "/a"),
        ("/v1.50.7/a", (1, 50), "/a"),
        ("/v01.030/a", (1, 30), "/a"),
        ("/v1.51.0/a", (1, 51), "/a"),
    ],
)
def test_versions(path, version, rest):
    text, found = split_version(path)
    assert (parse_version(text), found) == (version, rest)


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/v1.23/info", "too old"),
        ("/v1.52/info", "too new"),
        ("/v9.9/x", "too new"),
        ("/v1.51.1/x", "too new"),
        ("/v1..24/x", "too old"),
        ("/v./x", "too old"),
    ],
)
def test_versions_outside_ours(path, why):
    with pytest.raises(InvalidArgument, match=why):
        parse_version(split_version(path)[0])


def test_routes():
    routes = build_routes()
    _, found = routes.find("GET", "/images/example.org:5000/a/b/c:tag/json")
    assert found == {"name": "example.org:5000/a/b/c:tag"}
    assert routes.find("HEAD", "/_ping")[1] == {}
    assert routes.find("POST", "/containers/web/start")[1] == {"id": "web"}
    for method, path in (
        ("GET", "/"),
        ("HEAD", "/info"),
        ("GET", "/info/"),
        ("GET", "/nothing"),
        ("PATCH", "/containers/json"),
        ("GET", "/containers/a/b/c"),
    ):
        with pytest.raises(NotFound, match="page not found"):
            routes.find(method, path)


ROUTES = build_routes()


@given(st.text(max_size=40))
def test_no_path_breaks_the_router(path):
    try:
        route, _ = ROUTES.find("GET", "/" + path)
    except NotFound:
        return
    assert callable(route.handler)


@pytest.mark.parametrize(("text", "value"), [("1", True), ("true", True), ("0", False), ("False", False), ("", False)])
def test_flags(text, value):
    assert query.flag({"x": text}, "x") is value
    assert query.flag({}, "x", default=True) is True


def test_numbers_and_tails():
    assert query.number({"t": "-1"}, "t") == -1
    assert query.number({}, "t", 7) == 7
    with pytest.raises(InvalidArgument):
        query.number({"t": "soon"}, "t")
    assert [query.tail({"tail": t}) for t in ("all", "", "0", "12", "many")] == [None, None, 0, 12, None]


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1700000000", 1_700_000_000 * 10**9),
        ("1700000000.5", 1_700_000_000 * 10**9 + 500_000_000),
        ("1.000000001", 10**9 + 1),
        ("2024-01-01T00:00:00Z", 1_704_067_200 * 10**9),
        ("", 0),
        ("0", 0),
    ],
)
def test_timestamps(text, ns):
    assert query.timestamp({"since": text}, "since") == ns


def test_filters_in_both_forms():
    new, old = '{"status":["running"]}', '{"status":{"running":false}}'
    assert query.filters({"filters": new}) == query.filters({"filters": old}) == {"status": ["running"]}
    for bad in ("{", "[]", "3", '{"status": 3}'):
        with pytest.raises(InvalidArgument, match="invalid filter"):
            query.filters({"filters": bad})


@given(st.text(max_size=30))
def test_no_filter_text_breaks_the_parser(text):
    try:
        query.filters({"filters": text})
    except InvalidArgument:
        return


def test_unknown_filters_are_refused():
    with pytest.raises(InvalidArgument, match="invalid filter 'colour'"):
        filters.image_predicate(None, {"colour": ["red"]})
    assert filters.event_predicate({"colour": ["red"]})({}), "of events Docker ignores them"


def test_event_filters():
    event = {
        "Type": "container",
        "Action": "exec_start: sh",
        "scope": "local",
        "Actor": {"ID": "abc", "Attributes": {"name": "web", "image": "busybox:1", "tier": "front"}},
    }
    for wanted, kept in (
        ({}, True),
        ({"type": ["container"]}, True),
        ({"type": ["image"]}, False),
        ({"event": ["exec_start"]}, True),
        ({"event": ["exec"]}, False),
        ({"container": ["web"]}, True),
        ({"container": ["ab"]}, True),
        ({"container": ["we"]}, True),
        ({"container": ["eb"]}, False),
        ({"image": ["busybox"]}, True),
        ({"label": ["tier=front"]}, True),
        ({"label": ["tier=back"]}, False),
        ({"type": ["container"], "container": ["other"]}, False),
    ):
        assert filters.event_predicate(wanted)(event) is kept, wanted


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (State(), "Created"),
        (State(status=Status.RUNNING, started_at=-65), "Up About a minute"),
        (State(status=Status.PAUSED, started_at=-5), "Up 5 seconds (Paused)"),
        (State(status=Status.EXITED, exit_code=3, started_at=-9, finished_at=-7200), "Exited (3) 2 hours ago"),
        (State(status=Status.RESTARTING, exit_code=1, started_at=-9, finished_at=-2), "Restarting (1) 2 seconds ago"),
    ],
)
def test_status_texts(state, text):
    now = time.time_ns()
    for name in ("started_at", "finished_at"):
        if getattr(state, name):
            setattr(state, name, now + getattr(state, name) * 10**9)
    container = Container(
        id="a" * 64,
        name="web",
        created=now,
        image_id="sha256:0",
        image_ref="busybox",
        config=ContainerConfig(),
        host=HostConfig(),
        state=state,
    )
    assert containers.status_text(container) == text


@pytest.mark.parametrize("value", ["1-99999999", "0-65536", "9-8", "eighty", "", "٣"])
def test_a_port_filter_is_bounded(value):
    with pytest.raises(InvalidArgument, match="error while looking up for publish"):
        container_filters._span("publish", value)


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("", 0),
        ("0", 0),
        ("12", 12 * 10**9),
        ("12.5", 12_500_000_000),
        ("1970-01-01T00:00:10Z", 10 * 10**9),
        ("1970-01-01T01:00:10+01:00", 10 * 10**9),
        ("1970-01-01T00:00:10.000000007Z", 10 * 10**9 + 7),
    ],
)
def test_moments(text: str, ns: int) -> None:
    assert query.timestamp({"since": text}, "since") == ns


@pytest.mark.parametrize("text", ["yesterday", "1970-13-01T00:00:00Z", "1970-01-1", "1970-01-01T00:00:10+9"])
def test_moments_that_are_none(text: str) -> None:
    with pytest.raises(InvalidArgument):
        query.timestamp({"since": text}, "since")


def test_options_of_anything_are_a_page_and_no_more() -> None:
    assert build_routes().find("OPTIONS", "*")
    with pytest.raises(NotFound):
        build_routes().find("GET", "*")


@pytest.mark.parametrize("seconds", [-(1 << 62), -62_135_596_801, -1, 0, 253_402_300_800, 1 << 62])
def test_any_time_that_a_container_gives_its_files(seconds):
    status = os.stat_result((0o100644, 0, 0, 1, 0, 0, 5, seconds, seconds, seconds), {"st_mtime_ns": seconds * 10**9})
    found = archive.path_stat(PathStat("name\udcff", status, "target\udcff"))
    facts = json.loads(base64.b64decode(found))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", facts["mtime"])
    assert facts["linkTarget"] == "target\ufffd"
