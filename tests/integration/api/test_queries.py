"""Query strings: numbers, truth values, times, filters that cannot be read are refused as dockerd refuses them."""

from __future__ import annotations

import contextlib
import json
from typing import Any
from urllib.parse import quote

import pytest

from tests.support.rawapi import Api, Unix

ATOI = 'strconv.Atoi: parsing "{}": {}'
PARSE_INT = 'strconv.ParseInt: parsing "{}": invalid syntax'
TOO_LARGE = "99999999999999999999999"


def ask(engine, method: str, path: str) -> tuple[int, Any]:
    """The answer to a request whose path is sent as it is."""
    with contextlib.closing(Unix(engine.socket)) as connection:
        connection.putrequest(method, path, skip_accept_encoding=True)
        connection.endheaders()
        answer = connection.getresponse()
        text = answer.read()
    return answer.status, json.loads(text) if text.startswith((b"{", b"[")) else text


@pytest.fixture
def two(engine):
    """A container with a terminal that runs, and one that was never started."""
    api = Api(engine.socket)
    body = {"Image": "busybox", "Cmd": ["sleep", "1000"], "Tty": True}
    one = api.must("POST", "/containers/create", body, name="one")["Id"]
    api.must("POST", f"/containers/{one}/start")
    api.must("POST", "/containers/create", body, name="two")
    return api.must("POST", "/containers/one/exec", {"Cmd": ["sleep", "1000"], "Tty": True})["Id"]


def refusals() -> dict[str, str]:
    """Requests, and the words that they are refused with."""
    wrong = {
        "many": "invalid syntax",
        "1.5": "invalid syntax",
        "0x10": "invalid syntax",
        "1_000": "invalid syntax",
        " 1": "invalid syntax",
        "１": "invalid syntax",
        TOO_LARGE: "value out of range",
    }
    found = {
        f"{request}={quote(value)}": ATOI.format(value, why)
        for request in ("GET /containers/json?limit", "POST /containers/two/stop?t", "POST /containers/one/restart?t")
        for value, why in wrong.items()
    }
    for value in ("x", "+1", " 1", ""):
        for path in ("/containers/one/resize", "/exec/EXEC/resize"):
            found[f"POST {path}?w=80&h={quote(value)}"] = f'invalid resize height "{value}": invalid syntax'
    for value in ("-1", "4294967296"):
        found[f"POST /containers/one/resize?w={value}&h=20"] = f'invalid resize width "{value}": value out of range'
    for request in (
        "GET /containers/one/logs?stdout=1&since",
        "GET /containers/one/logs?stdout=1&until",
        "GET /events?until",
        "GET /events?until=1&since",
    ):
        for value, part in (("x", "x"), ("1.x", "x"), ("1e9", "1e9"), ("yesterday", "yesterday"), ("1.", "")):
            found[f"{request}={value}"] = PARSE_INT.format(part)
    found["GET /networks/bridge?verbose=yes"] = (
        'invalid value for verbose: yes: strconv.ParseBool: parsing "yes": invalid syntax'
    )
    found["GET /images/search?term=x&limit=many"] = "invalid limit specified: " + ATOI.format("many", "invalid syntax")
    for path in ("/containers/json", "/images/json", "/networks", "/volumes", "/containers/nope/top", "/system/df"):
        found[f"GET {path}?%zz"] = 'invalid URL escape "%zz"'
        found[f"GET {path}?a=1;b=2"] = "invalid semicolon separator in query"
    found["DELETE /containers/nope?force=%1"] = 'invalid URL escape "%1"'
    for filters, why in (
        ("x", "invalid filter"),
        ("[]", "invalid filter"),
        ('{"a":1}', "invalid filter"),
        ('{"zz":["a"]}', "invalid filter 'zz'"),
        (
            '{"status":["zz"]}',
            "invalid filter 'status=zz': invalid value for state (zz): must be one of created, running, paused, "
            "restarting, removing, exited, dead",
        ),
        (
            '{"health":["zz"]}',
            "invalid filter 'health=zz': invalid value for health (zz): must be one of none, starting, healthy, "
            "unhealthy",
        ),
        ('{"exited":["zz"]}', "invalid filter 'exited=zz': " + ATOI.format("zz", "invalid syntax")),
        ('{"is-task":["zz"]}', "invalid filter 'is-task=[zz]'"),
    ):
        found[f"GET /containers/json?filters={quote(filters)}"] = why
    for path, name in (
        ("GET /images/json", "dangling"),
        ("POST /images/prune", "dangling"),
        ("GET /volumes", "dangling"),
    ):
        found[f"{path}?filters={quote(json.dumps({name: ['zz']}))}"] = f"invalid filter '{name}=[zz]'"
    both = quote('{"dangling":["true","false"]}')
    found[f"POST /images/prune?filters={both}"] = "invalid filter 'dangling=["
    until = quote('{"until":["zz"]}')
    for path in ("/containers/prune", "/networks/prune"):
        found[f"POST {path}?filters={until}"] = 'failed to parse value as time or duration: "zz"'
    return found


def test_what_is_refused(engine, two):
    differences = {}
    for request, words in refusals().items():
        method, _, path = request.partition(" ")
        status, answer = ask(engine, method, path.replace("EXEC", two))
        message = answer.get("message", "") if isinstance(answer, dict) else ""
        if status != (500 if words.startswith("strconv.") else 400) or not message.startswith(words):
            differences[request] = (status, message or answer, words)
    assert differences == {}


def test_what_is_taken(engine, two):
    taken = {
        "GET /containers/json?all=%200": 1,  # space around a truth value counts for nothing
        "GET /containers/json?all=NONE": 1,
        "GET /containers/json?all=off": 2,
        "GET /containers/json?limit=%2B1": 1,
        "GET /containers/json?limit=-1&all=1": 2,
        "GET /containers/json?limit=&all=1": 2,
        "GET /containers/json?all=0&all=1": 1,
        "POST /containers/one/resize?h=70000&w=80": b"",
        "GET /containers/one/logs?stdout=1&tail=x": b"",
        "GET /networks/bridge?verbose=": None,
        "GET /_ping?%zz": b"OK",
        "GET /info?a;b": None,
        "GET /containers/one/json?%zz": None,
        "GET /events?until=1&since=0": b"",
    }
    differences = {}
    for request, expected in taken.items():
        status, answer = ask(engine, *request.split(" ", 1))
        found = len(answer) if isinstance(answer, list) else None if isinstance(answer, dict) else answer
        if (status, found) != (200, expected):
            differences[request] = (status, answer)
    assert differences == {}


def test_a_network_of_another_scope(engine):
    status, answer = ask(engine, "GET", "/networks/bridge?scope=global")
    assert (status, "network bridge not found" in answer["message"]) == (404, True)


def test_states_that_do_not_fit(engine, two):
    for request, words in (
        ("POST /containers/one/unpause", "Container {} is not paused"),
        ("POST /containers/two/unpause", "Container {} is not paused"),
        ("POST /containers/two/pause", "container {} is not running"),
        ("POST /containers/two/resize?h=1&w=1", "container {} is not running"),
        ("DELETE /containers/two?link=1", "Conflict, cannot remove the default link name of the container"),
        ("DELETE /containers/two/alias?link=1", "No such container: two/alias"),
    ):
        name = request.split("/")[2].partition("?")[0]
        id_ = Api(engine.socket).must("GET", f"/containers/{name}/json")["Id"]
        status, answer = ask(engine, *request.split(" ", 1))
        assert (status >= 400, answer["message"].startswith(words.format(id_))) == (True, True), (request, answer)
    assert ask(engine, "POST", "/containers/one/pause")[0] == 204
    status, answer = ask(engine, "POST", "/containers/one/pause")
    assert (status, "is already paused" in answer["message"]) == (409, True)
    assert ask(engine, "POST", "/containers/one/unpause")[0] == 204
