"""Every path of the API's description, and some beside it, with every method: the same status and words as dockerd's.

The paths name no object that exists, and this machine is in no swarm and has no plugin.
"""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.fuzzing.contract import load_description
from tests.support.rawapi import Unix

pytestmark = pytest.mark.ketch_only  # it has a dockerd beside itself
BESIDE = (
    *("/", "/nothing", "/info/", "/containers", "/containers/json/", "/networks/", "/images", "/exec/x", "/events/x"),
    *("/swarm/foo", "/services/x/y", "/v1.51", "/v1.51/nothing", "/v1.99/info", "/v1.24/configs", "/v1.24/nodes/x"),
    *("/grpc", "/containers/x/checkpoints", "/containers/x/checkpoints/y", "/plugins/a/b/json", "/build/prune"),
    *("/services/x/logs?stdout=1", "/tasks/x/logs?stderr=1", "/swarm/update?version=1", "/secrets/x/update?version=1"),
    *("/nodes/x/update?version=1", "/services/x/update?version=y", "/plugins/x/enable?timeout=0", "/plugins?filters=x"),
    *("/plugins?filters=%7B%22enabled%22%3A%5B%22true%22%5D%7D", "/plugins/x/upgrade?remote=y", "/services?filters=x"),
    *("/plugins?filters=%7B%22enabled%22%3A%5B%22a%22%5D%7D", "/build?version=3", "/build/cancel?id=x"),
)
METHODS = ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH")
# What would change the engine, ask a registry, or never end.
NOT_ASKED = re.compile(
    r"(POST /swarm/(init|join)|GET /events|POST /(containers|images|volumes|networks|build)/prune|POST /images/create"
    r"|GET /images/search|GET /distribution/.*|POST /images/load|POST /auth|POST /build)\Z"
)
# (request, ours, dockerd's) that differ on purpose, as a pattern.
DIFFERENT = [
    r"(GET|PUT) /containers/nope/archive .*path cannot be empty.*",  # a space in the sentence
    r"POST /containers/nope/attach 404 No such container: nope 404 None",  # an error as all the others: JSON
    r"GET /images/get 400 .* 200 .*",  # an archive of nothing
    r"POST /images/nope/tag 400 .* 200 .*",  # a tag without a name
    r"(GET|POST|DELETE) /containers/x/checkpoints(/y)? 501 (.*) \(Ketch has no checkpoints\) 501 \3",
    r"GET /plugins\?filters=%7B.* 400 (.*) \(use true or false\) 400 \1",
    r".* /(services|plugins)\?filters=x 400 invalid filter.* 400 invalid filter.*",
    r"DELETE /networks/ .*",  # every network begins with an empty name
    r"GET /images/nope/get 404 .* 404 .*",
]


def ask(path: str, method: str, target: str) -> tuple[int, str | None]:
    """(status, the error's message; None: the body is none)"""
    connection = Unix(path)
    try:
        connection.request(method, target)
        answer = connection.getresponse()
        text = answer.read() if answer.headers.get("Content-Type", "").startswith("application/json") else b""
    finally:
        connection.close()
    try:
        body = json.loads(text or b"null")
    except ValueError:  # several lines of progress
        return answer.status, None
    return answer.status, body.get("message") if isinstance(body, dict) else None


def test_every_path_and_method(engine, dockerd):
    paths = [re.sub(r"\{\w+\}", "nope", path) for path in load_description()["paths"]]
    asked = [(m, p) for p in (*paths, *BESIDE) for m in METHODS if not NOT_ASKED.match(f"{m} {p}")]
    with ThreadPoolExecutor(4) as pool:
        ours = pool.map(lambda one: ask(engine.socket, *one), asked)
        theirs = pool.map(lambda one: ask(dockerd.socket, *one), asked)
        rows = [
            f"{method} {path} {mine[0]} {mine[1]} {other[0]} {other[1]}"
            for (method, path), mine, other in zip(asked, ours, theirs, strict=True)
            if mine != other
        ]
    wrong = [row for row in rows if not any(re.fullmatch(pattern, row, re.DOTALL) for pattern in DIFFERENT)]
    assert not wrong, "request, ours, dockerd's:\n" + "\n".join(wrong)
    unused = [p for p in DIFFERENT if not any(re.fullmatch(p, row, re.DOTALL) for row in rows)]
    assert not unused, "these differ no more:\n" + "\n".join(unused)


@pytest.mark.parametrize(
    ("method", "path", "feature"),
    [
        ("POST", "/swarm/init", "swarm"),
        ("POST", "/swarm/join", "swarm"),
        ("POST", "/plugins/pull?remote=x", "plugins"),
        ("POST", "/plugins/create?name=x", "plugins"),
        ("POST", "/build?version=2", "BuildKit"),
    ],
)
def test_what_is_not_there_is_named(engine, method, path, feature):
    status, message = ask(engine.socket, method, path)
    assert status == 501
    assert feature in (message or "")


@pytest.mark.parametrize(
    ("path", "protocol", "status", "message"),
    [
        ("/grpc", "tcp", 500, "protocol tcp not supported"),
        ("/session", "h2c", 400, "a session needs an id"),
    ],
)
def test_an_upgrade_that_is_refused(engine, path, protocol, status, message):
    connection = Unix(engine.socket)
    connection.request("POST", path, headers={"Connection": "Upgrade", "Upgrade": protocol})
    answer = connection.getresponse()
    assert answer.status == status
    assert json.loads(answer.read())["message"].startswith(message)
    connection.close()
