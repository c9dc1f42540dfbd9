"""TCP with TLS and client certificates: the same streams as on the socket, half-close included."""

from __future__ import annotations

import contextlib
import socket
import subprocess

import pytest

from tests.support.programs import need


def certificate(root, name: str, *, signed_by: str = "") -> None:
    """A key and a certificate for localhost in ``root``, signed by ``signed_by`` or (an authority) by itself."""
    request = [
        need("openssl"),
        "req",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        f"{root}/{name}.key",
        "-subj",
        f"/CN={name}",
    ]
    if not signed_by:
        own = [*request, "-x509", "-days", "2", "-out", f"{root}/{name}.pem"]
        subprocess.run([*own, "-addext", "basicConstraints=critical,CA:TRUE"], check=True, capture_output=True)
        return
    subprocess.run([*request, "-out", f"{root}/{name}.csr"], check=True, capture_output=True)
    (root / "extensions").write_text(
        "subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n"
    )
    subprocess.run(
        [need("openssl"), "x509", "-req", "-in", f"{root}/{name}.csr", "-CA", f"{root}/{signed_by}.pem", "-CAkey",
         f"{root}/{signed_by}.key", "-CAcreateserial", "-out", f"{root}/{name}.pem", "-days", "2",
         "-extfile", f"{root}/extensions"],
        check=True, capture_output=True,
    )  # fmt: skip


@pytest.fixture
def secured(own_engine, tmp_path):
    """An engine that listens with TLS, and the flags with which a client may use it."""
    certificate(tmp_path, "authority")
    certificate(tmp_path, "stranger")
    for name, authority in (("server", "authority"), ("client", "authority"), ("intruder", "stranger")):
        certificate(tmp_path, name, signed_by=authority)
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as s:
        port = s.getsockname()[1]
    own_engine.extra = [
        "-H", f"tcp://127.0.0.1:{port}", "--tlsverify", "--tlscacert", f"{tmp_path}/authority.pem",
        "--tlscert", f"{tmp_path}/server.pem", "--tlskey", f"{tmp_path}/server.key",
    ]  # fmt: skip
    own_engine.start()
    own_engine.add_busybox()

    def flags(name: str) -> list[str]:
        return [
            "-H", f"tcp://127.0.0.1:{port}", "--tlsverify", "--tlscacert", f"{tmp_path}/authority.pem",
            "--tlscert", f"{tmp_path}/{name}.pem", "--tlskey", f"{tmp_path}/{name}.key",
        ]  # fmt: skip

    return own_engine, flags


def test_streams_over_tls(secured):
    engine, flags = secured
    client = flags("client")
    assert engine.docker(*client, "run", "--rm", "busybox", "echo", "hello").out == "hello\n"
    # The input ends first, the output comes after it: half-close.
    assert engine.docker(*client, "run", "-i", "--rm", "busybox", "wc", "-c", stdin=b"x" * 3_000_000).out == "3000000\n"
    container = engine.docker(*client, "run", "-d", "busybox", "sleep", "1000").out.strip()
    assert engine.docker(*client, "exec", "-i", container, "cat", stdin=b"in").out == "in"
    big = engine.docker(*client, "exec", container, "head", "-c", "5000000", "/dev/zero").out
    assert len(big) == 5_000_000
    assert engine.docker(*client, "exec", container, "sh", "-c", "exit 7", check=False).code == 7


def test_strangers_are_refused_and_do_no_harm(secured):
    engine, flags = secured
    refused = engine.docker(*flags("intruder"), "ps", check=False)
    assert refused.code != 0
    assert "certificate" in refused.err or "tls" in refused.err
    plain = engine.docker(*flags("client")[:2], "ps", check=False)
    assert plain.code != 0
    assert engine.docker(*flags("client"), "ps").code == 0
