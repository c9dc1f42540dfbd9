"""Shared namespaces (``--network container:web``): the other container, and its namespaces."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ketch.engine.model.namespaces.mode import ModeKind
from ketch.engine.model.namespaces.user import UsernsKind, UsernsMode
from ketch.errors import Conflict, FailedPrecondition, InvalidArgument, NotFound, UnclassifiedArgument
from ketch.notation.namespace_modes import of_container

if TYPE_CHECKING:
    from ketch.engine.model.records import Container, HostConfig
    from ketch.engine.model.store import ContainerStore


def resolve(host: HostConfig, store: ContainerStore) -> None:
    """Replace containers' names by ids: at the start a name may belong to another container.

    InvalidArgument for one that is not there; of a network's mode that is an error of the start, as with dockerd.
    """
    if (ref := host.network.container) is not None and store.has(ref):
        host.network_mode = of_container(store.get(ref).id)
    if (ref := host.pid.container) is not None:
        host.pid_mode = of_container(_id(ref, store))
    if (ref := host.ipc.container) is not None:
        host.ipc_mode = of_container(_id(ref, store))


def without_label(host: HostConfig) -> None:
    """Add what dockerd adds to the security options of a container in the host's namespaces: no SELinux label."""
    options = host.security_opt or []
    if (host.privileged or host.ipc.is_host or host.pid.is_host) and not any(
        option.partition("=")[0] == "label" for option in options
    ):
        host.security_opt = [*options, "label=disable"]


def _id(ref: str, store: ContainerStore) -> str:
    try:
        return store.get(ref).id
    except NotFound as e:
        raise InvalidArgument(e.message) from e


def other(store: ContainerStore, ref: str, kind: str) -> Container:
    """The container that another one joins (UnclassifiedArgument)."""
    try:
        return store.get(ref)
    except NotFound as e:
        raise UnclassifiedArgument(f"joining {kind} namespace of container: {e.message}", hint=e.hint) from e


def path(store: ContainerStore, ref: str, kind: str) -> str:
    """The path of a namespace of another, running container: ``network``, ``pid``, ``ipc``, ``user`` (KetchError)."""
    found = other(store, ref, kind)
    if not found.state.running:
        if kind == "network":
            state = found.state.status
            raise Conflict(f"cannot join network namespace of a non running container: container {ref} is {state}")
        raise Conflict(f"failed to join {kind.upper()} namespace: container {found.id} is not running")
    if kind == "ipc" and found.host.ipc.kind in (ModeKind.DEFAULT, ModeKind.PRIVATE, ModeKind.NONE):
        raise InvalidArgument(
            f"failed to join IPC namespace: container {found.id}: non-shareable IPC "
            "(hint: use IpcMode:shareable for the donor container)"
        )
    return f"/proc/{found.state.pid}/ns/{'net' if kind == 'network' else kind}"


def check_users(store: ContainerStore, container: Container) -> None:
    """Refuse to share what belongs to another user namespace than the container was made for (FailedPrecondition).

    One that was to be in the host's has rights in all.
    """
    if UsernsMode.parse(container.host.userns_mode).kind is UsernsKind.HOST:
        return
    for ref in container.host.joined:
        found = other(store, ref, "user")
        if found.user_namespace != container.user_namespace:
            raise FailedPrecondition(
                f"share the namespaces of container {found.name}: it is in another user namespace than "
                f"{container.name} was made for",
                hint=f"remove {container.name} and make it again",
            )
