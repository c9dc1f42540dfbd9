"""The API on TCP, asked by a browser for a page: what it sends without the page being allowed to, is refused."""

from __future__ import annotations

import contextlib
import gzip
import json
import socket

import pytest

from tests.support.rawapi import connected
from tests.support.tls import trusting
from tests.support.waiting import patient

CREATE = json.dumps({"Image": "busybox", "Cmd": ["true"], "HostConfig": {"Privileged": True}}).encode()
# fetch(url, {mode: "no-cors"}) may send these kinds; a Blob without a type is sent with none.
SIMPLE = ("", "text/plain", "text/plain;charset=UTF-8", "application/x-www-form-urlencoded", "multipart/form-data; a=b")
JSON_ROUTES = (
    ("/containers/create", CREATE),
    ("/containers/none/exec", b'{"Cmd": ["true"]}'),
    ("/containers/none/update", b"{}"),
    ("/exec/none/start", b"{}"),
    ("/networks/create", b'{"Name": "page"}'),
    ("/networks/bridge/connect", b'{"Container": "none"}'),
    ("/networks/bridge/disconnect", b'{"Container": "none"}'),
    ("/volumes/create", b'{"Name": "page"}'),
    ("/commit?container=none", b"null"),
    ("/commit?container=none", b"{}"),
)
# Some act, some answer much, some take the connection over.
ANY_ROUTES = (
    ("POST", "/containers/create"),
    ("POST", "/containers/none/start"),
    ("POST", "/containers/none/kill"),
    ("POST", "/containers/none/attach?stream=1"),
    ("POST", "/exec/none/start"),
    ("POST", "/images/load"),
    ("POST", "/images/create?fromImage=127.0.0.1:1/none"),
    ("POST", "/volumes/prune"),
    ("PUT", "/containers/none/archive?path=/"),
    ("DELETE", "/volumes/none"),
    ("GET", "/containers/none/attach/ws?stream=1"),
    ("GET", "/images/busybox/get"),
    ("GET", "/_ping"),
    ("HEAD", "/_ping"),
    ("GET", "/no/such/page"),
)


def ask(sock: socket.socket, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> tuple[int, str]:
    """(status, text) of one request."""
    with sock:
        lines = [f"{method} {path} HTTP/1.1", "Connection: close", *(f"{k}: {v}" for k, v in headers.items())]
        sock.settimeout(patient(20))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            sock.sendall("\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while data := sock.recv(1 << 16):
                answer += data
    head, _, rest = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), rest.decode(errors="replace")


@pytest.fixture(scope="module")
def listening(file_engine):
    """An engine, and a function that connects to its TCP port; its own name is ``named.example``."""
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as s:
        port = s.getsockname()[1]
    file_engine.extra = ["-H", f"tcp://127.0.0.1:{port}", "--tcp-name", "named.example"]
    file_engine.start()
    file_engine.add_busybox()
    return file_engine, port, lambda: socket.create_connection(("127.0.0.1", port))


@pytest.mark.parametrize(("path", "body"), JSON_ROUTES)
def test_a_body_must_say_that_it_is_json(engine, path, body):
    for kind in SIMPLE:
        headers = {"Host": "localhost", **({"Content-Type": kind} if kind else {})}
        status, text = ask(connected(engine.socket), "POST", path, headers, body)
        assert status == 400, (kind, text)
        assert "Content-Type header" in text, (kind, text)
    for kind in ("application/json", "Application/JSON; charset=utf-8"):
        status, text = ask(connected(engine.socket), "POST", path, {"Host": "localhost", "Content-Type": kind}, body)
        assert "Content-Type" not in text, (kind, text)


def test_null_is_nothing_given(engine):
    """Clients in Go send it for a pointer that points nowhere."""
    headers = {"Host": "localhost", "Content-Type": "application/json"}
    status, text = ask(connected(engine.socket), "POST", "/volumes/create", headers, b" null\n")
    assert status == 201, text
    engine.client("volume", "rm", json.loads(text)["Name"])
    for path, message in (("/containers/none/update", "No such container"), ("/exec/none/start", "No such exec")):
        status, text = ask(connected(engine.socket), "POST", path, headers, b"null")
        assert (status, message in text) == (404, True), text


@pytest.mark.ketch_only
def test_texts_with_a_nul_byte_are_refused(engine):
    """No path, argument or name can have one: a cgroup parent with one could not be started, nor removed."""
    headers, evil = {"Host": "localhost", "Content-Type": "application/json"}, "/a\0b"
    for more in (
        {"Cmd": [evil]},
        {"WorkingDir": evil},
        {"Volumes": {evil: {}}},
        {"Hostname": evil},
        {"HostConfig": {"CgroupParent": evil}},
        {"HostConfig": {"Binds": [f"{evil}:/x"]}},
        {"HostConfig": {"Devices": [{"PathOnHost": evil, "PathInContainer": "/x"}]}},
    ):
        body = json.dumps({"Image": "busybox", **more}).encode()
        status, text = ask(connected(engine.socket), "POST", "/containers/create", headers, body)
        assert (status, "has a NUL byte" in text) == (400, True), text
    body = json.dumps({"Image": "busybox", "Cmd": ["\\u0000"], "Labels": {"a\0": "b\0"}}).encode()
    status, text = ask(connected(engine.socket), "POST", "/containers/create", headers, body)
    assert status == 201, text
    engine.client("rm", json.loads(text)["Id"])


def test_archives_come_with_any_kind(engine):
    """docker sends application/x-tar, docker-py nothing, curl --data-binary a form's."""
    for kind in SIMPLE:
        headers = {"Host": "localhost", **({"Content-Type": kind} if kind else {})}
        for method, path in (
            ("POST", "/images/load"),
            ("POST", "/images/create?fromSrc=-"),
            ("PUT", "/containers/none/archive?path=/"),
        ):
            _, text = ask(connected(engine.socket), method, path, headers, b"no tar" * 200)
            assert "Content-Type" not in text, (path, kind)


@pytest.mark.parametrize(("method", "path"), ANY_ROUTES)
def test_pages_are_refused(listening, method, path):
    _, port, connect = listening
    own = f"127.0.0.1:{port}"
    page = {"Content-Type": "application/json"}
    websocket = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    }
    for headers in (
        {"Host": own, "Origin": "http://evil.example"},
        {"Host": own, "Origin": "null"},  # a sandboxed frame, a file, a redirect from elsewhere
        {"Host": own, "Origin": f"http://localhost:{port}"},  # another program on this machine
        {"Host": own, "Origin": "http://127.0.0.1:1"},
        {"Host": own, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},  # <img>, <script>
        {"Host": own, "Sec-Fetch-Site": "same-site"},
        {"Host": f"evil.example:{port}", "Origin": f"http://evil.example:{port}"},  # DNS rebinding
        {"Host": f"evil.example:{port}"},
        {"Host": f"127.0.0.1.evil.example:{port}"},
        {"Host": f"EVIL.example.:{port}"},
        {"Host": f"localhost@evil.example:{port}"},
    ):
        for more in (page, websocket):
            status, text = ask(connect(), method, path, {**headers, **more})
            assert status == 403, (headers, text)


def test_nothing_was_done_for_a_page(listening):
    engine, port, connect = listening
    headers = {"Host": f"127.0.0.1:{port}", "Origin": "http://evil.example", "Content-Type": "application/json"}
    assert ask(connect(), "POST", "/containers/create?name=page", headers, CREATE)[0] == 403
    assert engine.client("ps", "-aq").out == ""


def test_clients_are_served(listening):
    engine, port, connect = listening
    nodename = socket.gethostname()
    for host in (
        f"127.0.0.1:{port}",
        f"[::1]:{port}",
        "localhost",
        f"LOCALHOST:{port}",
        "api.moby.localhost",
        "docker",
        f"docker:{port}",
        "ketch",
        "10.1.2.3",
        f"{nodename}:{port}",
        f"named.example:{port}",
        "Named.Example.",
        "",
    ):
        assert ask(connect(), "GET", "/_ping", {"Host": host}) == (200, "OK"), host
    # A page of the daemon's own address is its own, and a person may type the address.
    own = {"Host": f"127.0.0.1:{port}", "Origin": f"http://127.0.0.1:{port}", "Sec-Fetch-Site": "same-origin"}
    assert ask(connect(), "GET", "/_ping", own)[0] == 200
    assert ask(connect(), "GET", "/_ping", {"Host": "localhost", "Sec-Fetch-Site": "none"})[0] == 200
    # A unix socket is out of a browser's reach; proxies in front of it send what they like.
    page = {"Host": "%2Frun%2Fketch.sock", "Origin": "http://dashboard.example"}
    assert ask(connected(engine.socket), "GET", "/_ping", page)[0] == 200
    assert engine.client("-H", f"tcp://127.0.0.1:{port}", "run", "--rm", "busybox", "echo", "hello").out == "hello\n"
    assert engine.ketch("-H", f"tcp://127.0.0.1:{port}", "ps", "-q").code == 0


def test_a_certificate_in_the_browser_does_not_help_a_page(secured, tmp_path):

    engine, flags = secured
    port = int(flags("client")[1].rpartition(":")[2])
    context = trusting(f"{tmp_path}/authority.pem")
    context.load_cert_chain(f"{tmp_path}/client.pem", f"{tmp_path}/client.key")

    def connect() -> socket.socket:
        return context.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname="localhost")

    host = f"localhost:{port}"
    assert ask(connect(), "GET", "/_ping", {"Host": host})[0] == 200
    assert ask(connect(), "GET", "/_ping", {"Host": host, "Origin": "https://evil.example"})[0] == 403
    assert ask(connect(), "GET", "/_ping", {"Host": host, "Sec-Fetch-Site": "cross-site"})[0] == 403
    assert ask(connect(), "GET", "/_ping", {"Host": "engine.example"})[0] == 200  # the certificate is the proof


@pytest.mark.ketch_only
def test_bodies_have_a_limit(engine):
    """What is checked is all that is used: no part of a body goes unread, and none is read without end."""
    kind = {"Host": "localhost", "Content-Type": "application/json"}
    big = json.dumps({"Image": "busybox", "Labels": {"big": "x" * (3 << 20)}, "HostConfig": {"Runtime": "none"}})
    status, text = ask(connected(engine.socket), "POST", "/containers/create", kind, big.encode())
    assert status == 400, text
    assert "none" in text  # the end was seen
    huge = b" " * (9 << 20) + CREATE
    status, text = ask(connected(engine.socket), "POST", "/containers/create", kind, huge)
    assert status == 413, text
    assert "8 MiB" in text
    with connected(engine.socket) as sock:
        sock.settimeout(patient(20))
        head = "POST /volumes/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n"
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            sock.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
            for _ in range(10):
                sock.sendall(b"100000\r\n" + b" " * 0x100000 + b"\r\n")
            sock.sendall(b"0\r\n\r\n")
        assert sock.recv(1 << 16).startswith(b"HTTP/1.1 413")
    # As with dockerd a body is what was sent: nothing is inflated.
    for coding, body in (("gzip", gzip.compress(b" " * (1 << 26) + CREATE)), ("deflate", b"x"), ("br", b"x")):
        status, text = ask(
            connected(engine.socket), "POST", "/containers/create", {**kind, "Content-Encoding": coding}, body
        )
        assert status == 400, text
        assert "invalid JSON" in text


def test_of_two_members_of_one_name_the_last_counts(engine):
    body = b'{"Name": "first", "Labels": {"a": "1"}, "Name": "last", "Labels": {"a": "2"}}'
    kind = {"Host": "localhost", "Content-Type": "application/json"}
    status, text = ask(connected(engine.socket), "POST", "/volumes/create", kind, body)
    assert status == 201, text
    assert json.loads(text)["Name"] == "last"
    assert ask(connected(engine.socket), "DELETE", "/volumes/last", {"Host": "localhost"})[0] == 204
