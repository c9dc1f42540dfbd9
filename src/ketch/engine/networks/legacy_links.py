"""Docker's legacy links: ``--link TARGET:ALIAS`` between containers of the default network.

    web ── db (alias) ──► store          `docker run --name web --link store:db`

While ``web`` runs it knows ``store`` by lines of its /etc/hosts, which follow the target's address, and by variables
``DB_PORT…``, ``DB_NAME``, ``DB_ENV_…``.  ``/web/db`` is one more name of ``store`` until the link is removed.  A link
is kept with the container that has it, by the target's id.  Targets exist before those who link to them: there
are no cycles, and the oldest first is an order in which all can start.

In user-defined networks a link is only a name that one container has for another (`dns_names`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ketch.engine.spec import bundle
from ketch.errors import FailedPrecondition, InvalidArgument, NotFound, UnclassifiedArgument
from ketch.network.ports import requests

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ketch.engine.model.records import Container, HostConfig
    from ketch.engine.model.store import ContainerStore

DEFAULT = "bridge"
Strings = list[str]
_ALIAS = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*\Z")
_BUILD_TIME = ("HOME", "PATH")  # of no meaning to others


class Links:
    """The links of all containers."""

    def __init__(self, store: ContainerStore) -> None:
        self._store = store
        self._linked_ids: set[str] = {c.id for c in store.ids.values() if c.links}

    # -- making and forgetting -------------------------------------------------------------------

    def resolve(self, container: Container) -> None:
        """Look up the targets of a new container's links (InvalidArgument, in Docker's words).

        In a user-defined network the links become those of its endpoint, and there are none of this kind.
        """
        host = container.host
        wanted = [parse(link) for link in host.links or ()]
        if wanted and host.network.network != DEFAULT:
            _refuse(host)
            settings = container.networks.get(host.network_mode)
            if settings is not None and not settings.links:
                settings.links = [f"{target}:{alias}" for target, alias in wanted]
            return
        for target, alias in wanted:
            container.links.setdefault(alias, self._linkable(target).id)
            self._linked_ids.add(container.id)

    def _linkable(self, ref: str) -> Container:
        """The container ``ref``, or the one whose network it uses."""
        try:
            target = self._store.get(ref)
            while (owner := target.host.network.container) is not None:
                target = self._store.get(owner)
        except NotFound as e:
            raise InvalidArgument(f"could not get container for {ref}: {e.message}") from e
        if target.host.network.is_host:
            _refuse(target.host)
        return target

    def forget(self, target: Container) -> list[Container]:
        """Remove a container's links and those to it; returns the containers that have lost one."""
        self._linked_ids.discard(target.id)
        found = list(self.linking(target))
        for container, alias in found:
            del container.links[alias]
        return [container for container, _ in found]

    # -- looking ---------------------------------------------------------------------------------

    def names(self, target: Container) -> Strings:
        """A container's names by links: ``/web/db``."""
        return sorted(f"/{container.name}/{alias}" for container, alias in self.linking(target))

    def shown(self, container: Container) -> Strings | None:
        """A container's links in the form of ``HostConfig.Links``: ``/store:/web/db``."""
        rows = [f"/{target.name}:/{container.name}/{alias}" for alias, target in self._targets(container)]
        return sorted(rows) or None

    def linking(self, target: Container) -> Iterator[tuple[Container, str]]:
        """The containers that link to a container, and their aliases."""
        for container_id in self._linked_ids:
            if (container := self._store.ids.get(container_id)) is None:
                continue  # it is being made
            for alias, target_id in container.links.items():
                if target_id == target.id:
                    yield container, alias

    def _targets(self, container: Container) -> Iterator[tuple[str, Container]]:
        for alias, target_id in container.links.items():
            if (target := self._store.ids.get(target_id)) is not None:
                yield alias, target

    # -- running ---------------------------------------------------------------------------------

    def check(self, container: Container) -> None:
        """Check that every target runs, on the default network (FailedPrecondition in Docker's words)."""
        for alias, target in self._targets(container):
            if not target.state.running:
                raise FailedPrecondition(
                    f"Cannot link to a non running container: /{target.name} AS /{container.name}/{alias}"
                )
            if DEFAULT not in target.networks:
                raise FailedPrecondition(
                    f"Cannot link to /{target.name}, as it does not belong to the default network",
                    hint="give both containers a network of their own: there every name is known",
                )

    def environment(self, container: Container) -> Strings:
        """The environment variables of a container's links."""
        return [
            variable
            for alias, target in self._targets(container)
            if (address := _address(target))
            for variable in variables(f"/{container.name}/{alias}", address, target)
        ]

    def hosts(self, container: Container) -> str:
        """The lines of ``/etc/hosts`` for a container's targets: alias, host name, own name."""
        lines = []
        for alias, target in self._targets(container):
            if address := _address(target):
                names = dict.fromkeys((alias, bundle.hostname(target), target.name))
                lines.append(f"{address}\t{' '.join(names)}\n")
        return "".join(lines)


def parse(link: str) -> tuple[str, str]:
    """``store:db``, ``store``, and what an inspect shows, ``/store:/web/db`` → (target, alias) (InvalidArgument)."""
    target, colon, alias = link.partition(":")
    if not link or not target or ":" in alias:
        raise UnclassifiedArgument(f"bad format for links: {link}" if link else "empty string specified for links")
    target = target.removeprefix("/")
    alias = alias.rpartition("/")[2] if colon else target
    if not _ALIAS.match(alias):
        raise UnclassifiedArgument(f"bad format for links: {link}", hint="use --link CONTAINER:ALIAS")
    return target, alias


def variables(name: str, address: str, target: Container) -> Strings:
    """The environment variables of a link named ``/web/db``; three or more consecutive ports also make a range."""
    prefix = name.rpartition("/")[2].upper().replace("-", "_")
    ports = [_port(name) for name in requests.names(target.config.exposed_ports or ())]
    exposed = sorted(ports, key=lambda port: (port[1] != "tcp", port[1], port[0]))
    found = []
    if exposed:
        number, proto = exposed[0]
        found.append(f"{prefix}_PORT={proto}://{address}:{number}")
    for first, last in _ranges(exposed):
        variable = f"{prefix}_PORT_{first[0]}_{first[1].upper()}"
        found += [
            f"{variable}_START={first[1]}://{address}:{first[0]}",
            f"{variable}_ADDR={address}",
            f"{variable}_PROTO={first[1]}",
            f"{variable}_PORT_START={first[0]}",
            f"{variable}_END={last[1]}://{address}:{last[0]}",
            f"{variable}_PORT_END={last[0]}",
        ]
    for number, proto in exposed:
        variable = f"{prefix}_PORT_{number}_{proto.upper()}"
        found += [
            f"{variable}={proto}://{address}:{number}",
            f"{variable}_ADDR={address}",
            f"{variable}_PORT={number}",
            f"{variable}_PROTO={proto}",
        ]
    found.append(f"{prefix}_NAME={name}")
    for item in target.config.env or ():
        key, equals, value = item.partition("=")
        if equals and key not in _BUILD_TIME:
            found.append(f"{prefix}_ENV_{key}={value}")
    return found


def _port(name: str) -> tuple[int, str]:
    number, _, proto = name.partition("/")
    return int(number), proto


def _ranges(ports: Sequence[tuple[int, str]]) -> Iterator[tuple[tuple[int, str], tuple[int, str]]]:
    """Ranges (first, last) of at least three consecutive ports of one protocol."""
    for proto in ("tcp", "udp", "sctp"):
        numbers = [n for n, p in ports if p == proto]
        while numbers:
            first = last = numbers.pop(0)
            while numbers and numbers[0] == last + 1:
                last = numbers.pop(0)
            if last > first + 1:
                yield (first, proto), (last, proto)


def _address(target: Container) -> str:
    settings = target.networks.get(DEFAULT)
    return settings.ip_address if settings is not None and target.state.running else ""


def _refuse(host: HostConfig) -> None:
    if host.network.is_another:
        kind = f"{host.network.kind} type"
        raise InvalidArgument(
            f"conflicting options: {kind} networking can't be used with links. This would result in undefined behavior"
        )
