"""``ketch import-docker`` out of a real dockerd."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.engines import Engine
from tests.support.rawapi import Api

pytestmark = pytest.mark.ketch_only
# A layer with whiteouts, an opaque directory, a hard link, a name that is no UTF-8.
MADE = "rm -r /bin/cat /root; mkdir /root; echo x >/root/x; ln /root/x /root/y; touch $(printf '/root/\\377')"
# At the first start it writes, at the second it tells.
WRITES = "cat /note || { rm /root/y; ln /bin/sh /shell; cp /bin/ls /bin/cat; echo kept >/note; }"
# Ids of the machine for a dockerd whose containers have users of their own.
IDS = """for file in subuid subgid; do
    echo daemon:231072:65536 >/run/$file
    mount --bind /run/$file /etc/$file
done
exec "$@"
"""
NAMES = ("db", "web", "side")
_SAME = ("RestartPolicy", "PortBindings", "Memory", "MemorySwap", "Tmpfs", "LogConfig", "MaskedPaths", "ShmSize")


@pytest.fixture(scope="module")
def moved_from(dockerd: Engine):
    """A dockerd with networks, volumes and containers of many kinds."""
    docker = dockerd.docker
    docker("network", "create", "--subnet=172.31.77.0/24", "--gateway=172.31.77.254", "--label=of=team", "backend")
    docker("network", "create", "--config-only", "--subnet=172.31.78.0/24", "settings")
    docker("network", "create", "--config-from=settings", "settled")
    docker("volume", "create", "--label=keep=yes", "data")
    docker("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m", "memory")
    write = "echo kept >/data/file; chown 7:8 /data/file; ln /data/file /data/other; echo more >/anonymous/file"
    flags = "--network=backend --ip=172.31.77.9 --network-alias=base -v data:/data -v /anonymous --hostname=store"
    docker("run", "--name=db", *flags.split(), "busybox", "sh", "-c", write)
    docker("tag", "busybox", "own/app:1")
    flags = "--restart=unless-stopped -p 127.0.0.1:18080:80 -m 64m -e A=b --mac-address=02:42:00:00:00:07 --label=x=y"
    docker("create", "--name=web", *flags.split(), "--link=db:store", "--network=backend", "own/app:1", "sleep", "99")
    flags = "--network=container:web --volumes-from=db:ro --tmpfs=/scratch --mount=type=volume,dst=/unnamed"
    docker("create", "--name=side", *flags.split(), "busybox", "cat", "/data/file", "/anonymous/file")
    docker("run", "--name=maker", "busybox", "sh", "-c", MADE)
    docker("commit", "maker", "own/made:1")
    docker("rm", "maker")
    docker("run", "--name=writer", "own/made:1", "sh", "-c", WRITES)
    docker("commit", "writer", "own/chain:1")
    docker("create", "--name=former", "own/chain:1", "true")
    docker("commit", "former", "own/chain:1")  # so former's image has no name, and one that was built upon it
    docker("rmi", "own/app:1")
    other = subprocess.run(["tar", "-C", "/", "-c", "etc/hostname"], capture_output=True, check=True).stdout
    docker("import", "-", "own/app:1", stdin=other)  # so web's image is not the one of this name any more
    return dockerd


def imported(engine: Engine, source: Engine, *words: str, place: str = "", check: bool = True):
    return engine.ketch("import-docker", "--from", place or source.host, *words, check=check)


@pytest.fixture
def target(engine: Engine):
    """The engine that is imported into; nothing of it is left."""
    api = Api(engine.socket)
    yield engine
    engine.remove_all()
    api("DELETE", "/networks/settings")  # another one needed it until now
    for row in api.must("GET", "/volumes")["Volumes"] or ():
        api.must("DELETE", f"/volumes/{row['Name']}")
    for row in api.must("GET", "/images/json"):
        if "busybox:latest" not in row["RepoTags"]:
            api("DELETE", f"/images/{row['Id']}", force=1)


def actions(engine: Engine, source: Engine, *words: str, place: str = "") -> dict[str, str]:
    lines = imported(engine, source, "--format=json", *words, place=place).out.splitlines()
    return {f"{row['Kind']} {row['Name']}": row["Action"] for row in map(json.loads, lines)}


def test_everything_is_planned_made_and_found_again(moved_from: Engine, target: Engine):
    theirs, ours = Api(moved_from.socket), Api(target.socket)
    before, began = state(theirs), time.time()
    plan = actions(target, moved_from)
    assert set(plan.values()) == {"import"}, plan
    assert [row["Names"] for row in ours.must("GET", "/containers/json", all=1)] == []  # a plan changes nothing
    done = actions(target, moved_from, "--yes")
    assert dict.fromkeys(plan, "imported") == done

    assert target.ketch("start", "-a", "side", check=False).out == ""  # it needs web's namespaces
    assert networks_of(target) == networks_of(moved_from)
    assert ours.must("GET", "/volumes/data")["Labels"] == {"keep": "yes"}
    assert ours.must("GET", "/volumes/memory")["Options"] == {"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}
    assert_imported(facts_of(moved_from), target)

    target.ketch("start", "web")
    assert target.ketch("start", "-a", "side").out == "kept\nmore\n"
    web = target.inspect("web")["NetworkSettings"]
    assert web["Networks"]["backend"]["MacAddress"] == "02:42:00:00:00:07"
    found = target.ketch("run", "--rm", "-v", "data:/d", "busybox", "stat", "-c", "%u:%g %h", "/d/file").out
    assert found == "7:8 2\n"

    assert set(actions(target, moved_from, "--yes").values()) == {"there"}
    assert state(theirs) == before
    changing = json.dumps({"type": ["container", "volume", "network"]})
    assert theirs.must("GET", "/events", since=began, until=time.time(), filters=changing) is None


def state(api: Api) -> list:
    """All that an engine has."""
    paths = ("/images/json?all=1", "/networks", "/volumes", *(f"/containers/{name}/json" for name in NAMES))
    found = [api.must("GET", path) for path in paths]
    for part in found[3:]:
        part["Mounts"].sort(key=str)  # in Docker's answers they are in no order
    lists = [part.get("Volumes", part) if isinstance(part, dict) else part for part in found]
    return [sorted(part, key=str) if isinstance(part, list) else part for part in lists]


def facts_of(source: Engine) -> dict[str, dict]:
    facts = {name: source.inspect(name) for name in NAMES}
    return {**facts, "image": Api(source.socket).must("GET", "/images/own/made:1/json")}


def assert_imported(facts: dict[str, dict], target: Engine) -> None:
    ours = facts_of(target)
    for name in NAMES:
        assert_alike(facts[name], ours[name])
    assert facts["image"]["Id"] == ours["image"]["Id"]


def assert_alike(theirs: dict, ours: dict) -> None:
    """Everything that was asked for is the same, but for what each engine names after itself."""
    for key, value in theirs["Config"].items():
        if key != "Hostname" or value != theirs["Id"][:12]:
            assert (key, ours["Config"].get(key) or None) == (key, value or None) or key == "Image"
    for key in _SAME:
        assert (key, ours["HostConfig"].get(key)) == (key, theirs["HostConfig"].get(key))
    mounts = [
        sorted((mount["Destination"], mount["Name"], mount["RW"]) for mount in facts["Mounts"])
        for facts in (theirs, ours)
    ]
    assert mounts[0] == mounts[1]
    for name, settings in theirs["NetworkSettings"]["Networks"].items():
        for key in ("IPAMConfig", "Links", "Aliases"):
            assert (ours["NetworkSettings"]["Networks"][name].get(key) or None) == (settings[key] or None), key


def test_a_container_brings_what_it_needs_and_nothing_else(moved_from: Engine, target: Engine):
    found = actions(target, moved_from, "--yes", "db")
    names = {name for name in found if not name.startswith("volume ")}
    assert names == {"network backend", "container db", "image busybox:latest"}
    assert "volume memory" not in found and "volume data" in found


@pytest.mark.parametrize("removal", [["rm -v db"], ["rm db", "volume prune -f"]])
def test_volumes_without_a_name_have_none_in_ketch_either(moved_from: Engine, target: Engine, removal: list[str]):
    imported(target, moved_from, "--yes", "db")
    names = {mount["Destination"]: mount["Name"] for mount in moved_from.inspect("db")["Mounts"]}
    assert {mount["Destination"]: mount["Name"] for mount in target.inspect("db")["Mounts"]} == names
    api = Api(target.socket)
    assert api.must("GET", f"/volumes/{names['/anonymous']}")["Labels"] == {"com.docker.volume.anonymous": ""}
    for command in removal:
        target.ketch(*command.split())
    assert api("GET", f"/volumes/{names['/anonymous']}")[0] == 404
    assert api("GET", "/volumes/data")[0] == 200


def test_a_failure_is_named_undone_and_mended_by_the_next_run(moved_from: Engine, target: Engine):
    place = Api(moved_from.socket).must("GET", "/volumes/data")["Mountpoint"]
    os.rename(place, place + ".away")
    try:
        done = imported(target, moved_from, "--yes", "db", check=False)
    finally:
        os.rename(place + ".away", place)
    assert done.code == 1
    assert "ketch: import volume data: " in done.err and "ketch: import container db: it needs volume data" in done.err
    assert Api(target.socket)("GET", "/volumes/data")[0] == 404
    assert actions(target, moved_from, "--yes", "db")["container db"] == "imported"


def test_what_an_interrupted_copy_left_is_copied_again(moved_from: Engine, target: Engine):
    target.ketch("volume", "create", "data")
    place = Api(target.socket).must("GET", "/volumes/data")["Mountpoint"]
    os.makedirs(f"{place}/.ketch-restore-0123456789abcdef/half")
    assert actions(target, moved_from, "--yes", "db")["volume data"] == "imported"
    assert sorted(os.listdir(place)) == ["file", "other"]
    assert actions(target, moved_from, "db")["volume data"] == "there"


def test_what_a_container_wrote_can_come_too(moved_from: Engine, target: Engine):
    imported(target, moved_from, "--yes", "--changes", "writer")
    image = target.inspect("writer")["Image"]
    seen = target.ketch(
        "run", "--rm", image, "sh", "-c", "ls /root | head -n1; readlink /shell; test -e /root/y || ls /note"
    )
    assert seen.out == "x\nbusybox\n/note\n"
    assert actions(target, moved_from, "--yes", "--changes", "writer")["container writer"] == "there"


def test_volumes_can_stay_where_docker_has_them(moved_from: Engine, target: Engine):
    with target.ketch.terminal("import-docker", "--from", moved_from.host, "--yes", "--volumes=bind", "db") as shown:
        # The view of the bytes is taken away before what stays is printed.
        shown.expect(r"(?s)image \S+ +Importing .*\x1b\[Jimported image busybox:latest")
        shown.expect("(?s)imported volume data: stays in .*imported container db")
        assert shown.wait() == 0
    target.ketch("run", "--rm", "-v", "data:/d", "busybox", "grep", "kept", "/d/file")
    place = Api(moved_from.socket).must("GET", "/volumes/data")["Mountpoint"]
    target.remove_all()
    target.ketch("volume", "rm", "data")
    assert sorted(os.listdir(place)) == ["file", "other"]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["nobody"], "import container nobody: Docker has none of this name"),
        (["--skip=pods"], "--skip pods: not a kind"),
        (["--volumes=link"], "--volumes link: not known"),
    ],
)
def test_wrong_requests(moved_from: Engine, target: Engine, words: list[str], why: str):
    done = imported(target, moved_from, *words, check=False)
    assert done.code != 0 and why in done.err


def test_ketch_is_no_docker(target: Engine):
    done = imported(target, target, check=False)
    assert done.code == 1 and "it is ketchd that answers there" in done.err


def test_without_its_volume_a_container_is_skipped(moved_from: Engine, target: Engine):
    lines = imported(target, moved_from, "--format=json", "--skip=volumes").out.splitlines()
    found = [json.loads(line) for line in lines]
    skipped = {row["Name"]: row["Note"] for row in found if row["Action"] == "skipped"}
    assert set(skipped) == {"db", "side"} and "volume data" in skipped["db"]
    assert not [row for row in found if row["Kind"] == "volume"]


@pytest.fixture(scope="module")
def containerd_store():
    """A dockerd whose images are in containerd's store."""
    one = Engine("dockerd", suffix="c")
    one.own_network = True
    one.extra = ["--feature", "containerd-snapshotter=true"]
    with one.running():
        one.docker("run", "--name=maker", "busybox", "sh", "-c", MADE)
        one.docker("commit", "maker", "own/made:1")
        one.docker("rm", "maker")
        one.docker("create", "--name=one", "own/made:1", "ls", "/root")
        yield one


@pytest.fixture
def remapping():
    """A dockerd whose containers have users of their own, on ids of the machine that nobody else has."""
    one = Engine("dockerd", suffix="u")
    one.own_network = True
    one.extra = ["--userns-remap", "daemon"]
    one.prefix = ["sh", "-c", IDS, "sh"]
    os.chmod(one.root, 0o711)  # its root is nobody here
    with one.running():
        yield one


def test_files_of_a_docker_that_remaps_users_get_their_owners_back(remapping: Engine, target: Engine):
    write = "echo x >/data/file; chown 7:8 /data/file; ln /data/file /data/more; ln -s file /data/link; echo y >/note"
    more = (
        "chown -h 5:6 /data/link; mkdir -m 3770 /data/directory; chown 1000:1000 /data/directory; chown 9:9 /note /bin"
    )
    remapping.docker("run", "--name=one", "-v", "data:/data", "busybox", "sh", "-c", f"{write}; {more}")
    remapping.docker("commit", "one", "own/made:1")
    remapping.docker("create", "--name=two", "-v", "data:/data", "own/made:1", "stat", "-c", "%n %a %u:%g %h", "/bin")
    owned = Path(Api(remapping.socket).must("GET", "/volumes/data")["Mountpoint"], "file").stat().st_uid
    assert owned == 231072 + 7
    imported(target, remapping, "--yes", "--changes")
    show = "stat -c '%n %a %u:%g %h' /data /data/* /note /bin"
    wanted = remapping.docker("run", "--rm", "--volumes-from=one", "own/made:1", "sh", "-c", show).out
    for image in (target.inspect("one")["Image"], "own/made:1"):
        found = target.ketch("run", "--rm", "--volumes-from=one", image, "sh", "-c", show).out
        assert found == wanted and "/data/file 644 7:8 2" in found
    place = os.path.dirname(remapping.inspect("one")["ResolvConfPath"])
    root = os.path.dirname(os.path.dirname(place))
    remapping.stop()
    target.remove_all()
    target.ketch("rmi", "-f", "own/made:1")
    target.ketch("volume", "rm", "data")
    imported(target, remapping, "--yes", place=root)
    assert target.ketch("run", "--rm", "--volumes-from=two", "own/made:1", "sh", "-c", show).out == wanted


def test_containerds_store_through_its_daemon_and_without(containerd_store: Engine, target: Engine):
    wanted = {"image busybox:latest": "skipped", "image own/made:1": "imported", "container one": "imported"}
    assert actions(target, containerd_store, "--yes") == wanted
    shown = target.ketch("start", "-a", "one").out
    assert shown.startswith("x\ny\n") and shown.count("\n") == 3
    likeness = likeness_of(target, "own/made:1")
    target.remove_all()
    target.ketch("rmi", "own/made:1")
    containerd_store.stop()
    assert imported(target, containerd_store, "--yes", place=containerd_store.data_root).out.count("imported ") == 2
    assert likeness_of(target, "own/made:1") == likeness
    assert target.ketch("start", "-a", "one").out == shown


def likeness_of(engine: Engine, image: str) -> dict:
    facts = Api(engine.socket).must("GET", f"/images/{image}/json")
    return {key: facts[key] for key in ("Created", "Config", "RootFS")}


@contextlib.contextmanager
def damaged(*paths: str):
    """These files emptied."""
    whole = {path: Path(path).read_bytes() for path in paths}
    try:
        for path in paths:
            os.truncate(path, 0)
        yield
    finally:
        for path, data in whole.items():
            Path(path).write_bytes(data)


def networks_of(engine: Engine) -> list[tuple]:
    """What networks were asked for."""
    found = [Api(engine.socket).must("GET", f"/networks/{name}") for name in ("backend", "settings", "settled")]
    return [(one["IPAM"]["Config"], one["ConfigOnly"], one["ConfigFrom"], one["Labels"]) for one in found]


def content_of(source: Engine, image_id: str) -> str:
    return f"{source.data_root}/image/overlay2/imagedb/content/sha256/{image_id.removeprefix('sha256:')}"


def assert_left(source: Engine, target: Engine, left: dict[str, str], place: str = "") -> None:
    """These parts are left behind, each with its reason, and all others are imported."""
    plan = imported(target, source, "--format=json", place=place, check=False)
    assert plan.code == 1
    unreadable = {row["Name"] for row in map(json.loads, plan.out.splitlines()) if row["Action"] == "unreadable"}
    assert unreadable == set(left)
    done = imported(target, source, "--yes", place=place, check=False)
    assert done.code == 1 and f"{len(left)} failed" in done.out
    for name, reason in left.items():
        assert reason in next(line for line in done.err.splitlines() if f" {name}: " in line)
    for name in NAMES:
        target.inspect(name)
    assert "skipped container writer: it needs image sha256:" in done.out


def test_a_damaged_image_stops_nothing_else(moved_from: Engine, target: Engine):
    image = Api(moved_from.socket).must("GET", "/images/own/made:1/json")["Id"]
    with damaged(content_of(moved_from, image)):
        assert_left(moved_from, target, {"own/made:1": "image"})


# The last ones of their dockerd, of which the first stops it.
def test_the_files_of_a_stopped_docker_say_what_its_daemon_says(moved_from: Engine, target: Engine):
    refused = imported(target, moved_from, place=moved_from.data_root, check=False)
    assert refused.code == 1 and "a daemon has it open" in refused.err
    planned = imported(target, moved_from).out
    facts = facts_of(moved_from)
    subnets = networks_of(moved_from)
    moved_from.stop()
    done = imported(target, moved_from, "--yes", place=moved_from.data_root)
    assert done.out.splitlines()[-1] == f"{planned.count('import ')} imported, 0 there before, 0 skipped, 0 failed"
    assert_imported(facts, target)
    assert networks_of(target) == subnets
    assert Api(target.socket).must("GET", "/volumes/data")["Labels"] == {"keep": "yes"}
    assert set(actions(target, moved_from, place=moved_from.data_root).values()) == {"there"}


def test_damaged_files_of_a_stopped_docker_stop_nothing_else(moved_from: Engine, target: Engine):
    contents = Path(content_of(moved_from, "")).iterdir()
    (made,) = [path for path in contents if "/root/x" in (text := path.read_text()) and "/shell" not in text]
    (former,) = [
        path
        for path in Path(moved_from.data_root, "containers").glob("*/config.v2.json")
        if '"/former"' in path.read_text()
    ]
    left = {"own/made:1": "its content is not what its name says", former.parent.name[:12]: "config.v2.json"}
    with damaged(str(made), str(former)):
        assert_left(moved_from, target, left, moved_from.data_root)
