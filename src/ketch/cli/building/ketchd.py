"""A build by ketchd: the request, its progress, and its result."""

from __future__ import annotations

import array
import binascii
import os
import socket
import struct
from contextlib import ExitStack, closing, contextmanager

from ketch.cli.building.delivery import Delivery
from ketch.client.errors import error_of
from ketch.errors import NotFound, PermissionDenied, Unavailable
from ketch.notation import documents

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from ketch.cli.building.request import BuildRequest
    from ketch.cli.context import Context
    from ketch.cli.output.build_display import BuildDisplay
    from ketch.client.http import Response

    Result = dict[str, Any]

PATH = "/ketch/build"
_SENT = "Ketch-Descriptors"


class BuildFailed(Exception):
    """The daemon's account of a build that failed; ``error`` is what the command ends with."""

    def __init__(self, row: dict[str, Any]) -> None:
        self.error = error_of(str(row.get("message", "")), str(row.get("kind") or ""))
        self.error.hint = row.get("hint") or None
        self.excerpt = str(row.get("excerpt") or "")
        self.image = str(row.get("image") or "")
        self.explained: list[dict[str, Any]] = row.get("explain") or []
        super().__init__(self.error.message)


def run(ctx: Context, build: BuildRequest, display: BuildDisplay) -> Result:
    """Build; returns the result, with ``explain`` if that was asked for (BuildFailed, KetchError)."""
    with ExitStack() as stack:
        delivery, response = _accepted(ctx, build, stack)
        stack.callback(response.close)
        return _followed(response, delivery, display)


def _accepted(ctx: Context, build: BuildRequest, stack: ExitStack) -> tuple[Delivery, Response]:
    """The delivery in the first way that ketchd accepts, and its answer (KetchError)."""
    if ctx.host.startswith("unix://"):
        delivery = Delivery(build, stack, by_descriptor=True)
        once = build.place.archive is not None  # when it has been refused, some of that has been read
        if not (once and delivery.descriptors):
            try:
                return delivery, _sent(ctx, delivery, {})
            except PermissionDenied:  # it may not look into this process
                pass
        try:
            token = stack.enter_context(_descriptors_sent(ctx, delivery.descriptors))
            return delivery, _sent(ctx, delivery, {_SENT: token})
        except (PermissionDenied, NotFound):  # somebody stands between, or it is an older one
            if once:
                raise
    delivery = Delivery(build, stack, by_descriptor=False)
    return delivery, _sent(ctx, delivery, {})


@contextmanager
def _descriptors_sent(ctx: Context, fds: list[int]) -> Iterator[str]:
    """A time in which ketchd has descriptors of ours: the token for them (PermissionDenied: it got none)."""
    hijacked = ctx.client().hijack("POST", "/ketch/descriptors")
    with closing(hijacked.sock) as sock:
        _, uid, _ = struct.unpack("iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if uid != os.geteuid():
            raise PermissionDenied("send descriptors to the daemon: its user may not read all that this one may")
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))
        sock.sendmsg([" ".join(map(str, fds)).encode()], [rights])
        if not sock.recv(1):
            raise PermissionDenied("send descriptors to the daemon: they did not arrive")
        yield hijacked.headers[_SENT.lower()]


def _sent(ctx: Context, delivery: Delivery, headers: dict[str, str]) -> Response:
    return ctx.client().upload("POST", PATH, _body(delivery), headers=headers)


def _body(delivery: Delivery) -> Iterator[bytes]:
    yield documents.dumps(delivery.request, spaces=False).encode() + b"\n"
    yield from delivery.body()


def _followed(response: Response, delivery: Delivery, display: BuildDisplay) -> Result:
    """Follow the answer to its end."""
    explained: list[Any] = []
    for row in response.stream_lines():
        if "status" in row:
            display.feed(row["status"])
        elif "output" in row:
            delivery.sinks[row["output"]["index"]].write(binascii.a2b_base64(row["output"]["data"]))
        elif "explain" in row:
            explained += row["explain"]
        elif "error" in row:
            raise BuildFailed({**row["error"], "explain": explained})
        elif "result" in row:
            for sink in delivery.sinks.values():
                sink.finish()
            return {**row["result"], "explain": explained}
    raise Unavailable("the daemon's answer broke off before the build had ended", hint="look at its log")
