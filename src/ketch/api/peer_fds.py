"""Descriptors of the client's process that a request names, where the client is on this machine."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ketch.api.connection import Connection
from ketch.errors import InvalidArgument, PermissionDenied, Unavailable
from ketch.storage import peer_descriptors
from ketch.storage.peer_descriptors import PeerDescriptor

if TYPE_CHECKING:
    from aiohttp import web

SENT = "Ketch-Descriptors"  # the header with the token of a connection by which descriptors were sent

_HANDED = re.compile(r"fd:(\d{1,9}):(\d{1,19}):(\d{1,20})\Z", re.ASCII)


def taken(request: web.BaseRequest, handed: str) -> int:
    """A copy of the client's descriptor that ``fd:NUMBER:DEVICE:INODE`` means, sent or not; the caller closes it.

    PermissionDenied where there is none to be had: over TCP, from behind a relay, or if the kernel forbids it.
    """
    match = _HANDED.match(handed)
    if match is None:
        raise InvalidArgument(f"invalid descriptor `{handed[:100]}`", hint="write fd:NUMBER:DEVICE:INODE")
    wanted = PeerDescriptor(*(int(group) for group in match.groups()))
    connection = local(request)
    if SENT in request.headers:
        return connection.sent.take(request.headers[SENT], wanted)
    if request.transport is None:
        raise Unavailable("take a descriptor of the client: it is gone")
    return peer_descriptors.take(request.transport.get_extra_info("socket"), wanted)


def local(request: web.BaseRequest) -> Connection:
    """The connection of a client on a unix socket (PermissionDenied: it is not on one)."""
    protocol = request.protocol
    if not isinstance(protocol, Connection) or protocol.listener != "unix":
        raise PermissionDenied(
            "take a descriptor of the client: it is not connected by a unix socket",
            hint="send the directory as an archive",
        )
    return protocol
