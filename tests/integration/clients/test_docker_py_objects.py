"""docker-py's images, networks, volumes, execs, events and system: one case for each thing that its users rely on."""

from __future__ import annotations

import contextlib
import io
import json
import socket
import tarfile
import time

import docker.errors
import pytest
from docker.types import IPAMConfig, IPAMPool

from tests.support.engines import busybox_tar
from tests.support.registries import made_images
from tests.support.waiting import patient, until

# -- Execs --------------------------------------------------------------------------------------------------------


def test_exec_inspect(api, box):
    made = api.exec_create(box.id, ["sh", "-c", "exit 3"], user="nobody", privileged=True)["Id"]
    found = api.exec_inspect(made)
    assert (found["Running"], found["ExitCode"], found["Pid"], found["ContainerID"]) == (False, None, 0, box.id)
    assert found["ProcessConfig"] == {
        "arguments": ["-c", "exit 3"],
        "entrypoint": "sh",
        "privileged": True,
        "tty": False,
        "user": "nobody",
    }
    api.exec_start(made)
    until(lambda: not api.exec_inspect(made)["Running"], "it has ended")
    assert api.exec_inspect(made)["ExitCode"] == 3


@pytest.mark.parametrize(
    ("options", "output"),
    [
        ({"cmd": "echo a b"}, b"a b\n"),
        ({"cmd": ["echo", "a  b"]}, b"a  b\n"),
        ({"cmd": "env", "environment": {"A": "1", "B": ""}}, b"A=1\nB=\n"),
        ({"cmd": "pwd", "workdir": "/etc"}, b"/etc\n"),
        ({"cmd": "id -u", "user": "nobody"}, b"65534\n"),
        ({"cmd": "id -g", "user": "1:2"}, b"2\n"),
        ({"cmd": "tty", "tty": True}, b"/dev/pts/"),
        ({"cmd": "tty"}, b"not a tty\n"),
        ({"cmd": ["sh", "-c", "echo out; echo err >&2"], "stderr": False}, b"out\n"),
        ({"cmd": ["sh", "-c", "echo out; echo err >&2"], "stdout": False}, b"err\n"),
        ({"cmd": "grep CapEff /proc/self/status", "privileged": True}, b"ffffff"),
        ({"cmd": "true", "detach": True}, b""),
    ],
    ids=lambda value: "-".join(map(str, value.values()))[:40] if isinstance(value, dict) else "",
)
def test_exec_run(box, options, output):
    found = box.exec_run(**options).output
    assert output in (found if isinstance(found, bytes) else found.encode())


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        ({"cmd": "never"}, 127, b'"never": executable file not found in $PATH'),
        ({"cmd": "/etc/passwd"}, 126, b"permission denied"),
        ({"cmd": "/etc"}, 126, b"is a directory"),
        ({"cmd": "sh -c 'exit 9'"}, 9, b""),
        ({"cmd": "sh -c 'kill -9 $$'"}, 137, b""),
        ({"cmd": "cat /never"}, 1, b"No such file or directory"),
    ],
    ids=lambda value: value["cmd"] if isinstance(value, dict) else "",
)
def test_exec_fails(box, options, code, text):
    found = box.exec_run(**options)
    assert found.exit_code == code
    assert text in found.output


def test_exec_streams(box):
    script = ["sh", "-c", "echo a; sleep 0.1; echo b >&2; sleep 0.1; printf c"]
    assert list(box.exec_run(script, stream=True).output) == [b"a\n", b"b\n", b"c"]
    assert list(box.exec_run(script, stream=True, demux=True).output) == [(b"a\n", None), (None, b"b\n"), (b"c", None)]
    assert box.exec_run(script, demux=True).output == (b"a\nc", b"b\n")
    wire = box.exec_run("cat", stdin=True, socket=True, tty=True).output
    wire._sock.sendall(b"typed\n\x04")
    seen = b""
    while chunk := wire._sock.recv(4096):
        seen += chunk
    assert seen == b"typed\r\ntyped\r\n"
    wire.close()


def test_exec_that_is_not_there(client, api, box):
    for call in (
        lambda: api.exec_inspect("never"),
        lambda: api.exec_start("never"),
        lambda: api.exec_resize("never", 1, 1),
        lambda: api.exec_create("never", "true"),
    ):
        with pytest.raises(docker.errors.NotFound):
            call()


def test_exec_events_come_in_order(client, box):
    since = int(time.time())
    for _ in range(5):
        box.exec_run("true")
    box.exec_run("never")
    found = client.events(decode=True, since=since - 1, until=int(time.time()) + 1, filters={"container": box.id})
    seen = [e["Action"].partition(":")[0] for e in found if e["Action"].startswith("exec_")]
    assert seen[:15] == ["exec_create", "exec_start", "exec_die"] * 5
    assert seen[15:17] == ["exec_create", "exec_start"]


# -- Images -------------------------------------------------------------------------------------------------------


def test_image_lists(client, engine):
    made_images.sweep(engine.client)
    image = client.images.get("busybox")
    image.tag("group/one", "1")
    image.tag("group/two", "2")
    assert len(client.images.list()) == 1
    assert set(client.images.list()[0].tags) == {"busybox:latest", "group/one:1", "group/two:2"}
    for options, found in (
        ({"name": "busybox"}, 1),
        ({"name": "group/one"}, 1),
        ({"name": "never"}, 0),
        ({"filters": {"reference": "group/*"}}, 1),
        ({"filters": {"reference": "*:2"}}, 0),
        ({"filters": {"dangling": True}}, 0),
        ({"filters": {"label": "never"}}, 0),
        ({"filters": {"before": "busybox"}}, 0),
    ):
        assert len(client.images.list(**options)) == found, options
    assert client.api.images(quiet=True) == [image.id]
    assert image.short_id == image.id[:19]
    assert client.images.get(image.id[:20]).id == image.id
    with pytest.raises(docker.errors.APIError):
        client.images.list(filters={"foo": "bar"})


def test_image_attributes(client):
    image = client.images.get("busybox")
    found = image.attrs
    assert (found["Os"], found["RepoTags"], found["RootFS"]["Type"]) == ("linux", ["busybox:latest"], "layers")
    assert found["GraphDriver"]["Name"] and found["Size"] > 100_000
    assert image.history()[0]["Id"] == image.id
    assert image.labels == {}


@pytest.mark.parametrize(
    ("repository", "tag", "text"),
    [
        ("Upper", None, "must be lowercase"),
        ("a b", None, "invalid reference format"),
        ("x", "a b", "invalid tag format"),
    ],
)
def test_tags_that_cannot_be(client, repository, tag, text):
    with pytest.raises(docker.errors.APIError) as raised:
        client.images.get("busybox").tag(repository, tag)
    assert raised.value.status_code == 400
    assert text in raised.value.explanation


def test_save_and_load(client):
    image = client.images.get("busybox")
    image.tag("saved", "1")
    image.reload()
    named = b"".join(image.save(named="saved:1"))
    plain = b"".join(image.save())
    with tarfile.open(fileobj=io.BytesIO(named)) as t:
        manifest = json.load(t.extractfile("manifest.json"))
    assert manifest[0]["RepoTags"] == ["saved:1"]
    with tarfile.open(fileobj=io.BytesIO(plain)) as t:
        assert json.load(t.extractfile("manifest.json"))[0]["RepoTags"] in (None, [])
    client.images.remove("saved:1")
    assert client.images.load(named)[0].tags == ["busybox:latest", "saved:1"]
    assert client.images.load(plain)[0].id == image.id
    with pytest.raises(docker.errors.InvalidArgument, match="is not a valid tag"):
        image.save(named="never:1")
    lines = list(client.api.load_image(named))
    assert any("Loaded image: saved:1" in line.get("stream", "") for line in lines)


def test_import(client, tmp_path):
    api = client.api
    answer = json.loads(
        api.import_image_from_data(busybox_tar(), "made", "1", changes=["CMD echo made"]).splitlines()[-1]
    )
    image = client.images.get("made:1")
    assert answer["status"] == image.id
    assert image.attrs["Config"]["Cmd"] == ["/bin/sh", "-c", "echo made"]
    assert client.containers.run("made:1", remove=True) == b"made\n"
    (tmp_path / "it.tar").write_bytes(busybox_tar())
    api.import_image(src=str(tmp_path / "it.tar"), repository="made", tag="2")
    assert client.images.get("made:2").attrs["Config"]["Cmd"] is None
    with pytest.raises(docker.errors.APIError):
        api.import_image_from_data(b"junk", "made", "3")


def test_removals(client):
    image = client.images.get("busybox")
    image.tag("other", "1")
    assert client.api.remove_image("other:1") == [{"Untagged": "other:1"}]
    box = client.containers.run("busybox", ["sleep", "1000"], detach=True, name="box")
    made = box.commit("made", "1")
    user = client.containers.create("made:1", "true")
    with pytest.raises(docker.errors.APIError) as raised:
        client.images.remove(made.id)
    assert raised.value.status_code == 409
    with pytest.raises(docker.errors.APIError, match="is using its referenced image"):
        client.images.remove("made:1")
    user.remove()
    rows = client.api.remove_image("made:1")
    assert rows[0] == {"Untagged": "made:1"}
    assert {"Deleted": made.id} in rows
    with pytest.raises(docker.errors.ImageNotFound):
        client.images.remove("never:1")


def test_prune_of_images(client, box):
    client.images.prune()
    box.exec_run("touch /x")
    image = box.commit("made", "1", conf={"Labels": {"a": "b"}})
    box.exec_run("touch /y")
    box.commit("made", "1")
    assert [i.id for i in client.images.list(filters={"dangling": True})] == [image.id]
    assert client.images.prune(filters={"label": ["never"]})["ImagesDeleted"] is None
    deleted = client.images.prune(filters={"dangling": True})
    assert {"Deleted": image.id} in deleted["ImagesDeleted"]
    assert client.images.prune()["SpaceReclaimed"] == 0


def test_registries_that_are_not_there(client):
    for call in (
        lambda: client.images.pull("127.0.0.1:1/never:1"),
        lambda: client.images.get_registry_data("127.0.0.1:1/never:1"),
        lambda: client.login("me", "secret", registry="127.0.0.1:1"),
    ):
        with pytest.raises(docker.errors.APIError) as raised:
            call()
        assert raised.value.status_code in (404, 500, 400)
    client.images.get("busybox").tag("127.0.0.1:1/never", "1")
    rows = list(client.images.push("127.0.0.1:1/never:1", stream=True, decode=True))
    assert "connection refused" in rows[-1]["error"]


# -- Networks -----------------------------------------------------------------------------------------------------


def test_network(client, box):
    pool = IPAMPool(
        subnet="10.73.0.0/24", gateway="10.73.0.1", iprange="10.73.0.0/25", aux_addresses={"x": "10.73.0.9"}
    )
    network = client.networks.create(
        "lan",
        driver="bridge",
        ipam=IPAMConfig(pool_configs=[pool]),
        labels={"a": "b"},
        internal=True,
        attachable=True,
        options={"com.docker.network.bridge.enable_icc": "true"},
    )
    found = network.attrs if network.reload() is None else {}
    assert (found["Internal"], found["Attachable"], found["Labels"], found["Scope"]) == (
        True,
        True,
        {"a": "b"},
        "local",
    )
    assert found["IPAM"]["Config"] == [
        {
            "Subnet": "10.73.0.0/24",
            "Gateway": "10.73.0.1",
            "IPRange": "10.73.0.0/25",
            "AuxiliaryAddresses": {"x": "10.73.0.9"},
        }
    ]
    network.connect(box, ipv4_address="10.73.0.20", aliases=["site"])
    box.reload()
    end = box.attrs["NetworkSettings"]["Networks"]["lan"]
    assert (end["IPAddress"], end["Gateway"]) == ("10.73.0.20", "")
    assert "site" in end["Aliases"] and {"site", "box"} <= set(end["DNSNames"])
    network.reload()
    assert network.containers == [box]
    assert network.attrs["Containers"][box.id]["IPv4Address"] == "10.73.0.20/24"
    with pytest.raises(docker.errors.APIError, match="has active endpoints"):
        network.remove()
    with pytest.raises(docker.errors.APIError, match="already exists in network"):
        network.connect(box)
    network.disconnect(box)
    with pytest.raises(docker.errors.APIError, match="is not connected to"):
        network.disconnect(box)
    network.remove()
    with pytest.raises(docker.errors.NotFound):
        network.reload()


def test_network_lists(client):
    made = [client.networks.create(name, labels={"group": name[0]}) for name in ("aa", "ab", "ba")]
    for options, names in (
        ({"names": ["aa"]}, "aa"),
        ({"names": ["a"]}, "aa ab ba bridge"),
        ({"ids": [made[2].id]}, "ba"),
        ({"filters": {"label": "group=a"}}, "aa ab"),
        ({"filters": {"type": "builtin"}}, "bridge host none"),
        ({"filters": {"type": "custom"}}, "aa ab ba"),
        ({"filters": {"driver": "host"}}, "host"),
        ({"filters": {"scope": "swarm"}}, ""),
        ({"filters": {"dangling": True}}, "aa ab ba"),
        ({"names": ["aa"], "greedy": True}, "aa"),
    ):
        found = sorted(n.name for n in client.networks.list(**options))
        if options == {"names": ["a"]}:
            found = [n for n in found if n in names.split()]
            names = " ".join(n for n in names.split() if n in found)
        assert found == names.split(), options
    assert sorted(client.networks.prune(filters={"label": "group=b"})["NetworksDeleted"]) == ["ba"]
    assert sorted(client.networks.prune()["NetworksDeleted"]) == ["aa", "ab"]


@pytest.mark.parametrize(
    ("options", "status", "text"),
    [
        ({"name": "host"}, (403, 409), "host"),
        ({"name": ""}, (400, 500), ""),
        ({"name": "xx", "driver": "never"}, (400, 404), "never"),
        ({"name": "xx", "ipam": IPAMConfig(pool_configs=[IPAMPool(subnet="10.74.0.0/33")])}, (400,), "10.74.0.0/33"),
        (
            {"name": "xx", "ipam": IPAMConfig(pool_configs=[IPAMPool(subnet="10.74.0.0/24", gateway="10.75.0.1")])},
            (400,),
            "",
        ),
        ({"name": "xx", "ipam": IPAMConfig(driver="never")}, (400, 404, 500), "never"),
    ],
    ids=str,
)
def test_networks_that_cannot_be(client, options, status, text):
    with pytest.raises(docker.errors.APIError) as raised:
        client.networks.create(**options)
    assert raised.value.status_code in status
    assert text in raised.value.explanation


def test_networks_that_overlap_or_are_there(client):
    client.networks.create("one", ipam=IPAMConfig(pool_configs=[IPAMPool(subnet="10.76.0.0/24")]))
    with pytest.raises(docker.errors.APIError, match="Pool overlaps with other one on this address space"):
        client.networks.create("two", ipam=IPAMConfig(pool_configs=[IPAMPool(subnet="10.76.0.0/25")]))
    with pytest.raises(docker.errors.APIError, match="network with name one already exists"):
        client.networks.create("one")
    for name in ("bridge", "host", "none"):
        with pytest.raises(docker.errors.APIError, match="is a pre-defined network and cannot be removed"):
            client.networks.get(name).remove()


def test_addresses(client):
    network = client.networks.create(
        "six",
        enable_ipv6=True,
        ipam=IPAMConfig(pool_configs=[IPAMPool(subnet="fd76::/64"), IPAMPool(subnet="10.77.0.0/24")]),
    )
    box = client.containers.create("busybox", ["sleep", "1000"])
    network.connect(box, ipv4_address="10.77.0.9", ipv6_address="fd76::9")
    box.start()
    box.reload()
    end = box.attrs["NetworkSettings"]["Networks"]["six"]
    assert (end["IPAddress"], end["GlobalIPv6Address"], end["GlobalIPv6PrefixLen"]) == ("10.77.0.9", "fd76::9", 64)
    other = client.containers.create("busybox", "true", network="six")
    with pytest.raises(docker.errors.APIError, match="no configured subnet"):
        client.networks.create("small", ipam=IPAMConfig(pool_configs=[IPAMPool(subnet="10.78.0.0/24")])).connect(
            box, ipv4_address="10.79.0.1"
        )
    other.start()


# -- Volumes ------------------------------------------------------------------------------------------------------


def test_volumes(client):
    volume = client.volumes.create("pages", driver="local", labels={"a": "b"})
    assert (volume.attrs["Driver"], volume.attrs["Scope"], volume.attrs["Labels"]) == ("local", "local", {"a": "b"})
    assert client.volumes.create("pages").attrs["CreatedAt"] == volume.attrs["CreatedAt"]
    assert len(client.volumes.create().name) == 64
    box = client.containers.run("busybox", "touch /p/x", volumes=["pages:/p"], detach=True)
    box.wait()
    for filters, names in (
        ({"name": "pag"}, ["pages"]),
        ({"label": "a"}, ["pages"]),
        ({"label": "a=c"}, []),
        ({"driver": "local", "name": "pages"}, ["pages"]),
        ({"dangling": False}, ["pages"]),
    ):
        assert [v.name for v in client.volumes.list(filters=filters)] == names, filters
    with pytest.raises(docker.errors.APIError, match="volume is in use"):
        volume.remove()
    box.remove()
    assert len(client.volumes.prune()["VolumesDeleted"]) == 1
    assert client.volumes.prune(filters={"all": True})["VolumesDeleted"] == ["pages"]
    with pytest.raises(docker.errors.NotFound, match="no such volume"):
        volume.remove()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"name": "x"}, "too short"),
        ({"name": "a b"}, "includes invalid characters for a local volume name"),
        ({"name": "ok", "driver": "never"}, "never"),
        ({"name": "ok", "driver_opts": {"foo": "bar"}}, "foo"),
        ({"name": "ok", "driver_opts": {"type": "tmpfs"}}, 'missing required option: "device"'),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_volumes_that_cannot_be(client, options, text):
    with pytest.raises(docker.errors.APIError) as raised:
        client.volumes.create(**options)
    assert text in raised.value.explanation


# -- Events, system -----------------------------------------------------------------------------------------------


def test_events(client):
    since = int(time.time()) - 1
    network = client.networks.create("lan-of-it")
    volume = client.volumes.create("heralds")
    box = client.containers.run(
        "busybox", "true", name="herald", network="lan-of-it", volumes=["heralds:/p"], detach=True
    )
    box.wait()
    box.rename("other")
    box.remove()
    volume.remove()
    network.remove()

    def seen(**filters: object) -> list[str]:
        return [
            e["Action"] for e in client.events(decode=True, since=since, until=int(time.time()) + 1, filters=filters)
        ]

    assert seen(container=box.id) == ["create", "start", "die", "rename", "destroy"]
    assert seen(volume="heralds") == ["create", "mount", "unmount", "destroy"]
    assert seen(network="lan-of-it") == ["create", "connect", "disconnect", "destroy"]
    assert set(seen(type="container", event="die", container=box.id)) == {"die"}
    assert seen(container="never") == []
    (ended,) = client.events(
        decode=True, since=since, until=int(time.time()) + 1, filters={"event": "die", "container": box.id}
    )
    assert (ended["Type"], ended["scope"], ended["status"], ended["id"]) == ("container", "local", "die", box.id)
    assert ended["Actor"]["Attributes"]["exitCode"] == "0"
    stream = client.events()
    stream.close()


def test_system(client, box):
    info = client.info()
    assert (info["ContainersRunning"], info["Containers"], info["Driver"] != "") == (1, 1, True)
    assert info["Swarm"]["LocalNodeState"] == "inactive"
    usage = client.df()
    assert {c["Id"] for c in usage["Containers"]} == {box.id}
    assert {"Images", "Volumes", "LayersSize"} <= set(usage)
    assert client.version()["ApiVersion"] == "1.51"
    assert client.plugins.list() == []
    stats = box.stats(stream=False)
    assert {"cpu_stats", "memory_stats", "pids_stats", "networks", "blkio_stats", "read", "preread"} <= set(stats)
    assert client.api.stats(box.id, stream=False, one_shot=True)["precpu_stats"]["cpu_usage"]["total_usage"] == 0


def test_no_swarm(client):
    for call in (
        client.services.list,
        client.nodes.list,
        client.secrets.list,
        client.configs.list,
        lambda: client.services.create("busybox"),
        lambda: client.swarm.leave(),
        lambda: client.swarm.reload(),
    ):
        with pytest.raises(docker.errors.APIError) as raised:
            call()
        assert raised.value.status_code == 503


def test_updates(client, box):
    assert box.update(mem_limit="64m", memswap_limit="64m", cpu_shares=512) is not None
    box.reload()
    found = box.attrs["HostConfig"]
    assert (found["Memory"], found["CpuShares"]) == (64 << 20, 512)
    box.update(restart_policy={"Name": "always"})
    box.reload()
    assert box.attrs["HostConfig"]["RestartPolicy"] == {"Name": "always", "MaximumRetryCount": 0}
    for options, text in (
        ({"mem_limit": "1m"}, "inimum memory limit"),
        ({"restart_policy": {"Name": "foo"}}, "unknown policy 'foo'"),
        ({"cpuset_cpus": "99"}, "equested CPUs are not available"),
    ):
        with pytest.raises(docker.errors.APIError) as raised:
            box.update(**options)
        assert text in raised.value.explanation


def test_websocket_free_attach(client):
    box = client.containers.create("busybox", ["sh", "-c", "read x; echo got $x"], stdin_open=True, tty=True)
    wire = box.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
    box.start()
    wire._sock.sendall(b"it\n")
    seen = b""
    wire._sock.settimeout(patient(20))
    with contextlib.suppress(socket.timeout):
        while b"got it" not in seen:
            seen += wire._sock.recv(4096)
    wire.close()
    assert b"got it\r\n" in seen
