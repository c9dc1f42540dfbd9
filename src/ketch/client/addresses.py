"""Addresses of daemons: ``unix://PATH``, ``tcp://HOST[:PORT]`` with or without TLS, ``ssh://[USER@]HOST[:PORT][/PATH]``."""

from __future__ import annotations

import os

from ketch.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_PORT, _TLS_PORT = 2375, 2376  # IANA's for Docker's API


class Tls:
    """The files of a TLS client; empty paths: no certificate of its own, the machine's authorities."""

    __slots__ = ("authorities", "certificate", "key", "verify")

    def __init__(self, authorities: str = "", certificate: str = "", key: str = "", *, verify: bool = True) -> None:
        self.authorities, self.certificate, self.key, self.verify = authorities, certificate, key, verify


class Address(str):
    """A daemon's address as it is written, and for ``tcp://`` how TLS is spoken there (None: not)."""

    __slots__ = ("tls",)

    tls: Tls | None

    def __new__(cls, text: str, tls: Tls | None = None) -> Address:
        made = super().__new__(cls, text)
        made.tls = tls
        return made


def tls_of(address: str) -> Tls | None:
    """The TLS of an address, which may be plain text."""
    return address.tls if isinstance(address, Address) else None


def named() -> str:
    """The address in KETCH_HOST or DOCKER_HOST; empty: neither names one."""
    return written_out(os.environ.get("KETCH_HOST") or os.environ.get("DOCKER_HOST") or "")


def written_out(host: str) -> str:
    """An address with its scheme: as with Docker, ``HOST[:PORT]`` alone is one of ``tcp://``."""
    host = host.strip()
    return f"tcp://{host}" if host and "/" not in host else host


def trusted(host: str, tls: Tls | None) -> str:
    """The address with the TLS that is spoken there: on ``tcp://`` alone."""
    return Address(host, tls) if tls is not None and host.startswith("tcp://") else host


def wanted_tls(given: Sequence[str] = ("", "", ""), *, spoken: bool = False, verify: bool | None = None) -> Tls | None:
    """The TLS that Docker's variables ask for; None: it is not spoken.

    What is ``given`` counts more: paths of authorities, certificate and key, that TLS is ``spoken``, whether to
    ``verify`` the server.
    """
    verified = bool(os.environ.get("DOCKER_TLS_VERIFY")) if verify is None else verify
    if not (verified or spoken or os.environ.get("DOCKER_TLS") or any(given)):
        return None
    from ketch.client import docker_config

    folder = os.environ.get("DOCKER_CERT_PATH") or docker_config.directory()
    usual = [os.path.join(folder, file) for file in ("ca.pem", "cert.pem", "key.pem")]
    paths = [path or (file if os.path.exists(file) else "") for path, file in zip(given, usual, strict=True)]
    return Tls(*paths, verify=verified)


def host_and_port(address: str) -> tuple[str, int]:
    """Host and port of ``tcp://HOST[:PORT]``, IPv6 addresses in brackets (InvalidArgument)."""
    rest = address.partition("://")[2].partition("/")[0]
    name, _, port = rest.rpartition(":") if not rest.endswith("]") and ":" in rest else (rest, "", "")
    if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise InvalidArgument(f"host `{address}`: `{port}` is no port", hint="use tcp://ADDRESS:PORT")
    usual = _PORT if tls_of(address) is None else _TLS_PORT
    return name.strip("[]") or "127.0.0.1", int(port) if port else usual
