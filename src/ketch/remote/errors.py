"""Errors of registries and connections as Ketch's errors, in Docker's words where scripts rely on them.

Messages name the method and the URL without its query, which may hold tokens; of a body 64 KiB are looked at.
"""

from __future__ import annotations

import asyncio
import http
import os
import ssl
from typing import TYPE_CHECKING

import aiohttp
import msgspec

from ketch.errors import (
    InvalidArgument,
    KetchError,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
)

if TYPE_CHECKING:
    from yarl import URL

BODY = 1 << 16
_CLASSES: dict[int, type[KetchError]] = {
    400: InvalidArgument,
    401: Unauthenticated,
    403: PermissionDenied,
    404: NotFound,
    405: InvalidArgument,
    413: InvalidArgument,
    416: InvalidArgument,
    429: ResourceExhausted,
}
DENIED = "denied: requested access to the resource is denied"
UNAUTHORIZED = "unauthorized: authentication required"
NO_CREDENTIALS = "no basic auth credentials"
LOG_IN = "log in with: docker login"
_STATUSES = frozenset(http.HTTPStatus)
PASSING = frozenset((408, 429, 500, 502, 503, 504))


class _ErrorItem(msgspec.Struct):
    code: str = ""
    message: str = ""


class _Body(msgspec.Struct):
    errors: list[_ErrorItem] = []
    details: str = ""
    message: str = ""


class RegistryError(Exception):
    """An unexpected answer: the status, and codes and messages of the body."""

    anonymous = False  # it asked for a user and a password, and there were none

    def __init__(self, method: str, url: URL, status: int, body: bytes, retry_s: float | None = None) -> None:
        super().__init__(f"{method} {shown(url)}: {status}")
        self.method, self.url, self.status, self.retry_s = method, url, status, retry_s
        self.challenge = ""
        try:
            decoded = msgspec.json.decode(body, type=_Body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            decoded = _Body()
        self.codes = [error.code for error in decoded.errors]
        self.text = "; ".join(_words(error) for error in decoded.errors) or decoded.details or decoded.message

    @property
    def is_denied(self) -> bool:
        """Whether whoever asks is known, and may not do it."""
        scope = self.status == 401 and 'error="insufficient_scope"' in self.challenge
        return scope or self.status == 403 or "DENIED" in self.codes

    def without_credentials(self, method: str = "") -> KetchError:
        """The error of a request that was `anonymous`, in Docker's words, which names the method that it uses."""
        what = f'{(method or self.method).capitalize()} "{shown(self.url)}": '
        return KetchError(f"{what}{NO_CREDENTIALS}", hint=LOG_IN)

    def as_ketch(self, prefix: str = "") -> KetchError:
        """The error as a KetchError; ``prefix`` describes the operation."""
        if self.anonymous:
            return self.without_credentials()
        kind = _CLASSES.get(self.status, Unavailable)
        if self.status >= 500:
            words = f"received unexpected HTTP status: {self.status} {phrase(self.status)}".rstrip()
            return kind(f"{prefix}: {words}" if prefix else words, hint=self.text or None)
        message = self.text or f"unexpected status from {self.method} request to {shown(self.url)}: {self.status}"
        return kind(f"{prefix}: {message}" if prefix else message)


def phrase(status: int) -> str:
    """The words that belong to a status; empty for unknown ones."""
    return http.HTTPStatus(status).phrase if status in _STATUSES else ""


def denied(error: RegistryError) -> KetchError:
    """The error of a refused push, in Docker's words."""
    if error.anonymous:
        return KetchError(NO_CREDENTIALS, hint=LOG_IN)
    if error.is_denied:
        return PermissionDenied(error.text or DENIED)
    if error.status == 401:
        return Unauthenticated(error.text or UNAUTHORIZED)  # the answer to a HEAD has no body
    return error.as_ketch()


def _words(error: _ErrorItem) -> str:
    """Code and message as Docker writes them: ``manifest unknown: manifest unknown``."""
    code = error.code.lower().replace("_", " ")
    return f"{code}: {error.message}" if error.message else code


def shown(url: URL) -> str:
    """A URL without user, password and query."""
    return str(url.with_user(None).with_query(None).with_fragment(None))


def unreachable(method: str, url: URL, error: BaseException) -> Unavailable:
    """The error of a failed or broken connection, in the form of Go programs."""
    what = f'{method.capitalize()} "{shown(url)}"'
    address = f"{url.host}:{url.port}"
    if isinstance(error, aiohttp.ClientConnectorCertificateError | ssl.SSLCertVerificationError):
        return Unavailable(
            f"{what}: tls: failed to verify certificate: {error}",
            hint=f"put the registry's authority into /etc/ketch/certs.d/{url.host}:{url.port}/ca.crt",
        )
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
        return Unavailable(
            f"{what}: http: server gave HTTP response to HTTPS client",
            hint=f'a registry without TLS has to be named in "insecure-registries": ["{address}"]',
        )
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return Unavailable(f"{what}: dial tcp: lookup {url.host}: no such host")
    if isinstance(error, asyncio.TimeoutError | aiohttp.ServerTimeoutError):
        return Unavailable(f"{what}: timeout: nothing came from {address}", hint="it or the way to it stalls")
    if isinstance(error, aiohttp.ClientConnectorError):
        number = error.os_error.errno
        reason = os.strerror(number).lower() if number else str(error.os_error)
        return Unavailable(f"{what}: dial tcp {address}: connect: {reason}")
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return Unavailable(f"{what}: EOF")
    if isinstance(error, ConnectionResetError | aiohttp.ClientOSError):
        return Unavailable(f"{what}: read tcp {address}: connection reset by peer")
    if isinstance(error, aiohttp.ClientPayloadError):
        return Unavailable(f"{what}: unexpected EOF")
    return Unavailable(f"{what}: {error or type(error).__name__}")


BREAKS = (aiohttp.ClientError, asyncio.TimeoutError, OSError)
