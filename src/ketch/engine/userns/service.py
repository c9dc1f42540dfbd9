"""Which user namespace a container, or a command of a build, gets: the host's, the daemon's, or one of its own."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from ketch.engine.model.namespaces.user import DEFAULT_SIZE, UsernsKind, UsernsMode
from ketch.errors import FailedPrecondition, InvalidArgument
from ketch.storage.database.db import REPAIR
from ketch.threads import run_to_end

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ketch.engine.model.namespaces.user import UserNamespace
    from ketch.engine.model.records import Container, HostConfig
    from ketch.engine.model.store import ContainerStore
    from ketch.engine.userns.pool import IdPool


class UserNamespaces:
    """``remapped`` is that of ``--userns-remap``; ``by_default`` says that containers have ranges of their own."""

    def __init__(
        self, store: ContainerStore, pool: IdPool, remapped: UserNamespace | None = None, *, by_default: bool = False
    ) -> None:
        self._store, self._pool = store, pool
        self._remapped, self._by_default = remapped, by_default

    @property
    def usual(self) -> bool:
        """Whether a container that asks for nothing is in a user namespace."""
        return self._by_default or self._remapped is not None

    @contextlib.contextmanager
    def of_container(self, host: HostConfig) -> Iterator[UserNamespace | None]:
        """The namespace of a new container, whose record is to be written inside of the context; None: the host's.

        InvalidArgument, with Docker's words, for what cannot be had in one; FailedPrecondition for ids that are out.
        """
        mode = UsernsMode.parse(host.userns_mode)
        if mode.kind is UsernsKind.HOST or (mode.kind is UsernsKind.DEFAULT and not self.usual):
            yield None
            return
        others = [self._store.get(ref) for ref in host.joined if self._store.has(ref)]
        if others:
            yield _shared(host, mode, others)
            return
        check(host)
        with self._made(mode.kind is UsernsKind.AUTO, mode.size) as found:
            yield found

    @contextlib.contextmanager
    def of_command(self, *, insecure: bool, host_network: bool) -> Iterator[UserNamespace | None]:
        """The namespace of a build's command, as long as it runs (InvalidArgument, FailedPrecondition)."""
        if not self.usual:
            yield None
            return
        _check(privileged=insecure, network=host_network, pid=False, ipc=False)
        with self._made(self._remapped is None, DEFAULT_SIZE) as found:
            yield found

    @contextlib.contextmanager
    def _made(self, own: bool, size: int) -> Iterator[UserNamespace]:
        if self._remapped is not None and not own:
            yield self._remapped
            return
        if unread := self._store.unreadable:
            raise FailedPrecondition(
                f"find {size} ids for a user namespace: those of {', '.join(unread.values())} cannot be read",
                hint=REPAIR,
            )
        with self._pool.reserved(size, self._known()) as found:
            yield found

    def _known(self) -> list[UserNamespace]:
        found = [c.user_namespace for c in self._store.all() if c.user_namespace is not None]
        return [*found, self._remapped] if self._remapped is not None else found

    async def ready(self, mode: UsernsMode) -> None:
        """Have the ids for containers or commands of this mode at hand, which may take a while (KetchError)."""
        auto = mode.kind is UsernsKind.AUTO or (mode.kind is UsernsKind.DEFAULT and self._by_default)
        if auto:
            await run_to_end(self._pool.opened)

    def keep(self) -> None:
        """Hold the ids that containers have from the daemon's start on (FailedPrecondition); blocking."""
        self._pool.keep(found for found in self._known() if found != self._remapped)  # which all daemons share

    def close(self) -> None:
        """Let another daemon have the pool, if no container has ids of it."""
        self._pool.close(self._known())


def _shared(host: HostConfig, mode: UsernsMode, others: Sequence[Container]) -> UserNamespace | None:
    """The namespace of the containers whose others are shared: those belong to it, and nobody else has rights there."""
    found = {other.user_namespace for other in others}
    if len(found) > 1:
        names = " and ".join(sorted({other.name for other in others}))
        raise InvalidArgument(
            f"cannot share namespaces of containers in different user namespaces: {names}",
            hint="share all of one container",
        )
    [shared] = found
    if shared is not None:
        check(host)
    elif mode.kind is UsernsKind.AUTO:
        raise InvalidArgument(
            f"conflicting options: a user namespace of its own and the namespaces of container {others[0].name}, "
            "which is in the host's user namespace",
            hint=f"make {others[0].name} with --userns auto",
        )
    return shared


def check(host: HostConfig) -> None:
    """Refuse what a container in a user namespace cannot have (InvalidArgument, in Docker's words)."""
    _check(
        privileged=host.privileged,
        network=host.network.is_host,
        pid=host.pid.is_host,
        ipc=host.ipc.is_host,
    )


def _check(*, privileged: bool, network: bool, pid: bool, ipc: bool) -> None:
    if privileged:
        raise InvalidArgument(
            "privileged mode is incompatible with user namespaces.  You must run the container in the host namespace "
            "when running privileged mode"
        )
    for is_host, what in ((network, "host's network"), (pid, "host PID"), (ipc, "host IPC")):
        if is_host:
            raise InvalidArgument(f"cannot share the {what} namespace when user namespaces are enabled")
