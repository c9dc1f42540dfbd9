"""Who may do what at our registry: users and passwords, tokens, TLS; with the real docker client, too."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import http.server
import json
import os
import select
import ssl
import subprocess
import time

import bcrypt
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support.engines import KETCH
from tests.support.registries.raw import Raw
from tests.support.registries.registries import free_port, ours, password_file
from tests.support.registries.token_server import TokenServer
from tests.support.tls import trusting
from tests.support.waiting import patient

pytestmark = pytest.mark.ketch_only


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.fixture
def users(tmp_path) -> str:
    return password_file(tmp_path)


def test_users_and_passwords(users):
    with ours("--htpasswd", users) as one:
        raw = Raw(one.host)
        status, headers, _ = raw("GET", "/v2/")
        assert status == 401 and headers["www-authenticate"].startswith("Basic realm=")
        for wrong in (basic("ann", "wrong"), basic("bob", "secret"), "Basic !!!", "Bearer x", basic("ann", "")):
            assert raw("GET", "/v2/", Authorization=wrong)[0] == 401
        for _ in range(3):
            assert raw("GET", "/v2/", Authorization=basic("ann", "secret"))[0] == 200
        with open(users, "a") as f:
            f.write(f"bob:{bcrypt.hashpw(b'other', bcrypt.gensalt(4)).decode()}\n")
        assert raw("GET", "/v2/", Authorization=basic("bob", "other"))[0] == 200


def test_everybody_may_pull(users):
    with ours("--htpasswd", users, "--anonymous-pull") as one:
        raw = Raw(one.host)
        assert raw("GET", "/v2/some/manifests/1")[0] == 404
        assert raw("POST", "/v2/some/blobs/uploads/", b"")[0] == 401
        assert raw("POST", "/v2/some/blobs/uploads/", b"", Authorization=basic("ann", "secret"))[0] == 202
        assert raw("GET", "/v2/_catalog")[0] == 401


def test_docker_logs_in(users, own_engine):
    own_engine.start()
    own_engine.add_busybox()
    docker = own_engine.docker
    with ours("--htpasswd", users) as one:
        ref = f"{one.host}/private/box:1"
        docker("tag", "busybox", ref)
        denied = docker("push", ref, check=False)
        assert denied.code == 1 and "no basic auth credentials" in denied.err + denied.out
        bad = docker("login", "-u", "ann", "--password-stdin", one.host, stdin=b"wrong", check=False)
        assert bad.code == 1 and "failed with status: 401 Unauthorized" in bad.err
        assert "Login Succeeded" in docker("login", "-u", "ann", "--password-stdin", one.host, stdin=b"secret").out
        docker("push", "-q", ref)
        docker("rmi", ref)
        own_engine.ketch("pull", "-q", ref)  # what docker has kept ketch uses, too
        own_engine.ketch("logout", one.host)
        denied = docker("pull", ref, check=False)
        assert denied.code == 1 and "no basic auth credentials" in denied.err
        own_engine.ketch("login", "-u", "ann", "--password-stdin", one.host, stdin=b"secret")
        docker("pull", "-q", ref)
        with open(os.path.join(own_engine.root, "config.json"), "rb") as f:
            assert json.load(f)["auths"][one.host]["auth"] == base64.b64encode(b"ann:secret").decode()
        docker("rmi", ref)


@pytest.fixture
def issuer(tmp_path):
    with TokenServer(str(tmp_path / "keys.pem")) as one:
        yield one


def test_tokens(issuer):
    pull = [{"type": "repository", "name": "some", "actions": ["pull"]}]
    with ours(*issuer.flags) as one:
        raw = Raw(one.host)
        status, headers, _ = raw("GET", "/v2/some/manifests/1")
        assert status == 401
        assert 'service="depot"' in headers["www-authenticate"]
        assert 'scope="repository:some:pull"' in headers["www-authenticate"]

        def asked(token: str, method: str = "GET", path: str = "/v2/some/manifests/1") -> int:
            return raw(method, path, b"" if method == "POST" else None, Authorization=f"Bearer {token}")[0]

        assert asked(issuer.token(pull)) == 404
        assert asked(issuer.token(pull), path="/v2/other/manifests/1") == 403
        assert asked(issuer.token(pull), "POST", "/v2/some/blobs/uploads/") == 403
        assert asked(issuer.token(pull, aud="elsewhere")) == 401
        assert asked(issuer.token(pull, iss="somebody")) == 401
        assert asked(issuer.token(pull, exp=time.time() - 60)) == 401
        assert asked("nonsense") == 401
        other = ec.generate_private_key(ec.SECP256R1())
        claims = {"iss": "issuer", "aud": "depot", "exp": time.time() + 60, "access": pull}
        assert asked(jwt.encode(claims, other, algorithm="ES256")) == 401
        assert asked(jwt.encode(claims, "", algorithm="none")) == 401


def test_docker_with_tokens(issuer, engine):
    with ours(*issuer.flags) as one:
        ref = f"{one.host}/by/token:1"
        engine.docker("tag", "busybox", ref)
        engine.docker("push", "-q", ref)
        engine.docker("rmi", ref)
        engine.docker("pull", "-q", ref)
        engine.docker("rmi", ref)
        assert {"repository:by/token:pull,push", "repository:by/token:pull"} <= set(issuer.scopes)


@pytest.mark.parametrize("trusted", ["in certs.d", "by the machine"])
def test_tls(tmp_path, own_engine, trusted):
    with ours(tls=True) as one:
        with pytest.raises(ssl.SSLError):
            connection = http.client.HTTPSConnection(one.host, timeout=patient(10))
            connection.request("GET", "/v2/")
        context = trusting(one.ca)
        connection = http.client.HTTPSConnection(one.host, timeout=patient(10), context=context)
        connection.request("GET", "/v2/")
        assert connection.getresponse().status == 200
        if trusted == "by the machine":
            own_engine.settings["SSL_CERT_FILE"] = one.ca
        else:
            certs = tmp_path / "certs.d"
            (certs / one.host).mkdir(parents=True)
            (certs / one.host / "ca.crt").write_bytes(open(one.ca, "rb").read())  # noqa: SIM115
            own_engine.extra = ["--registry-certs", str(certs)]
        own_engine.start()
        own_engine.add_busybox()
        ref = f"{one.host}/over/tls:1"
        own_engine.docker("tag", "busybox", ref)
        own_engine.docker("push", "-q", ref)
        own_engine.docker("rmi", ref)
        own_engine.docker("pull", "-q", ref)


def test_the_time_of_a_login_does_not_tell_who_is_there(tmp_path):
    """With hashes of any cost: what is computed for somebody who is not there costs what one of the file's does."""
    from ketch.registry.auth import Access, Htpasswd
    from ketch.registry.errors import Refused

    seen: list[bytes] = []
    real = bcrypt.checkpw

    def noted(password: bytes, hashed: bytes) -> bool:
        seen.append(hashed)
        return real(password, hashed)

    def cost(hashed: bytes) -> int:
        return int(hashed.split(b"$")[2])

    def ask(one: Htpasswd, user: str, password: str) -> int:
        with contextlib.suppress(Refused):
            asyncio.run(one.check(basic(user, password), [Access("repository", "x", "pull")]))
        return cost(seen[-1])

    path = tmp_path / "users"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bcrypt, "checkpw", noted)
        for file_cost in (4, 6, 11):
            path.write_text(f"ann:{bcrypt.hashpw(b'secret', bcrypt.gensalt(file_cost)).decode()}\n")
            one = Htpasswd(str(path))
            for user in ("ann", "bob", "", "é", "x" * 1000):
                assert ask(one, user, "wrong") == file_cost, user
            assert len(seen[-1]) == 60
        lines = [f"u{n}:{bcrypt.hashpw(b'secret', bcrypt.gensalt(4 + n % 2)).decode()}" for n in range(6)]
        path.write_text("\n".join(lines) + "\n")
        strangers = [f"stranger{n}" for n in range(40)]
        first, second = Htpasswd(str(path)), Htpasswd(str(path))
        costs = [ask(first, name, "wrong") for name in strangers]
        assert set(costs) == {4, 5}
        assert costs == [ask(second, name, "other") for name in strangers]  # workers agree
        path.write_text("# nobody\n")
        assert ask(Htpasswd(str(path)), "ann", "wrong") == 10


def test_a_login_of_a_stranger_takes_as_long(tmp_path):
    """Measured, in processor time of this process: the cheapest of several tries of each."""
    from ketch.registry.auth import Htpasswd, _verify

    hashed = bcrypt.hashpw(b"secret", bcrypt.gensalt(9))
    path = tmp_path / "users"
    path.write_text(f"ann:{hashed.decode()}\n")
    one = Htpasswd(str(path))

    def seconds(known: bytes | None) -> float:
        begin = time.process_time()
        assert not _verify("wrong", known, one._cost_of("bob"))
        return time.process_time() - begin

    ann, bob = (min(seconds(known) for _ in range(5)) for known in (hashed, None))
    assert 0.5 < ann / bob < 2


@pytest.mark.parametrize("line", ["ann:$2b$10$short", "ann:$2b$99$" + "a" * 53, "ann:{SHA}x", "ann:$2x$10$" + "a" * 53])
def test_damaged_hashes_are_refused_at_the_start(tmp_path, line):
    from ketch.errors import FailedPrecondition
    from ketch.registry.auth import Htpasswd

    (tmp_path / "users").write_text(line + "\n")
    with pytest.raises(FailedPrecondition, match="line 1 has no bcrypt hash"):
        Htpasswd(str(tmp_path / "users"))


def test_metrics_are_for_those_who_may_log_in(users):
    with ours("--htpasswd", users, "--anonymous-pull") as one:
        raw = Raw(one.host)
        assert raw("GET", "/metrics")[0] == 401
        assert raw("GET", "/metrics", Authorization=basic("ann", "wrong"))[0] == 401
        status, _, body = raw("GET", "/metrics", Authorization=basic("ann", "secret"))
        assert status == 200 and b"ketch_registry_requests_total" in body
        assert raw("GET", "/healthz")[0] == 200


def test_metrics_at_an_address_of_their_own(users):
    place = f"127.0.0.1:{free_port()}"
    with ours("--htpasswd", users, "--metrics-addr", place) as one:
        assert Raw(one.host)("GET", "/metrics", Authorization=basic("ann", "secret"))[0] == 404
        status, _, body = Raw(place)("GET", "/metrics")
        assert status == 200 and b"ketch_registry_requests_total" in body
        for path in "/v2/", "/v2/_catalog", "/healthz":
            assert Raw(place)("GET", path)[0] == 404


def test_password_attempts_do_not_delay_storage(tmp_path):
    """A password takes a while on purpose; what others push does not wait until all that were sent are tried."""
    path = tmp_path / "users"
    lines = (
        f"{name}:{bcrypt.hashpw(b'secret', bcrypt.gensalt(cost)).decode()}\n"
        for name, cost in (("ann", 4), ("bob", 12))
    )
    path.write_text("".join(lines))
    with ours("--htpasswd", str(path)) as one, contextlib.ExitStack() as undo:
        raw = Raw(one.host)
        good = basic("ann", "secret")
        assert raw("GET", "/v2/", Authorization=good)[0] == 200  # known from now on
        trying = [http.client.HTTPConnection(one.host, timeout=patient(120)) for _ in range(200)]
        for connection in trying:
            undo.callback(connection.close)
            connection.request("GET", "/v2/", headers={"Authorization": basic("bob", "wrong")})
        assert raw("POST", "/v2/some/blobs/uploads/", b"", Authorization=good)[0] == 202
        answered = sum(bool(select.select([connection.sock], [], [], 0)[0]) for connection in trying)
        assert answered < 190  # some were refused at once, and some tried
        statuses = {connection.getresponse().status for connection in trying[:2] + trying[-2:]}
        assert statuses == {401, 429}


def test_users_that_cannot_be_read(tmp_path):
    path = tmp_path / "users"
    path.write_bytes(b"\xe9:$2b$04$" + b"a" * 53 + b"\n")
    command = [
        KETCH,
        "registry",
        "serve",
        "--root",
        str(tmp_path / "data"),
        "--addr",
        "127.0.0.1:0",
        "--htpasswd",
        str(path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=patient(60), check=False)
    assert done.returncode == 1 and "is not UTF-8" in done.stderr and "Traceback" not in done.stderr, done.stderr
