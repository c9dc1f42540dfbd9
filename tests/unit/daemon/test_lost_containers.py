"""Containers that a repair makes again of their bundles."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from ketch.daemon.recovery import lost_objects
from ketch.engine.model.namespaces.user import IdRange, UserNamespace
from ketch.engine.model.records import Container, ContainerConfig, HostConfig, MountPoint
from ketch.engine.spec import bundle

if TYPE_CHECKING:
    from pathlib import Path

ID = "c" * 64
REMAPPED = UserNamespace(uids=(IdRange(0, 100000, 10), IdRange(10, 5000, 20)), gids=(IdRange(0, 7000, 30),))


def found(tmp_path: Path, container: Container) -> Container:
    place = tmp_path / "containers" / ID
    (place / "bundle").mkdir(parents=True)
    spec = bundle.build(container, str(place), "/x", lambda _ref, kind: f"/proc/1/ns/{kind}")
    (place / "bundle" / "config.json").write_bytes(msgspec.json.encode(spec))
    again = lost_objects.container(str(place), str(tmp_path), ["sha256:1"], [])
    assert again is not None
    return again


def container(host: HostConfig, namespace: UserNamespace | None, *mounts: MountPoint) -> Container:
    return Container(
        id=ID,
        name="one",
        created=1,
        image_id="sha256:1",
        image_ref="busybox",
        config=ContainerConfig(),
        host=host,
        path="true",
        user_namespace=namespace,
        mounts=list(mounts),
    )


@pytest.mark.parametrize("namespace", [None, REMAPPED, UserNamespace.of_range(2**31, 65536)])
@pytest.mark.parametrize("mode", ["", "host", "auto:size=10"])
def test_who_was_not_the_machines_root_is_not_now(tmp_path: Path, namespace: UserNamespace | None, mode: str) -> None:
    again = found(tmp_path, container(HostConfig(userns_mode=mode), namespace))
    assert (again.user_namespace, again.host.userns_mode) == (namespace, mode)


def test_who_joined_another_has_the_same_users(tmp_path: Path) -> None:
    again = found(tmp_path, container(HostConfig(network_mode="container:web"), REMAPPED))
    assert again.user_namespace == REMAPPED


def test_a_profile_of_ones_own_is_asked_for_again(tmp_path: Path) -> None:
    for profile, option in (("mine", ["apparmor=mine"]), ("ketch-default", None)):
        one = container(HostConfig(), None)
        one.apparmor_profile = profile
        assert found(tmp_path / profile, one).host.security_opt == option


@pytest.mark.parametrize("namespace", [None, REMAPPED])
def test_mounts_are_mapped_as_they_were(tmp_path: Path, namespace: UserNamespace | None) -> None:
    text = "uids=0-3-1#5-0-1;gids=0-0-2"
    volumes = str(tmp_path / "volumes")
    mounts = [
        MountPoint(type="bind", source="/a", destination="/a"),
        MountPoint(type="bind", source="/b", destination="/b", idmap="container"),
        MountPoint(type="bind", source="/c", destination="/c", idmap=text),
        MountPoint(type="volume", source=f"{volumes}/d/_data", destination="/d", name="d"),
        MountPoint(type="volume", source=f"{volumes}/e/_data", destination="/e", name="e", idmap="none"),
    ]
    before = container(HostConfig(), namespace, *mounts)
    again = found(tmp_path, before)
    after = {m["destination"]: m for m in bundle.build(again, "/x", "/x", lambda _ref, _kind: "")["mounts"]}
    for mount in bundle.build(before, "/x", "/x", lambda _ref, _kind: "")["mounts"]:
        if mount["destination"] in ("/a", "/b", "/c", "/d", "/e"):
            assert after[mount["destination"]] == mount
