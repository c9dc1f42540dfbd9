"""``logs`` of a container, whatever its log driver: which files are read, and how."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ketch.engine import containerview, logdrivers
from ketch.engine.jsonlogs import read_json_logs
from ketch.engine.logfollow import Follower
from ketch.engine.logs import Formatter, read_logs
from ketch.errors import Unimplemented

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ketch.engine.context import Context
    from ketch.engine.model import Container
    from ketch.engine.streams import LogOptions


def check_readable(ctx: Context, container: Container) -> None:
    """Unimplemented, in Docker's words, where the output is not kept here; DataLoss when it has been taken away."""
    containerview.check_files(ctx, container)
    if not logdrivers.readable(container):
        raise Unimplemented("configured logging driver does not support reading")


def read(ctx: Context, container: Container, options: LogOptions, *, raw: bool = False) -> AsyncIterator[bytes]:
    """Wire bytes; without the frames' headers for a tty and where ``raw`` says so."""
    live = ctx.live(container.id)
    runs = live.monitor is not None or live.pursuit is not None
    follower = Follower(live) if options.follow and runs else None
    details = logdrivers.details(container) if options.details else ""
    if container.host.log_config.type == "json-file":
        formatter = Formatter(
            stdout=options.stdout, stderr=options.stderr, since_ns=options.since_ns, until_ns=options.until_ns,
            timestamps=options.timestamps, details=details, tty=container.config.tty, raw=raw,
        )  # fmt: skip
        return read_json_logs(
            logdrivers.json_path(ctx, container.id), follower, formatter, since_ns=options.since_ns,
            until_ns=options.until_ns, tail=options.tail, follow=options.follow,
        )  # fmt: skip
    return read_logs(
        ctx.log_dir(container.id), follower, stdout=options.stdout, stderr=options.stderr,
        since_ns=options.since_ns, until_ns=options.until_ns, tail=options.tail, timestamps=options.timestamps,
        details=details, follow=options.follow, tty=container.config.tty, raw=raw,
    )  # fmt: skip
