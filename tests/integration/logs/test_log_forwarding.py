"""The log drivers ``fluentd`` and ``gelf`` with servers of the tests, beside a dockerd that sends the same output."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

import pytest

from tests.support.engines import Engine
from tests.support.logs.forwarding import Forward, Graylog
from tests.support.logs.logservers import free_port
from tests.support.rawapi import Api

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.ketch_only

SCRIPT = (
    "echo out; echo err >&2; printf 'é \"<&>\\\\\\n\\n\\377|\\n'; seq 9000 | head -c 40000 | tr '\\n' ,; echo; "
    "sleep 0.2; printf 'the end'"
)
CHOSEN = {"tag": "t/{{.Name}}", "labels": "my.label,none", "env-regex": "^V", "labels-regex": "^_"}


@pytest.fixture(scope="module")
def beside():
    """A dockerd that reaches the tests' servers on loopback."""
    one = Engine("dockerd", suffix="f")
    one.extra = ["--bridge", "none", "--iptables=false", "--ip6tables=false", "--ip-forward=false"]
    with one.running():
        yield one


def run(one: Engine, driver: str, options: dict[str, str], script: str = SCRIPT) -> str:
    """Run a container that logs so, to its end; returns its id."""
    api = Api(one.socket)
    body = {
        "Image": "busybox",
        "Cmd": ["sh", "-c", script],
        "Env": ["V=a\nb", "W=c"],
        "Labels": {"my.label": "7<", "_under": "x"},
        "HostConfig": {"NetworkMode": "none", "LogConfig": {"Type": driver, "Config": options}},
    }
    ident = api.must("POST", "/v1.51/containers/create", body, name="talker")["Id"]
    api.must("POST", f"/v1.51/containers/{ident}/start")
    api.must("POST", f"/v1.51/containers/{ident}/wait")
    return ident


@contextlib.contextmanager
def removed(*engines: Engine) -> Iterator[None]:
    """Without the test's container afterwards."""
    try:
        yield
    finally:
        for one in engines:
            Api(one.socket)("DELETE", "/v1.51/containers/talker", force=1)


def comparable(messages: list, ident: str) -> list:
    """Messages without what may differ: ids, times (of the same kind), and the order of the two streams."""
    pieces: dict[str, str] = {}

    def plain(value: object) -> object:
        if isinstance(value, dict):
            return {key: plain(one) for key, one in sorted(value.items()) if key not in ("_created", "_image_id")}
        if isinstance(value, list):
            return [plain(one) for one in value]
        if isinstance(value, (int, float)):
            return value if value < 100 else "TIME"
        if isinstance(value, tuple):
            return value[0], len(value[1])
        text = str(value).replace(ident, "ID").replace(ident[:12], "SHORT")
        if re.fullmatch("[0-9a-f]{64}", text):
            return pieces.setdefault(text, f"piece {len(pieces)}")
        return "CHUNK" if re.fullmatch("[A-Za-z0-9+/]{22}==", text) else text

    whole = [plain(one) for one in messages]
    return sorted(whole, key=lambda one: one["level"] if isinstance(one, dict) else one[2]["source"])


@pytest.mark.parametrize(
    ("scheme", "options"),
    [
        ("tcp", {}),
        ("unix", {"fluentd-sub-second-precision": "true", **CHOSEN}),
        ("tcp", {"fluentd-request-ack": "1", "fluentd-write-timeout": "3s", "fluentd-max-retries": "5"}),
    ],
)
def test_fluentd_gets_what_dockerd_sends(engine, beside, tmp_path, scheme, options):
    sent = []
    for one in (beside, engine):
        path = str(tmp_path / one.kind) if scheme == "unix" else ""
        server = Forward(path=path, acks="fluentd-request-ack" in options)
        address = f"unix://{path}" if path else f"tcp://127.0.0.1:{server.port}"
        with contextlib.closing(server), server.collecting("err", "the end") as messages, removed(one):
            ident = run(one, "fluentd", {"fluentd-address": address, **options})
            shown = one is beside or one.client("logs", "talker").out  # from the cache
        assert shown is True or shown.endswith("\nthe end")
        sent.append(comparable(messages, ident))
    assert sent[1] == sent[0]
    assert len(sent[0]) == 9
    assert {message[2]["container_name"] for message in sent[0]} == {"/talker"}


@pytest.mark.parametrize(
    ("scheme", "options", "beginning"),
    [
        ("udp", {}, b"\x1f"),
        ("udp", {"gelf-compression-type": "zlib", "gelf-compression-level": "9", **CHOSEN}, b"\x78"),
        ("udp", {"gelf-compression-type": "none"}, b"{"),
        ("tcp", {"gelf-tcp-max-reconnect": "2", "gelf-tcp-reconnect-delay": "0"}, b"{"),
    ],
)
def test_graylog_gets_what_dockerd_sends(engine, beside, scheme, options, beginning):
    sent = []
    for one in (beside, engine):
        server = Graylog(tcp=scheme == "tcp")
        with contextlib.closing(server), server.collecting("err", "the end") as messages, removed(one):
            ident = run(one, "gelf", {"gelf-address": f"{scheme}://127.0.0.1:{server.port}", **options})
        assert server.beginnings == ({beginning} if scheme == "udp" else set())
        assert bool(server.chunked) == (scheme == "udp")
        assert all(re.fullmatch("sha256:[0-9a-f]{64}", str(message["_image_id"])) for message in messages)
        assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT[0-9:.]+Z", str(message["_created"])) for message in messages)
        sent.append(comparable(messages, ident))
    assert sent[1] == sent[0]
    assert len(sent[0]) == 8  # the empty line is not sent


def test_messages_go_on_when_fluentd_comes_back(engine):
    """A server that ends and starts again is found again; with fluentd-async none need be there at the start."""
    port = free_port()
    options = {"fluentd-address": f"127.0.0.1:{port}", "fluentd-async": "true", "fluentd-retry-wait": "100ms"}
    api = Api(engine.socket)
    body = {
        "Image": "busybox",
        "Cmd": ["sh", "-c", "while echo $((n += 1)); do sleep 0.05; done"],
        "HostConfig": {"LogConfig": {"Type": "fluentd", "Config": options}},
    }
    api.must("POST", "/v1.51/containers/create", body, name="talker")
    api.must("POST", "/v1.51/containers/talker/start")
    found = []
    for _ in range(2):
        with contextlib.closing(Forward(port)) as server:
            found.append(server.some(3))
    first, second = ([int(message[2]["log"]) for message in some] for some in found)
    assert first == [1, 2, 3]  # what came before the server was there has waited for it
    assert second[0] > first[-1]
    assert second == list(range(second[0], second[0] + 3))
    assert engine.client("logs", "-n", "1", "talker").out  # from the cache
    api.must("DELETE", "/v1.51/containers/talker", force=1)


REFUSED = [
    ("fluentd", {"x": "y"}),
    *(
        ("fluentd", {f"fluentd-{name}": value})
        for name, value in [
            ("address", "udp://x:1"),
            ("address", "tcp://x:1/path"),
            ("address", "x:port"),
            ("address", "x:99999"),
            ("address", "unix://"),
            ("address", "http://x"),
            ("async", "maybe"),
            ("async-reconnect-interval", "11s"),
            ("async-reconnect-interval", "99ms"),
            ("async-reconnect-interval", "-1s"),
            ("async-reconnect-interval", "1"),
            ("buffer-limit", "big"),
            ("max-retries", "-1"),
            ("max-retries", "99999999999999999999"),
            ("request-ack", "yes"),
            ("retry-wait", "1"),
            ("sub-second-precision", "no"),
            ("write-timeout", "soon"),
            ("write-timeout", "-1s"),
            ("async-connect", "true"),
            ("read-timeout", "1s"),
        ]
    ),
    ("gelf", {}),
    ("gelf", {"gelf-address": "x:1"}),
    ("gelf", {"gelf-address": "localhost"}),
    ("gelf", {"gelf-address": "1.2.3.4:12201"}),
    ("gelf", {"gelf-address": "udp://x:port"}),
    ("gelf", {"gelf-address": "unix:///x"}),
    ("gelf", {"gelf-address": "udp://x"}),
    *(
        ("gelf", {"gelf-address": address, f"gelf-{name}": value})
        for address, name, value in [
            ("udp://x:1", "unknown", "y"),
            ("udp://x:1", "compression-type", "lzma"),
            ("udp://x:1", "compression-level", "10"),
            ("udp://x:1", "compression-level", "-2"),
            ("tcp://x:1", "compression-type", "gzip"),
            ("tcp://x:1", "compression-level", "1"),
            ("tcp://x:1", "tcp-max-reconnect", "-1"),
            ("tcp://x:1", "tcp-reconnect-delay", "1s"),
            ("udp://x:1", "tcp-max-reconnect", "1"),
            ("udp://x:1", "tcp-reconnect-delay", "1"),
        ]
    ),
]


def test_refused_as_by_dockerd(engine, beside):
    answers = []
    for one in (engine, beside):
        api = Api(one.socket)
        answers.append([])
        for driver, options in REFUSED:
            body = {"Image": "busybox", "HostConfig": {"LogConfig": {"Type": driver, "Config": options}}}
            status, answer = api("POST", "/v1.51/containers/create", body)
            answers[-1].append((driver, options, status, answer.get("message", answer.get("Warnings"))))
    assert answers[0] == answers[1]


def test_without_a_server_the_start_fails_as_dockerds(engine, beside, tmp_path):
    port = free_port()
    answers = []
    for one in (engine, beside):
        api = Api(one.socket)
        answers.append([])
        for driver, options in (
            ("fluentd", {"fluentd-address": f"127.0.0.1:{port}"}),
            ("fluentd", {"fluentd-address": f"unix://{tmp_path}/nobody"}),
            ("gelf", {"gelf-address": f"tcp://127.0.0.1:{port}"}),
        ):
            body = {"Image": "busybox", "HostConfig": {"LogConfig": {"Type": driver, "Config": options}}}
            api.must("POST", "/v1.51/containers/create", body, name="talker")
            status, answer = api("POST", "/v1.51/containers/talker/start")
            answers[-1].append((status, answer["message"].removeprefix("failed to create task for container: ")))
            api.must("DELETE", "/v1.51/containers/talker", force=1)
    assert answers[0] == answers[1]
