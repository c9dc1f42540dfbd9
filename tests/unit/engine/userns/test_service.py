"""Which user namespace a container gets."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import pytest

from ketch.engine.containers import shared_namespaces
from ketch.engine.model.namespaces.user import IdRange, UserNamespace
from ketch.engine.model.records import Container, ContainerConfig, HostConfig
from ketch.engine.userns.pool import IdPool
from ketch.engine.userns.service import UserNamespaces
from ketch.engine.userns.subids import SubIdFiles
from ketch.errors import FailedPrecondition, InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterator

FIRST = 3_500_000_000 + os.getpid() * 100
REMAPPED = UserNamespace(uids=(IdRange(0, 100000, 65536),), gids=(IdRange(0, 100000, 65536),))
OTHER = UserNamespace.of_range(5, 5)


class Store:
    """The containers that there are, by name."""

    def __init__(self, **namespaces: UserNamespace | None) -> None:
        self.unreadable: dict[str, str] = {}
        self.containers = {name: container(name, found) for name, found in namespaces.items()}

    def all(self) -> list[Container]:
        return list(self.containers.values())

    def has(self, ref: str) -> bool:
        return ref in self.containers

    def get(self, ref: str) -> Container:
        return self.containers[ref]


def container(name: str, namespace: UserNamespace | None, host: HostConfig | None = None) -> Container:
    return Container(
        id=name,
        name=name,
        created=1,
        image_id="",
        image_ref="",
        config=ContainerConfig(),
        host=host or HostConfig(),
        user_namespace=namespace,
    )


@contextlib.contextmanager
def service(
    remapped: UserNamespace | None = None, *, by_default: bool = False, **namespaces: UserNamespace | None
) -> Iterator[UserNamespaces]:
    pool = IdPool(f"{FIRST}:200000", SubIdFiles("/nonexistent/subuid", "/nonexistent/subgid"), "/")
    try:
        yield UserNamespaces(Store(**namespaces), pool, remapped, by_default=by_default)  # type: ignore[arg-type]
    finally:
        pool.close()


def given(one: UserNamespaces, **host: str) -> UserNamespace | None:
    with one.of_container(HostConfig(**host)) as found:  # type: ignore[arg-type]
        return found


@pytest.mark.parametrize(
    ("remapped", "by_default", "mode", "expected"),
    [
        (None, False, "", None),
        (None, False, "private", None),
        (None, False, "host", None),
        (None, True, "host", None),
        (REMAPPED, False, "host", None),
        (REMAPPED, False, "", REMAPPED),
        (REMAPPED, False, "private", REMAPPED),
        (None, True, "", UserNamespace.of_range(FIRST, 65536)),
        (None, False, "auto", UserNamespace.of_range(FIRST, 65536)),
        (REMAPPED, False, "auto", UserNamespace.of_range(FIRST, 65536)),
        (None, True, "auto:size=10", UserNamespace.of_range(FIRST, 10)),
    ],
)
def test_what_is_asked_for_and_what_is_usual(remapped, by_default, mode, expected):
    with service(remapped, by_default=by_default) as one:
        assert given(one, userns_mode=mode) == expected
        assert one.usual == (by_default or remapped is not None)


def test_ranges_of_containers_that_are_being_made_are_taken():
    with service(by_default=True) as one:
        first, second = HostConfig(), HostConfig(userns_mode="auto:size=3")
        with one.of_container(first) as a, one.of_container(second) as b, one.of_command(**PLAIN) as c:
            ids = [part for found in (a, b, c) if found is not None for part in found.uids]
            assert len(ids) == 3
            assert all(left.end <= right.outside for left, right in zip(ids, ids[1:], strict=False))


def test_ids_that_cannot_be_read_might_be_any():
    with service(REMAPPED, by_default=False) as one:
        one._store.unreadable["id"] = "broken"
        with pytest.raises(FailedPrecondition, match="those of broken cannot be read"):
            given(one, userns_mode="auto")
        assert given(one) == REMAPPED


def test_ids_of_containers_are_held_from_the_start_on():
    with service(web=UserNamespace.of_range(FIRST, 10)) as one, service() as other:
        one.keep()
        with pytest.raises(FailedPrecondition, match="gives them out"):
            given(other, userns_mode="auto")
        one.close()
    with service(plain=None) as one, service() as other:
        one.keep()
        assert given(other, userns_mode="auto") is not None


def test_the_ids_of_userns_remap_are_nobody_elses():
    inside = UserNamespace.of_range(FIRST + 20, 65536)
    with service(inside) as one:
        found = given(one, userns_mode="auto")
        assert found is not None
        assert found.uids[0].outside == inside.uids[0].end


PLAIN = {"insecure": False, "host_network": False}


def test_commands_of_builds_have_the_usual():
    for remapped, expected in ((None, None), (REMAPPED, REMAPPED)):
        with service(remapped) as one, one.of_command(**PLAIN) as found:
            assert found == expected
    with service() as one, one.of_command(insecure=True, host_network=True) as found:
        assert found is None
    for change in ({"insecure": True}, {"host_network": True}):
        with service(REMAPPED) as one, pytest.raises(InvalidArgument), one.of_command(**{**PLAIN, **change}):
            pass


@pytest.mark.parametrize("field", ["network_mode", "pid_mode", "ipc_mode"])
@pytest.mark.parametrize("by_default", [False, True])
def test_who_shares_anothers_namespaces_is_in_its_user_namespace(field, by_default):
    with service(by_default=by_default, inside=OTHER, plain=None) as one:
        mode = "" if by_default else "auto"
        assert given(one, userns_mode=mode, **{field: "container:inside"}) == OTHER
        if by_default:
            assert given(one, **{field: "container:plain"}) is None
        with pytest.raises(InvalidArgument, match="namespaces of container plain"):
            given(one, userns_mode="auto", **{field: "container:plain"})
        # One that is not there is an error of the start; until then nobody gets the host's by it.
        assert given(one, userns_mode=mode, **{field: "container:gone"}) == UserNamespace.of_range(FIRST, 65536)
        with pytest.raises(InvalidArgument, match="different user namespaces: inside and plain"):
            given(one, userns_mode="auto", network_mode="container:inside", pid_mode="container:plain")
        with pytest.raises(InvalidArgument, match="the host PID namespace"):
            given(one, userns_mode="auto", network_mode="container:inside", pid_mode="host")


def test_a_container_is_not_started_in_another_user_namespace_than_it_was_made_for():
    store = Store(web=OTHER, plain=None)
    for ref, own in (("web", None), ("plain", OTHER), ("web", REMAPPED)):
        host = HostConfig(network_mode=f"container:{ref}", userns_mode="auto")
        with pytest.raises(FailedPrecondition, match=f"share the namespaces of container {ref}"):
            shared_namespaces.check_users(store, container("one", own, host))  # type: ignore[arg-type]
    host = HostConfig(network_mode="container:web", userns_mode="host")
    shared_namespaces.check_users(store, container("one", None, host))  # type: ignore[arg-type]
    host = HostConfig(network_mode="container:web")
    shared_namespaces.check_users(store, container("one", OTHER, host))  # type: ignore[arg-type]
