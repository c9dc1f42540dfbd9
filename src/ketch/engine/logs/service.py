"""``logs`` of a container: the choice of the reader by its log driver."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from ketch.engine.logs import drivers as log_drivers
from ketch.engine.logs.follow import Follower
from ketch.engine.logs.framed_reader import Formatter, read_logs, with_rest
from ketch.engine.logs.json_reader import read_json_logs
from ketch.errors import Unimplemented

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from ketch.engine.aio.streams import LogOptions
    from ketch.engine.files.container_view import ContainerViews
    from ketch.engine.live.containers import LiveContainers
    from ketch.engine.logs.drivers import LogDrivers
    from ketch.engine.model.records import Container
    from ketch.engine.paths import ContainerPaths


class LogService(Struct, frozen=True, eq=False):
    """The logs of all containers."""

    live: LiveContainers
    paths: ContainerPaths
    views: ContainerViews
    drivers: LogDrivers

    def check_readable(self, container: Container) -> None:
        """Unimplemented, in Docker's words, where the output is not kept here; DataLoss when it has been taken away."""
        self.views.check_files(container)
        if not log_drivers.readable(container):
            raise Unimplemented("configured logging driver does not support reading")

    async def read(
        self, container: Container, options: LogOptions, *, raw: bool = False
    ) -> AsyncGenerator[bytes, None]:
        """Wire bytes; without the frames' headers for a tty and where ``raw`` says so. To be closed.

        The log is open when this returns: what it has is read, even if the container is removed before.
        """
        live = self.live.of(container.id)
        runs = live.monitor is not None or live.pursuit is not None
        follower = Follower(live) if options.follow and runs else None
        details = log_drivers.details(container) if options.details else ""
        formatter = Formatter(options, details=details, tty=container.config.tty, raw=raw)
        if container.host.log_config.type == "json-file":
            chunks = read_json_logs(self.drivers.json_path(container.id), follower, formatter, options)
        else:
            chunks = read_logs(self.paths.log_dir(container.id), follower, formatter, options)
        whole = with_rest(chunks, formatter)
        await anext(whole)
        return whole
