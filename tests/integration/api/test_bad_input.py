"""Invalid requests: refused with a clear message and Docker's status; nothing half-made stays."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
from urllib.parse import urlencode

import docker
import pytest

from tests.support.rawapi import Api, Unix, connected
from tests.support.waiting import patient


@pytest.fixture(autouse=True)
def _nothing_stays(engine):
    yield
    assert engine.docker("ps", "-aq").out == ""
    assert engine.answers()


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (("run", "--pull", "never", "no-such-image"), 125, "no such image|is not here"),
        (("run", "-m", "lots", "busybox"), 125, "invalid"),
        (("run", "-m", "1k", "busybox"), 125, "minimum memory"),
        (("run", "--cpus", "-1", "busybox"), 125, "cpus"),
        (("run", "-p", "99999:80", "busybox"), 125, "invalid"),
        (("run", "-p", "80:eighty", "busybox"), 125, "invalid"),
        (("run", "-v", "a:b:c:d", "busybox"), 125, "invalid"),
        (("run", "-v", "data:relative", "busybox"), 125, "invalid|absolute"),
        (("run", "--mount", "type=nonsense,dst=/x", "busybox"), 125, "nonsense|invalid"),
        (("run", "--name", "not/valid", "busybox"), 125, "invalid container name"),
        (("run", "--workdir", "relative", "busybox"), 125, "absolute"),
        (("run", "--user", "a:b:c", "busybox"), 125, "."),
        (("run", "--network", "container:none", "busybox"), 125, "no such container"),
        (("run", "--cap-add", "NO_SUCH", "busybox"), 125, "(?i)invalid|unknown"),
        (("run", "--ulimit", "nofile=x", "busybox"), 125, "invalid"),
        (("run", "-e", "=x", "busybox"), 125, "invalid environment"),
        (("run", "--stop-signal", "SIGNONE", "busybox"), 125, "invalid signal"),
        (("run", "--cpuset-cpus", "9999", "busybox"), 125, "cpu"),
        (("run", "--restart", "sometimes", "busybox"), 125, "invalid restart policy"),
        (("run",), None, "(requires|takes) at least 1 argument"),
        (("start", "none"), 1, "no such container"),
        (("stop", "none"), 1, "no such container"),
        (("exec", "none", "true"), 1, "no such container"),
        (("logs", "none"), 1, "no such container"),
        (("inspect", "no-such"), 1, "no such object"),
        (("rm", "none"), 1, "no such container"),
        (("attach", "none"), 1, "no such container"),
        (("kill", "-s", "NONSENSE", "none"), 1, "."),
        (("rmi", "none"), 1, "no such image"),
        (("tag", "none", "other"), 1, "no such image"),
        (("tag", "busybox", "UPPER CASE"), 1, "invalid reference|not a valid"),
        (("ps", "--filter", "nonsense=1"), 1, "invalid filter"),
        (("no-such-command",), None, "no-such-command"),
        (("ps", "--no-such-flag"), None, "unknown flag"),
    ],
)
def test_command_line(client, args, code, message):
    result = client(*args, check=False)
    try:
        assert result.code == code if code is not None else result.code > 0
        assert re.search(message, result.err, re.IGNORECASE), result.err
        assert "Traceback" not in result.err
    finally:
        client.engine.remove_all()  # a bad start leaves its container in state created, as Docker's does


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "nonsense", "application/jsonx"])
def test_a_body_of_another_kind(engine, kind):
    with contextlib.closing(Unix(engine.socket)) as connection:
        connection.request("POST", "/v1.51/containers/create", b'{"Image": "busybox"}', {"Content-Type": kind})
        answer = connection.getresponse()
        text = json.loads(answer.read())["message"]
    assert (answer.status, text) == (400, f"unsupported Content-Type header ({kind}): must be 'application/json'")


def test_a_long_request_line(engine):
    """Compose asks for its containers by id, all in one filter: more than most web servers take."""
    labels = [f"com.example.some.long.label.{number}=value" for number in range(1000)]
    with contextlib.closing(engine.py()) as client:
        assert client.containers.list(filters={"label": labels}) == []


@pytest.mark.ketch_only
def test_invalid_http_is_answered_in_json(engine):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(patient(10))
        sock.connect(engine.socket)
        sock.sendall(b"no such thing\r\n\r\n")
        answer = http.client.HTTPResponse(sock)
        answer.begin()
        body = json.loads(answer.read())
        assert answer.status == 400 and body["message"] and body["kind"] == "invalid_argument"


def _with_profile(text: str) -> bytes:
    host = {"SecurityOpt": [f"seccomp={text}"]}
    return json.dumps({"Image": "busybox", "Cmd": ["true"], "HostConfig": host}).encode()


@pytest.mark.ketch_only
@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/containers/create", b'{"Image": "busybox", "HostConfig": {"Memory": 9223372036854775808}}', "of type int64"),
        ("/containers/create", b'{"Image": "busybox", "HostConfig": {"ConsoleSize": [-1, 2]}}', "of type uint"),
        ("/containers/create", b'{"Image": "busybox", "HostConfig": {"BlkioWeight": 70000}}', "of type uint16"),
        ("/containers/create", b'{"Image": "\xff"}', "invalid reference format"),
        ("/containers/create", b'{"a":' * 5000 + b"1" + b"}" * 5000, "nested too deeply"),
        ("/images/create?fromImage=x&platform=%7B%22x%22:" + "[" * 3000, None, "is an invalid OS component"),
        ("/images/prune?filters=%7B%22x%22:" + "[" * 3000, None, "nested too deeply"),
        ("/containers/create", _with_profile('{"defaultAction":' + "[" * 5000), "seccomp profile failed"),
        ("/containers/create", _with_profile('{"defaultAction":"x","y":' + "[" * 5000), "nested too deeply"),
        ("/volumes/create", b'{"Name": "' + b"a" * 300 + b'"}', "at most 255 characters"),
        (
            "/networks/create",
            b'{"Name": "n", "Options": {"com.docker.network.driver.mtu": "-1"}}',
            "invalid MTU number: -1",
        ),
        (
            "/networks/bridge/connect",
            b'{"Container": "x", "EndpointConfig": {"IPAMConfig": {"IPv4Address": 1}}}',
            "cannot unmarshal number into Go struct field ConnectOptions.EndpointConfig.IPAMConfig.IPv4Address",
        ),
    ],
)
def test_values_that_clients_could_not_read_back(engine, path, body, message):
    with contextlib.closing(Unix(engine.socket)) as connection:
        connection.request("POST", f"/v1.51{path}", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = json.loads(answer.read())["message"]
    assert answer.status == 400 and message in text, text


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/v1.51/containers/create", b"{not json", 400),
        ("POST", "/v1.51/containers/create", b"[1, 2]", 400),
        ("POST", "/v1.51/containers/create", b"", 400),
        ("POST", "/v1.51/containers/create", b'{"Image": 5}', 400),
        ("POST", "/v1.51/containers/create", b'{"Image": "no-such"}', 404),
        ("POST", "/v1.51/containers/create?name=a/b", b'{"Image": "busybox"}', 400),
        ("GET", "/v1.99/containers/json", b"", 400),
        ("GET", "/v1.51/containers/json?limit=many", b"", 500),
        ("GET", "/v1.51/no/such/page", b"", 404),
        ("GET", "/v1.51/containers/none/json", b"", 404),
        ("GET", "/v1.51/images/none/json", b"", 404),
        ("GET", "/v1.51/containers/json?filters=%7Bbroken", b"", 400),
        ("POST", "/v1.51/containers/none/start", b"", 404),
        ("POST", "/v1.51/containers/none/wait", b"", 404),
        ("DELETE", "/v1.51/containers/none", b"", 404),
        ("POST", "/v1.51/exec/none/start", b'{"Detach": true}', 404),
    ],
)
def test_http(engine, method, path, body, status):
    connection = Unix(engine.socket)
    connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    assert answer.status == status, text
    assert isinstance(json.loads(text)["message"], str)


@pytest.mark.ketch_only
@pytest.mark.parametrize(
    ("method", "path", "body", "status", "kind"),
    [
        ("GET", "/v1.51/no/such/page", None, 404, "not_found"),
        ("GET", "/v1.51/containers/none/json", None, 404, "not_found"),
        ("GET", "/v1.51/images/none/json", None, 404, "image_not_found"),
        ("POST", "/v1.51/containers/create", {"Image": "none"}, 404, "image_not_found"),
        ("POST", "/v1.51/containers/create?platform=linux/s390x", {"Image": "busybox"}, 404, "platform_mismatch"),
        ("POST", "/v1.51/containers/create?name=taken", {"Image": "busybox"}, 409, "already_exists"),
        ("POST", "/v1.51/containers/taken/pause", None, 409, "conflict"),
        ("POST", "/v1.51/containers/taken/start", None, 400, "program_not_found"),
        ("POST", "/v1.51/build?version=2", None, 501, "unimplemented"),
        ("POST", "/v1.51/networks/create", {"Name": ""}, 400, "invalid_argument"),
    ],
)
def test_kinds_of_errors(engine, method, path, body, status, kind):
    engine.ketch("create", "--name", "taken", "busybox", "no-such-program")
    try:
        with contextlib.closing(Unix(engine.socket)) as connection:
            connection.request(method, path, body and json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            assert (answer.status, json.loads(answer.read())["kind"]) == (status, kind)
    finally:
        engine.remove_all()


def test_garbage_on_the_socket(engine):
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(patient(10))
        s.connect(engine.socket)
        s.sendall(b"\x16\x03\x01 this is not HTTP\r\n\r\n" + b"\0" * 5000)
        assert re.match(rb"HTTP/1\.[01] 400 ", s.recv(100))


def test_ambiguous_id(client):
    ids = [client("create", "busybox").out.strip() for _ in range(17)]
    first = next(i[0] for i in ids if sum(other[0] == i[0] for other in ids) > 1)  # 17 ids, 16 first digits
    result = client("inspect", first, check=False)
    client.engine.remove_all()
    assert result.code == 1
    assert re.search("multiple|ambiguous", result.err, re.IGNORECASE)


@pytest.mark.ketch_only
@pytest.mark.parametrize("number", ["9" * 25, "9" * 5000, "%D9%A3"])
def test_numbers_that_nobody_means(engine, number):
    """Refused, or taken as none; never an error of the daemon's."""
    api = Api(engine.socket)
    text = "\u0663" if number.startswith("%") else number
    filters = urlencode({"filters": json.dumps({"until": [f"{text}h"]})})
    made = {"Image": "busybox", "Cmd": ["true"]}
    for method, path, body in (
        ("GET", f"/v{number}.1/info", None),
        ("GET", f"/containers/none/logs?stdout=1&tail={number}&since={number}", None),
        ("GET", f"/events?until=1&since={number}", None),
        ("GET", f"/containers/json?limit={number}", None),
        ("GET", f"/images/busybox/json?platform=linux/arm/v{number}", None),
        ("POST", f"/images/prune?{filters}", b""),
        ("POST", f"/commit?container=none&changes=HEALTHCHECK+--interval={number}h+CMD+x", b""),
        ("POST", f"/containers/none/kill?signal={number}", b""),
        ("POST", "/containers/create", {**made, "ExposedPorts": {f"{text}/tcp": {}}}),
        ("POST", "/containers/create", {**made, "HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": text}]}}}),
        ("POST", "/containers/create", {**made, "HostConfig": {"CpusetCpus": text}}),
        ("POST", "/containers/create", {**made, "StopSignal": text}),
        ("POST", "/networks/create", {"Name": "n", "Options": {"com.docker.network.driver.mtu": text}}),
    ):
        status, answer = api(method, path, body)
        assert 200 <= status < 500 or answer["kind"] == "unclassified_argument", (path, answer)
        if status == 201:
            api.must("DELETE", f"/containers/{answer['Id']}")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(patient(10))
        sock.connect(engine.socket)
        sock.sendall(f"POST /containers/x/attach HTTP/1.1\r\nHost: x\r\nContent-Length: {'9' * 5000}\r\n\r\n".encode())
        assert sock.recv(1 << 12).split()[1] == b"400"


@pytest.mark.parametrize("expression", ["(a+)+$", "(a|aa)+$", "a?" * 30 + "a" * 30 + "$", "(" * 5000, "a{99999999999}"])
def test_an_expression_that_would_never_end(engine, expression):
    """It would by the interpreter's own matcher."""
    api = Api(engine.socket)
    one = api.must("POST", "/containers/create", {"Image": "busybox"}, name="a" * 29 + ".")["Id"]
    for name in ("name", "id"):
        status, answer = api("GET", "/containers/json", all=1, filters=json.dumps({name: [expression]}), timeout=20)
        assert status == 200 or (status, "invalid filter" in answer["message"]) == (400, True), answer
    log = {"Type": "json-file", "Config": {"labels-regex": expression}}
    body = {"Image": "busybox", "Cmd": ["true"], "Labels": {"a" * 29 + ".": ""}, "HostConfig": {"LogConfig": log}}
    status, answer = api("POST", "/containers/create", body, timeout=20)
    if status == 201:
        status, refused = api("POST", f"/containers/{answer['Id']}/start", timeout=20)
        assert status == 204 or "error parsing regexp" in refused["message"], refused
        api.must("DELETE", f"/containers/{answer['Id']}", force=1)
    else:
        assert (status, "error parsing regexp" in answer["message"]) == (400, True), answer
    assert api("GET", "/containers/json", all=1, filters=json.dumps({"name": ["^/a+.$"]}))[1][0]["Id"] == one
    api.must("DELETE", f"/containers/{one}")


def test_a_broken_expression_as_filter(client):
    assert client("ps", "-aq", "--filter", "name=[").out == ""


def test_a_wrong_extra_host(docker_py):
    with pytest.raises(docker.errors.APIError) as caught:
        docker_py.api.create_container("busybox", host_config={"ExtraHosts": ["zz"]})
    assert caught.value.status_code == 400


def test_a_client_of_http_1_0(engine):
    """It gets streams, too: until the connection ends, and not in chunks."""
    with connected(engine.socket) as sock:
        sock.settimeout(patient(10))
        sock.sendall(b"GET /events?since=1&until=2 HTTP/1.0\r\n\r\n")
        head, _, body = b"".join(iter(lambda: sock.recv(4096), b"")).partition(b"\r\n\r\n")
    assert head.split(b" ", 2)[1] == b"200"
    assert b"chunked" not in head
    assert body == b""
