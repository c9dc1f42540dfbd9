"""What clients are told when a registry wants credentials, or has not what they ask for: dockerd's sentences."""

from __future__ import annotations

import base64
import http.server
import json
import threading
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from tests.support.rawapi import Api, Unix
from tests.support.registries.registries import registry

NO_CREDENTIALS = "no basic auth credentials"
UNAUTHORIZED = "unauthorized: authentication required"
UNKNOWN = "manifest unknown: manifest unknown"


class Asker(Api):
    """The API with credentials: (status, message, or the words of all lines)."""

    def ask(self, method: str, path: str, auth: str | None = None, **query: str) -> tuple[int, Any]:
        connection = Unix(self.path, 30)
        target = f"/v1.51{path}" + (f"?{urlencode(query)}" if query else "")
        connection.request(method, target, headers={} if auth is None else {"X-Registry-Auth": auth})
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        if answer.status != 200:
            return answer.status, json.loads(text)["message"].partition(" (")[0]
        lines = [json.loads(line) for line in text.splitlines() if line]
        words = (line.get("error") or line.get("status") for line in lines if isinstance(line, dict))
        return 200, [word.partition(" (")[0] for word in words if word]


def header(**facts: str) -> str:
    return base64.urlsafe_b64encode(json.dumps(facts).encode()).decode()


ANN, WRONG = header(username="ann", password="secret"), header(username="ann", password="wrong")
NOBODY = [None, header(), header(username="", password=""), "!!"]


@pytest.fixture(scope="module")
def private():
    with registry(users={"ann": "secret"}) as one:
        yield one.host


@pytest.fixture(scope="module")
def public():
    with registry() as one:
        yield one.host


@pytest.fixture
def asker(engine, private, public):
    one = Asker(engine.socket)
    for host in (private, public):
        one.must("POST", "/images/busybox/tag", repo=f"{host}/a/box", tag="1")
    yield one
    for host in (private, public):
        one("DELETE", f"/images/{host}/a/box:1")


def test_credentials_are_missing_or_wrong(asker, private):
    def pull(name: str, auth: str | None) -> tuple[int, Any]:
        return asker.ask("POST", "/images/create", auth, fromImage=f"{private}/{name}")

    def push(auth: str | None) -> str:
        status, words = asker.ask("POST", f"/images/{private}/a/box/push", auth, tag="1")
        assert status == 200 and words[0] == f"The push refers to repository [{private}/a/box]"
        return words[-1]

    url = f"http://{private}/v2/"
    for auth in NOBODY:
        assert push(auth) == NO_CREDENTIALS
        assert pull("a/box:1", auth) == (500, f'Head "{url}a/box/manifests/1": {NO_CREDENTIALS}')
        assert pull("a/box", auth) == (500, f'Get "{url}a/box/tags/list": {NO_CREDENTIALS}')
        inspected = asker.ask("GET", f"/distribution/{private}/a/box:1/json", auth)
        assert inspected == (500, f'Head "{url}a/box/manifests/1": {NO_CREDENTIALS}')
    for auth in (WRONG, header(username="x", password="y", identitytoken="z")):
        assert push(auth) == UNAUTHORIZED
        for name in ("a/box:1", "a/box", "nope:1"):
            assert pull(name, auth) == (401, UNAUTHORIZED)
        assert asker.ask("GET", f"/distribution/{private}/a/box:1/json", auth) == (401, UNAUTHORIZED)
    assert push(ANN).startswith("1: digest: sha256:")
    assert pull("a/box:1", ANN)[0] == 200
    assert pull("a/box:2", ANN) == (404, f"manifest for {private}/a/box:2 not found: {UNKNOWN}")
    assert asker.ask("GET", f"/distribution/{private}/a/box:2/json", ANN) == (404, UNKNOWN)


def test_login(asker, private, public):
    def login(host: str, **facts: Any) -> tuple[int, str]:
        status, answer = asker("POST", "/v1.51/auth", {"serveraddress": host, **facts})
        return status, answer.get("Status") or answer["message"].partition(" (")[0]

    done = (200, "Login Succeeded")
    url = f"http://{private}/v2/"
    for host in (private, f"http://{private}", f"https://{private}/v2/", public):
        assert login(host, username="ann", password="secret") == done
    failed = f"login attempt to {url} failed with status: 401 Unauthorized"
    assert login(private, username="ann", password="wrong") == (500, failed)
    assert login(private) == (500, f'Get "{url}": {NO_CREDENTIALS}')
    invalid = 'unable to parse server address: parse "https://A B": invalid character " " in host name'
    assert login("A B", username="x", password="y") == (400, invalid)
    wrong_type = "json: cannot unmarshal number into Go struct field .username of type string"
    assert login(private, username=5) == (500, wrong_type)


TOKEN_ANSWERS: dict[str, tuple[int, bytes]] = {
    "wrong": (401, b'{"details":"incorrect username or password"}'),
    "forbidden": (403, b'{"details":"not for you"}'),
    "broken": (500, b""),
    "junk": (200, b"junk"),
    "empty": (200, b"{}"),
}


@pytest.fixture
def strange():
    """A registry whose token server answers by the repository's name; with a token it always fails."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            if url.path == "/token":
                name = parse_qs(url.query).get("scope", [":"])[0].split(":")[1]
                self.answer(*TOKEN_ANSWERS.get(name, (200, b'{"token":"t"}')))
            elif "Authorization" not in self.headers:
                self.answer(401, b'{"errors":[{"code":"UNAUTHORIZED"}]}')
            else:
                codes = {"unknown": (404, "NAME_UNKNOWN"), "scope": (401, "DENIED")}
                status, code = codes.get(url.path.split("/")[2], (500, "UNAVAILABLE"))
                self.answer(status, json.dumps({"errors": [{"code": code, "message": ""}]}).encode())

        do_HEAD = do_GET

        def answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Retry-After", "0")  # what fails is asked again, and at once
            realm = f'realm="http://{self.headers["Host"]}/token"'
            scope = ',error="insufficient_scope"' if "/scope/" in self.path else ""
            self.send_header("WWW-Authenticate", f'Bearer {realm},service="s"{scope}')
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_token_servers_that_refuse(asker, strange):
    for name, status, words in (
        ("wrong", 401, "unauthorized: incorrect username or password"),
        ("forbidden", 403, "denied: not for you"),
        ("broken", 500, "received unexpected HTTP status: 500 Internal Server Error"),
        ("junk", 500, "unable to decode token response: "),
        ("empty", 500, "authorization server did not include a token in the response"),
    ):
        got, said = asker.ask("POST", "/images/create", fromImage=f"{strange}/{name}:1")
        assert got == status and said.startswith(f'Head "http://{strange}/v2/{name}/manifests/1": {words}'), said
    for name, status, words in (
        ("unknown", 404, "name unknown"),
        ("fails", 500, "received unexpected HTTP status: 500 Internal Server Error"),
        ("scope", 404, f"pull access denied for {strange}/scope, repository does not exist or may require"),
    ):
        got, said = asker.ask("POST", "/images/create", fromImage=f"{strange}/{name}:1")
        assert got == status and said.startswith(words), said


def test_what_is_not_there(asker, public):
    def lines(method: str, path: str, **query: str) -> tuple[int, Any]:
        return asker.ask(method, path, ANN, **query)

    digest = f"sha256:{'a' * 64}"
    box, refers = f"{public}/a/box", f"The push refers to repository [{public}/a/{{}}]"
    assert lines("POST", f"/images/{box}/push", tag="1")[0] == 200
    absent = f"An image does not exist locally with the tag: {public}/a/nope"
    assert lines("POST", f"/images/{public}/a/nope/push") == (200, [refers.format("nope"), absent])
    for path, words in (
        (f"/images/{box}/push?tag=2", f"tag does not exist: {box}:2"),
        (f"/images/{box}@{digest}/push", "cannot push a digest reference"),
    ):
        assert lines("POST", path) == (200, [refers.format("box"), words])
    for name, words in (
        ("a/box:2", f"manifest for {box}:2 not found: {UNKNOWN}"),
        (f"a/box@{digest}", f"manifest for {box}@{digest} not found: {UNKNOWN}"),
        (f"a/box:1@{digest}", f"manifest for {box}:1@{digest} not found: {UNKNOWN}"),
    ):
        assert lines("POST", "/images/create", fromImage=f"{public}/{name}") == (404, words)
    for name, status, words in (
        (f"{box}:2", 404, UNKNOWN),
        (f"{box}@{digest}", 404, UNKNOWN),
        (digest, 500, "no manifest found for full image ID"),
        ("BAD", 400, "invalid reference format: repository name"),
    ):
        assert lines("GET", f"/distribution/{name}/json") == (status, words)


def test_pulls_of_all_tags_and_of_other_platforms(asker, public):
    box = f"{public}/a/all"
    for tag in ("1", "2"):
        asker.must("POST", "/images/busybox/tag", repo=box, tag=tag)
    assert asker.ask("POST", f"/images/{box}/push", ANN)[0] == 200
    for name in (box, f"{box}:"):  # as Docker's client asked for all tags once
        status, words = asker.ask("POST", "/images/create", fromImage=name)
        assert status == 200
        assert [word for word in words if word.startswith("Pulling")] == ["Pulling from a/all"] * 2
        assert words[-1].endswith(f" {box}") and sum(word.startswith("Status: ") for word in words) == 1
    status, words = asker.ask("POST", "/images/create", fromImage=f"{box}:1", platform="linux/arm64")
    assert (status, words[-1]) == (
        200,
        f"WARNING: image with reference {box}:1 was found but its platform",
    )
    for tag in ("1", "2"):
        asker("DELETE", f"/images/{box}:{tag}")


def test_searches(asker, public):
    for query, status, words in (
        ({"term": f"{public}/x"}, 500, "Unexpected status code 404"),
        ({"term": "http://x"}, 400, "invalid repository name: repository name"),
        ({"term": "x", "limit": "101"}, 400, "limit 101 is outside the range of [1, 100]"),
        ({"term": "x", "limit": "x"}, 400, 'invalid limit specified: strconv.Atoi: parsing "x": invalid syntax'),
        ({"term": "x", "filters": '{"x":["y"]}'}, 400, "invalid filter 'x'"),
        (
            {"term": "x", "filters": '{"stars":["y"]}'},
            400,
            "invalid filter 'stars=y': strconv.Atoi: parsing \"y\": invalid syntax",
        ),
        ({"term": "x", "filters": '{"is-official":["y"]}'}, 400, "invalid filter 'is-official=[y]'"),
    ):
        assert asker.ask("GET", "/images/search", **query) == (status, words), query
    status, words = asker.ask("GET", "/images/search", term="127.0.0.1:1/x")
    assert status == 400 and words.startswith('invalid registry endpoint "http://127.0.0.1:1/v1/". HTTPS attempt: Get')
