"""Registries for tests: docker-registry on loopback, each with a directory of its own."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import bcrypt

from tests.support import tls
from tests.support.engines import BIN, KETCH
from tests.support.programs import need
from tests.support.waiting import patient, until

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class Registry:
    """One that runs; ``root`` holds its files, ``ca`` the certificate to trust when it has TLS."""

    host: str
    root: str
    process: subprocess.Popen[bytes]
    ca: str = ""

    def repositories(self) -> list[str]:
        with urllib.request.urlopen(f"http://{self.host}/v2/_catalog", timeout=patient(10)) as answer:
            return json.load(answer)["repositories"]


def free_port() -> int:
    """A port of loopback that nobody has just now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def password_file(directory: Path) -> str:
    """A file for ``--htpasswd`` with one user: ann, whose password is "secret"."""
    path = directory / "users"
    path.write_text(f"# people\nann:{bcrypt.hashpw(b'secret', bcrypt.gensalt(4)).decode()}\n")
    return str(path)


def certificate(root: str, name: str = "127.0.0.1") -> tuple[str, str]:
    """A certificate that signs itself, for loopback: (certificate, key)."""
    cert, key = os.path.join(root, "cert.pem"), os.path.join(root, "key.pem")
    subprocess.run(
        [
            need("openssl"),
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-keyout",
            key,
            "-out",
            cert,
            "-days",
            "2",
            "-subj",
            f"/CN={name}",
            "-addext",
            "subjectAltName=IP:127.0.0.1,DNS:localhost",
        ],
        check=True,
        capture_output=True,
    )
    return cert, key


def signed_certificate(root: Path) -> tuple[str, str, str]:
    """A certificate for loopback by an authority that says only that it is one: (authority, certificate, key)."""
    tls.certificate(root, "authority")
    tls.certificate(root, "server", signed_by="authority")
    return f"{root}/authority.pem", f"{root}/server.pem", f"{root}/server.key"


def listens(host: str) -> bool:
    """Whether somebody accepts connections there."""
    name, _, port = host.rpartition(":")
    with contextlib.suppress(OSError), socket.create_connection((name, int(port)), timeout=patient(1)):
        return True
    return False


@contextlib.contextmanager
def registry(
    *, users: dict[str, str] | None = None, tls: bool = False, upstream: str = "", root: str = ""
) -> Iterator[Registry]:
    """A docker-registry that lets blobs and manifests be deleted; it ends with the block."""
    program = need("docker-registry")
    with contextlib.ExitStack() as undo:
        place = root or tempfile.mkdtemp(prefix="kt-registry-", dir="/tmp")
        if not root:
            undo.callback(shutil.rmtree, place)
        host = f"127.0.0.1:{free_port()}"
        lines = [
            "version: 0.1",
            "log: {level: error, accesslog: {disabled: true}}",
            f"storage: {{filesystem: {{rootdirectory: {place}/data}}, delete: {{enabled: true}}, "
            "maintenance: {uploadpurging: {enabled: false}}}",
        ]
        http = f"addr: '{host}', secret: test"
        ca = ""
        if tls:
            ca, key = certificate(place)
            http += f", tls: {{certificate: {ca}, key: {key}}}"
        lines.append(f"http: {{{http}}}")
        if users:
            with open(f"{place}/htpasswd", "w", encoding="ascii") as f:
                for user, password in users.items():
                    f.write(f"{user}:{bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()}\n")
            lines.append(f"auth: {{htpasswd: {{realm: test, path: {place}/htpasswd}}}}")
        if upstream:
            lines.append(f"proxy: {{remoteurl: '{upstream}'}}")
        with open(f"{place}/config.yml", "w", encoding="ascii") as f:
            f.write("\n".join(lines) + "\n")
        with open(f"{place}/log", "wb") as log:
            process = subprocess.Popen([program, "serve", f"{place}/config.yml"], stdout=log, stderr=log)
        undo.callback(process.wait)
        undo.callback(process.kill)
        until(lambda: listens(host), "the registry does not listen")
        yield Registry(host, place, process, ca)


def auth_header(username: str, password: str) -> str:
    """``X-Registry-Auth`` for these."""
    return base64.urlsafe_b64encode(json.dumps({"username": username, "password": password}).encode()).decode()


@contextlib.contextmanager
def ours(
    *flags: str, root: str = "", tls: bool = False, environment: dict[str, str] | None = None
) -> Iterator[Registry]:
    """``ketch registry serve`` with these flags, on loopback; it ends with the block, and must do so when told."""
    with contextlib.ExitStack() as undo:
        place = root or tempfile.mkdtemp(prefix="kt-registry-", dir="/tmp")
        if not root:
            undo.callback(shutil.rmtree, place)
        host = f"127.0.0.1:{free_port()}"
        command = [KETCH, "registry", "serve", "--addr", host, "--access-log", f"{place}/access.log"]
        command += [*flags, *(() if {"--bucket", "--root"} & {*flags} else ("--root", f"{place}/data"))]
        ca = ""
        if tls:
            ca, cert, key = signed_certificate(Path(place))
            command += ["--tls-cert", cert, "--tls-key", key]
        log = undo.enter_context(open(f"{place}/log", "a+b"))
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **(environment or {})})

        def said() -> str:
            log.seek(0)
            return log.read().decode()

        try:
            until(lambda: listens(host) or process.poll() is not None, "the registry does not listen")
            assert process.poll() is None, said()
            yield Registry(host, place, process, ca)
        finally:
            process.terminate()
            assert process.wait(patient(20)) == 0, said()


@contextlib.contextmanager
def bucket() -> Iterator[list[str]]:
    """A bucket of an S3 server of its own (moto): the flags that make a registry keep everything there."""
    port = free_port()
    command = [os.path.join(BIN, "moto_server"), "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: listens(f"127.0.0.1:{port}"), "the object store does not listen", 30)
        request = urllib.request.Request(f"http://127.0.0.1:{port}/images", method="PUT")
        request.add_header("Authorization", "AWS4-HMAC-SHA256 Credential=test/20240101/us-east-1/s3/aws4_request")
        urllib.request.urlopen(request, timeout=patient(20)).close()
        options = {
            "endpoint": f"http://127.0.0.1:{port}",
            "region": "us-east-1",
            "access_key_id": "test",
            "secret_access_key": "test",
        }
        flags = [word for key, value in options.items() for word in ("--bucket-option", f"{key}={value}")]
        yield ["--bucket", "s3://images", *flags]
    finally:
        process.kill()
        process.wait()
