"""A build by ketchd: the request, its progress, and its result."""

from __future__ import annotations

import binascii
import json
from contextlib import ExitStack
from typing import TYPE_CHECKING

from ketch.cli.building.delivery import Delivery
from ketch.client.errors import error_of
from ketch.errors import PermissionDenied, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from ketch.cli.building.request import BuildRequest
    from ketch.cli.context import Context
    from ketch.cli.output.build_display import BuildDisplay
    from ketch.client.http import Response

    Result = dict[str, Any]

PATH = "/ketch/build"


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
    by_descriptor = ctx.host.startswith("unix://")
    with ExitStack() as stack:
        delivery = Delivery(build, stack, by_descriptor=by_descriptor)
        try:
            response = _sent(ctx, delivery)
        except PermissionDenied:
            if not by_descriptor or build.place.archive is not None:  # of that, some has been read
                raise
            delivery = Delivery(build, stack, by_descriptor=False)  # it may not look into this process
            response = _sent(ctx, delivery)
        stack.callback(response.close)
        return _followed(response, delivery, display)


def _sent(ctx: Context, delivery: Delivery) -> Response:
    return ctx.client().upload("POST", PATH, _body(delivery))


def _body(delivery: Delivery) -> Iterator[bytes]:
    yield json.dumps(delivery.request, separators=(",", ":")).encode() + b"\n"
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
