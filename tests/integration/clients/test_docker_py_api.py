"""docker-py's own surface, low level and models: one case for each thing that its users rely on.

They share a daemon, and clean up what is not a container.
"""

from __future__ import annotations

import contextlib
import datetime
import io
import socket
import tarfile
import time

import docker
import docker.errors
import pytest
from docker.types import LogConfig, Mount, Ulimit

from tests.support.waiting import until

VERSIONS = ("1.24", "1.30", "1.35", "1.40", "1.41", "1.43", "1.44", "1.47", "1.51")


def tar(**files: bytes) -> bytes:
    """An archive of files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as t:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.uid, member.mode = len(data), 1000, 0o640
            t.addfile(member, io.BytesIO(data))
    return out.getvalue()


def created(api, *command: str, **options: object) -> dict:
    """Create a container of these host options; what inspect shows of it."""
    host = {name: options.pop(name) for name in list(options) if name not in _CONFIG}
    made = api.create_container(
        "busybox", list(command) or "true", host_config=api.create_host_config(**host), **options
    )
    return api.inspect_container(made["Id"])


def _name(value: object) -> str:
    """A short name for a row of the tables below."""
    return "-".join(value)[:40] if isinstance(value, dict) else ""


_CONFIG = {
    "name",
    "hostname",
    "domainname",
    "user",
    "ports",
    "environment",
    "volumes",
    "entrypoint",
    "labels",
    "stop_signal",
    "healthcheck",
    "stop_timeout",
    "working_dir",
    "tty",
    "stdin_open",
    "networking_config",
    "mac_address",
    "detach",
}


@pytest.mark.parametrize("version", VERSIONS)
def test_versions(engine, version):
    with contextlib.closing(docker.DockerClient(base_url=engine.host, version=version)) as old:
        assert old.ping()
        assert old.version()["Os"] == "linux"
        assert old.info()["OSType"] == "linux"
        box = old.containers.run("busybox", ["sh", "-c", "echo out; sleep 1000"], detach=True, stop_signal="KILL")
        until(lambda: box.logs() == b"out\n", "it has written")
        assert box.exec_run("echo in").output == b"in\n"
        assert [c.id for c in old.containers.list()] == [box.id]
        assert old.images.get("busybox").id == box.image.id
        box.stop()
        assert box.wait()["StatusCode"] == 137
        with pytest.raises(docker.errors.NotFound):
            old.containers.get("never")
        box.remove()


def test_auto_version(engine):
    with contextlib.closing(docker.APIClient(base_url=engine.host, version="auto")) as api:
        assert api.api_version == "1.51"
    with contextlib.closing(docker.APIClient(base_url=engine.host, version="1.99")) as api:
        with pytest.raises(docker.errors.APIError) as raised:
            api.info()
        assert raised.value.status_code == 400


def test_create_answers(api):
    made = api.create_container("busybox", "true")
    assert (sorted(made), made["Warnings"], len(made["Id"])) == (["Id", "Warnings"], [], 64)


HOST_CONFIGS = [
    ({"binds": {"/tmp": {"bind": "/x", "mode": "ro"}}}, {"Binds": ["/tmp:/x:ro"]}),
    ({"binds": ["/tmp:/x"]}, {"Binds": ["/tmp:/x"]}),
    ({"group_add": ["nogroup", 12]}, {"GroupAdd": ["nogroup", "12"]}),
    ({"security_opt": ["no-new-privileges"]}, {"SecurityOpt": ["no-new-privileges"]}),
    ({"dns": ["1.1.1.1"], "dns_opt": ["timeout:1"], "dns_search": ["a.b"]}, {"Dns": ["1.1.1.1"]}),
    ({"extra_hosts": {"a": "1.2.3.4"}}, {"ExtraHosts": ["a:1.2.3.4"]}),
    ({"read_only": True, "tmpfs": ["/run"]}, {"ReadonlyRootfs": True, "Tmpfs": {"/run": ""}}),
    ({"tmpfs": {"/a": "size=1m,mode=700"}}, {"Tmpfs": {"/a": "size=1m,mode=700"}}),
    ({"shm_size": "1M"}, {"ShmSize": 1 << 20}),
    ({"sysctls": {"net.ipv4.ip_forward": "0"}}, {"Sysctls": {"net.ipv4.ip_forward": "0"}}),
    ({"cpuset_cpus": "0", "cpu_shares": 512}, {"CpusetCpus": "0", "CpuShares": 512}),
    ({"cpu_quota": 20000, "cpu_period": 100000}, {"CpuQuota": 20000, "CpuPeriod": 100000}),
    ({"nano_cpus": 500_000_000}, {"NanoCpus": 500_000_000}),
    ({"mem_limit": "64m"}, {"Memory": 64 << 20, "MemorySwap": 128 << 20}),
    ({"mem_limit": "64m", "memswap_limit": -1}, {"Memory": 64 << 20, "MemorySwap": -1}),
    ({"mem_reservation": "32m"}, {"MemoryReservation": 32 << 20}),
    ({"oom_score_adj": 500}, {"OomScoreAdj": 500}),
    ({"pids_limit": 100}, {"PidsLimit": 100}),
    ({"pids_limit": 0}, {"PidsLimit": None}),
    ({"ulimits": [Ulimit(name="nofile", soft=10, hard=20)]}, {"Ulimits": [{"Name": "nofile", "Soft": 10, "Hard": 20}]}),
    ({"userns_mode": "host"}, {"UsernsMode": "host"}),
    ({"init": True}, {"Init": True}),
    ({"runtime": "runc"}, {"Runtime": "runc"}),
    ({"device_cgroup_rules": ["c 1:3 mr"]}, {"DeviceCgroupRules": ["c 1:3 mr"]}),
    (
        {"devices": ["/dev/null:/dev/xnull"]},
        {"Devices": [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/xnull", "CgroupPermissions": "rwm"}]},
    ),
    (
        {"restart_policy": {"Name": "on-failure", "MaximumRetryCount": 3}},
        {"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3}},
    ),
    (
        {},
        {
            "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
            "NetworkMode": "bridge",
            "LogConfig": {"Type": "json-file", "Config": {}},
            "Binds": None,
            "PidsLimit": None,
            "ShmSize": 64 << 20,
            "AutoRemove": False,
            "Links": None,
            "CapAdd": None,
            "ExtraHosts": None,
            "VolumesFrom": None,
            "GroupAdd": None,
        },
    ),
    (
        {"log_config": LogConfig(type="json-file", config={"max-size": "1m"})},
        {"LogConfig": {"Type": "json-file", "Config": {"max-size": "1m"}}},
    ),
    ({"log_config": LogConfig(type="none")}, {"LogConfig": {"Type": "none", "Config": {}}}),
    ({"auto_remove": True}, {"AutoRemove": True}),
    (
        {"ipc_mode": "private", "uts_mode": "host", "pid_mode": "host"},
        {"IpcMode": "private", "UTSMode": "host", "PidMode": "host"},
    ),
    ({"network_mode": "none"}, {"NetworkMode": "none"}),
    ({"network_mode": "default"}, {"NetworkMode": "bridge"}),
    (
        {"cap_add": ["NET_ADMIN", "CAP_SYS_TIME"], "cap_drop": ["mknod"]},
        {"CapAdd": ["NET_ADMIN", "CAP_SYS_TIME"], "CapDrop": ["mknod"]},
    ),
    (
        {"port_bindings": {80: 8080, "53/udp": ("127.0.0.1", 5353), 90: None, 91: [1, 2]}},
        {
            "PortBindings": {
                "80/tcp": [{"HostIp": "", "HostPort": "8080"}],
                "53/udp": [{"HostIp": "127.0.0.1", "HostPort": "5353"}],
                "90/tcp": [{"HostIp": "", "HostPort": ""}],
                "91/tcp": [{"HostIp": "", "HostPort": "1"}, {"HostIp": "", "HostPort": "2"}],
            }
        },
    ),
    ({"publish_all_ports": True}, {"PublishAllPorts": True}),
    (
        {"privileged": True},
        {"Privileged": True, "SecurityOpt": ["label=disable"], "MaskedPaths": None, "ReadonlyPaths": None},
    ),
    ({"cgroupns": "host"}, {"CgroupnsMode": "host"}),
    ({"cgroup_parent": "parent"}, {"CgroupParent": "parent"}),
    ({"isolation": "default"}, {"Isolation": "default"}),
    (
        {"mounts": [Mount("/a", "", type="tmpfs", tmpfs_size=1 << 20, tmpfs_mode=0o700)]},
        {"Mounts": [{"Type": "tmpfs", "Target": "/a", "TmpfsOptions": {"SizeBytes": 1 << 20, "Mode": 0o700}}]},
    ),
    (
        {"mounts": [Mount("/a", "/etc", type="bind", read_only=True, propagation="rprivate")]},
        {
            "Mounts": [
                {
                    "Type": "bind",
                    "Source": "/etc",
                    "Target": "/a",
                    "ReadOnly": True,
                    "BindOptions": {"Propagation": "rprivate"},
                }
            ]
        },
    ),
]


@pytest.mark.parametrize(("options", "shown"), HOST_CONFIGS, ids=_name)
def test_host_config(api, options, shown):
    found = created(api, **options)["HostConfig"]
    assert {name: found[name] for name in shown} == shown


CONFIGS = [
    ({"hostname": "h", "domainname": "a.b"}, {"Hostname": "h", "Domainname": "a.b"}),
    ({"user": "nobody"}, {"User": "nobody"}),
    ({"working_dir": "/a/b"}, {"WorkingDir": "/a/b"}),
    ({"labels": ["a", "b"]}, {"Labels": {"a": "", "b": ""}}),
    ({"labels": {"a": "1"}}, {"Labels": {"a": "1"}}),
    ({"ports": [80, (53, "udp")]}, {"ExposedPorts": {"80/tcp": {}, "53/udp": {}}}),
    ({"volumes": ["/a", "/b/"]}, {"Volumes": {"/a": {}, "/b/": {}}}),
    ({"stop_signal": "SIGRTMIN+3", "stop_timeout": 5}, {"StopSignal": "SIGRTMIN+3", "StopTimeout": 5}),
    ({"tty": True, "stdin_open": True}, {"Tty": True, "OpenStdin": True, "StdinOnce": True, "AttachStdin": True}),
    ({"detach": True}, {"AttachStdout": False, "AttachStderr": False, "AttachStdin": False}),
    ({"healthcheck": {"test": "true"}}, {"Healthcheck": {"Test": ["CMD-SHELL", "true"]}}),
    ({"healthcheck": {"test": ["NONE"]}}, {"Healthcheck": {"Test": ["NONE"]}}),
    ({"entrypoint": ["echo", "a"]}, {"Entrypoint": ["echo", "a"], "Cmd": ["true"]}),
    ({"entrypoint": "echo 'a b'"}, {"Entrypoint": ["echo", "a b"]}),
]


@pytest.mark.parametrize(("options", "shown"), CONFIGS, ids=_name)
def test_config(api, options, shown):
    found = created(api, **options)["Config"]
    assert {name: found[name] for name in shown} == shown


def test_environment(api):
    given = created(api, environment={"A": "1", "EMPTY": "", "NONE": None, "EQUAL": "x=y"})["Config"]["Env"]
    assert {"A=1", "EMPTY=", "NONE", "EQUAL=x=y"} <= set(given)


REFUSED = [
    ({"image": "never"}, "No such image: never:latest"),
    ({"image": "UPPER"}, "invalid reference format"),
    ({"name": "a b"}, "Invalid container name"),
    ({"stop_signal": "FOO"}, "invalid signal: FOO"),
    ({"working_dir": "rel"}, "absolute path"),
    ({"healthcheck": {"test": ["CMD", "true"], "interval": 1}}, "less than"),
    ({"security_opt": ["foo"]}, "foo"),
    ({"binds": ["/tmp:/a:foo"]}, "invalid mode: foo"),
    ({"binds": ["a/b:/c"]}, "a/b"),
    ({"binds": ["/tmp:/"]}, "destination can't be '/'"),
    ({"binds": ["/tmp:/a", "/etc:/a"]}, "Duplicate mount point: /a"),
    ({"mem_limit": "1m"}, "inimum memory limit allowed is 6MB"),
    ({"mem_limit": "64m", "memswap_limit": "32m"}, "inimum memoryswap limit should be larger than memory limit"),
    ({"memswap_limit": "32m"}, "ou should always set the Memory limit when using Memoryswap limit"),
    ({"cpuset_cpus": "a"}, "Invalid value a for cpuset cpus"),
    ({"cpuset_cpus": "4096"}, "Requested CPUs are not available"),
    ({"cpu_period": 10}, "CPU cfs period can not be less than 1ms"),
    ({"nano_cpus": 10**13}, "ange of CPUs is from 0.01 to"),
    ({"oom_score_adj": -2000}, "-2000"),
    ({"shm_size": -1}, "SHM size can not be less than 0"),
    ({"runtime": "nope"}, "nope"),
    ({"restart_policy": {"Name": "foo"}}, "unknown policy 'foo'"),
    ({"restart_policy": {"Name": "always", "MaximumRetryCount": 3}}, "maximum retry count can only be used with"),
    ({"restart_policy": {"Name": "on-failure", "MaximumRetryCount": -1}}, "maximum retry count"),
    ({"auto_remove": True, "restart_policy": {"Name": "always"}}, "can't create 'AutoRemove' container with"),
    ({"log_config": {"type": "nope"}}, "nope"),
    ({"log_config": {"type": "json-file", "config": {"foo": "bar"}}}, "unknown log opt 'foo' for json-file"),
    ({"ipc_mode": "foo"}, "invalid IPC mode: foo"),
    ({"pid_mode": "container:never"}, "No such container: never"),
    ({"cgroupns": "foo"}, "invalid cgroup namespace mode"),
    ({"cap_add": ["FOO"]}, "FOO"),
    ({"volumes_from": ["never"]}, "No such container: never"),
    ({"volume_driver": "nope", "binds": ["zz:/z"]}, 'plugin "nope" not found'),
    ({"mounts": [Mount("/a", "/never", type="bind")]}, "bind source path does not exist: /never"),
    ({"mounts": [Mount("a", "vv")]}, "mount path must be absolute"),
    ({"mounts": [{"Type": "foo", "Target": "/a"}]}, "unknown"),
    ({"port_bindings": {"80/tcp": ("127.0.0.1", 99999)}}, 'invalid port specification: "99999"'),
    ({"extra_hosts": ["foo"]}, "bad format for add-host"),
]


@pytest.mark.parametrize(("options", "text"), REFUSED, ids=_name)
def test_create_refuses(api, options, text):
    options = dict(options)
    image = options.pop("image", "busybox")
    config = {name: options.pop(name) for name in list(options) if name in _CONFIG}
    with pytest.raises(docker.errors.APIError) as raised:
        api.create_container(image, "true", host_config=api.create_host_config(**options), **config)
    assert text.lower() in str(raised.value.explanation).lower()
    assert api.containers(all=True) == []


@pytest.mark.parametrize(
    ("options", "text", "code"),
    [
        ({"command": "never"}, "never", 127),
        ({"command": "/etc/passwd"}, "permission denied", 126),
        ({"user": "never"}, "unable to find user never: no matching entries in passwd file", 128),
        ({"user": "0:never"}, "unable to find group never: no matching entries in group file", 128),
        ({"network_mode": "never"}, "network never not found", 128),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_start_fails(client, options, text, code):
    options = dict(options)
    box = client.containers.create("busybox", options.pop("command", "true"), **options)
    with pytest.raises(docker.errors.APIError, match=text):
        box.start()
    box.reload()
    state = box.attrs["State"]
    assert (state["Status"], state["ExitCode"], state["Running"]) == ("created", code, False)
    assert text in state["Error"]


def test_states_that_do_not_fit(client, box):
    ended = client.containers.run("busybox", "true", detach=True)
    ended.wait()
    fresh = client.containers.create("busybox", "true")
    for call, status, text in (
        (ended.kill, 409, "is not running"),
        (fresh.kill, 409, "is not running"),
        (ended.pause, 409, "is not running"),
        (box.unpause, None, "is not paused"),
        (lambda: box.rename(""), 400, "Neither old nor new names may be empty"),
        (lambda: box.rename("box"), 400, "Renaming a container with the same name as its current name"),
        (lambda: box.kill("FOO"), 400, "FOO"),
        (box.remove, 409, "cannot remove container"),
        (lambda: box.top(ps_args="foo"), None, ""),
        (lambda: ended.exec_run("true"), 409, "is not running"),
        (ended.top, 409, "is not running"),
        (lambda: client.api.resize(ended.id, 10, 10), 409, "is not running"),
        (lambda: client.api.wait(box.id, condition="foo"), 400, "invalid condition"),
    ):
        with pytest.raises(docker.errors.APIError) as raised:
            call()
        assert text in str(raised.value.explanation)
        assert status in (None, raised.value.status_code)
    assert (box.start(), ended.stop(), client.api.unpause) and box.kill("SIGWINCH") is None
    box.stop()
    box.stop()


def test_logs_since_and_until(client):
    script = "echo one; sleep 1.1; echo two >&2"
    box = client.containers.run("busybox", ["sh", "-c", script], detach=True)
    box.wait()
    stamps = [line.split()[0].decode() for line in box.logs(timestamps=True).splitlines()]
    assert [len(stamp) for stamp in stamps] == [30, 30]
    second = datetime.datetime.fromisoformat(stamps[1][:19])
    assert box.logs(since=second) == b"two\n"
    assert box.logs(until=second) == b"one\n"
    assert box.logs(since=int(time.time()) + 100) == b""
    assert box.logs(since=second.replace(tzinfo=datetime.UTC).timestamp() - 0.5) in (b"two\n", b"one\ntwo\n")
    assert (box.logs(tail=1), box.logs(tail=0), box.logs(tail="all")) == (b"two\n", b"", b"one\ntwo\n")
    assert (box.logs(stdout=False), box.logs(stderr=False)) == (b"two\n", b"one\n")


def test_logs_since_the_start(client):
    """Nothing that the program says is older than its start, however soon it says it."""
    box = client.containers.create("busybox", ["echo", "at once"])
    for number in range(12):
        box.start()
        box.wait()
        box.reload()
        start = datetime.datetime.fromisoformat(box.attrs["State"]["StartedAt"][:26].rstrip("Z") + "+00:00")
        stamp = box.logs(timestamps=True, tail=1).split()[0].decode()
        assert datetime.datetime.fromisoformat(stamp[:26].rstrip("Z") + "+00:00") >= start, number


def test_logs_are_lines(client):
    box = client.containers.run("busybox", ["sh", "-c", "echo a; echo b; printf c"], detach=True)
    box.wait()
    assert list(box.logs(stream=True)) == [b"a\n", b"b\n", b"c"]
    assert list(box.logs(stream=True, follow=True)) == [b"a\n", b"b\n", b"c"]
    assert list(box.logs(stream=True, follow=False, tail=2)) == [b"b\n", b"c"]


def test_logs_of_a_terminal(client):
    box = client.containers.run("busybox", ["sh", "-c", "echo a; echo b >&2"], detach=True, tty=True)
    box.wait()
    assert box.logs() == b"a\r\nb\r\n"
    assert box.logs(stdout=False) == b""


def test_logs_of_a_driver_that_cannot(client):
    box = client.containers.run("busybox", "echo a", detach=True, log_config=LogConfig(type="none"))
    box.wait()
    with pytest.raises(docker.errors.APIError, match="configured logging driver does not support reading"):
        box.logs()
    assert client.containers.run("busybox", "echo a", log_config=LogConfig(type="none")) is None


def test_run(client):
    run = client.containers.run
    assert run("busybox", "echo a", remove=True) == b"a\n"
    assert run("busybox", ["sh", "-c", "echo a; echo b >&2"], remove=True) == b"a\n"
    assert run("busybox", ["sh", "-c", "echo a; echo b >&2"], remove=True, stdout=False, stderr=True) == b"b\n"
    assert sorted(run("busybox", ["sh", "-c", "echo a; echo b >&2"], stderr=True).split()) == [b"a", b"b"]
    assert list(run("busybox", ["sh", "-c", "echo a; echo b"], stream=True)) == [b"a\n", b"b\n"]
    assert run("busybox", "-c 'echo x'", entrypoint="sh", remove=True) == b"x\n"
    assert run("busybox", "id -u", user="nobody", remove=True) == b"65534\n"
    assert run("busybox", "echo x", tty=True, remove=True) == b"x\r\n"
    assert run("busybox", "pwd", working_dir="/new/dir", remove=True) == b"/new/dir\n"
    assert run("busybox", "hostname", hostname="me", network_disabled=True, remove=True) == b"me\n"
    with pytest.raises(docker.errors.APIError, match="connection refused"):
        run("127.0.0.1:1/never", "true")
    with pytest.raises(docker.errors.ContainerError) as raised:
        run("busybox", ["sh", "-c", "echo a >&2; exit 7"], remove=True)
    assert (raised.value.exit_status, raised.value.stderr) == (7, b"a\n")


def test_auto_remove(client):
    box = client.containers.run("busybox", "true", detach=True, auto_remove=True)
    with contextlib.suppress(docker.errors.NotFound):
        assert box.wait(condition="removed")["StatusCode"] == 0
    until(lambda: client.containers.list(all=True) == [], "it is removed")


def test_wait(client, box):
    assert client.api.wait(client.containers.run("busybox", ["sh", "-c", "exit 5"], detach=True).id) == {
        "StatusCode": 5
    }
    with pytest.raises(Exception, match="[Tt]imed out"):
        client.api.wait(box.id, timeout=0.3)


def test_lists(client, box):
    ended = client.containers.run("busybox", ["sh", "-c", "exit 3"], detach=True, name="ended", labels={"a": "b"})
    ended.wait()
    fresh = client.containers.create("busybox", "true", name="fresh", ports={"80/tcp": 8088}, volumes=["vol:/v"])
    for filters, wanted in (
        ({}, "box"),
        ({"status": "exited"}, "ended"),
        ({"status": ["created", "running"]}, "box fresh"),
        ({"exited": 3}, "ended"),
        ({"label": "a"}, "ended"),
        ({"label": ["a=b"]}, "ended"),
        ({"label": ["a=c"]}, ""),
        ({"name": "fre"}, "fresh"),
        ({"name": "^/box$"}, "box"),
        ({"id": box.id[:12]}, "box"),
        ({"ancestor": "busybox"}, "box ended fresh"),
        ({"ancestor": "never"}, ""),
        ({"before": "ended"}, "box"),
        ({"since": "ended"}, "fresh"),
        ({"volume": "vol"}, "fresh"),
        ({"volume": "/v"}, "fresh"),
        ({"network": "bridge"}, "box ended fresh"),
        ({"publish": "80"}, ""),
        ({"expose": "80/tcp"}, ""),
        ({"health": "none"}, "box ended fresh"),
        ({"is-task": False}, "box ended fresh"),
    ):
        every = bool(filters) and filters != {"status": "exited"}
        found = client.containers.list(all=every, filters=filters)
        assert sorted(c.name for c in found) == wanted.split(), filters
    assert [c.name for c in client.containers.list(limit=1)] == ["fresh"]
    assert [c["Names"] for c in client.api.containers(latest=True)] == [["/fresh"]]
    assert client.api.containers(size=True)[0]["SizeRootFs"] > 0
    assert client.api.containers(quiet=True) == [{"Id": box.id}]
    assert [c.id for c in client.containers.list(sparse=True)] == [box.id]
    for filters in ({"status": "foo"}, {"foo": "bar"}, {"exited": "x"}, {"health": "foo"}):
        with pytest.raises(docker.errors.APIError) as raised:
            client.containers.list(filters=filters)
        assert raised.value.status_code == 400
    fresh.remove(v=True)
    client.volumes.get("vol").remove()


def test_ports(client):
    ports = {"80/tcp": None, "81/tcp": ("127.0.0.1", None), "82/udp": ("127.0.0.1", 18082), "83/tcp": [18083, 18084]}
    box = client.containers.run("busybox", ["sleep", "1000"], detach=True, ports=ports, stop_signal="KILL")
    box.reload()
    assert box.ports["82/udp"] == [{"HostIp": "127.0.0.1", "HostPort": "18082"}]
    assert {p["HostPort"] for p in box.ports["83/tcp"]} == {"18083", "18084"}
    assert client.api.port(box.id, 82) == box.ports["82/udp"]
    assert client.api.port(box.id, "81/tcp")[0]["HostIp"] == "127.0.0.1"
    assert client.api.port(box.id, 99) is None
    with pytest.raises(docker.errors.APIError, match="port is already allocated"):
        client.containers.run("busybox", "true", ports={"1/udp": ("127.0.0.1", 18082)})


def test_archives(box):
    assert box.put_archive("/tmp", tar(one=b"text"))
    assert box.exec_run("stat -c '%u %a' /tmp/one").output == b"1000 640\n"
    stream, stat = box.get_archive("/tmp/one")
    assert (stat["name"], stat["size"], stat["linkTarget"]) == ("one", 4, "")
    with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as t:
        assert t.extractfile("one").read() == b"text"
    box.exec_run("sh -c 'mkdir -p /d/e; echo x > /d/e/f; ln -s e/f /d/link'")
    stream, stat = box.get_archive("/d", encode_stream=True)
    with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as t:
        assert t.getnames() == ["d/", "d/e/", "d/e/f", "d/link"] or t.getnames() == ["d", "d/e", "d/e/f", "d/link"]
    assert box.get_archive("/d/link")[1]["linkTarget"] in ("e/f", "/d/e/f")
    for call, kind in (
        (lambda: box.get_archive("/never"), docker.errors.NotFound),
        (lambda: box.put_archive("/never", tar(a=b"")), docker.errors.NotFound),
        (lambda: box.put_archive("/tmp/one", tar(a=b"")), docker.errors.APIError),
        (lambda: box.put_archive("/tmp", b"junk"), docker.errors.APIError),
        (lambda: box.get_archive(""), (docker.errors.APIError, docker.errors.NullResource)),
    ):
        with pytest.raises(kind):
            call()


def test_diff_and_export(client, box):
    box.exec_run("sh -c 'touch /new; rm /etc/passwd; mkdir /dir'")
    changes = {(c["Kind"], c["Path"]) for c in box.diff()}
    assert {(1, "/new"), (2, "/etc/passwd"), (0, "/etc"), (1, "/dir")} <= changes
    with tarfile.open(fileobj=io.BytesIO(b"".join(box.export()))) as t:
        assert {"new", "dir"} <= {name.rstrip("/") for name in t.getnames()}
    untouched = client.containers.create("busybox", "true")
    assert untouched.diff() in (None, [])


def test_attach(client):
    box = client.containers.create("busybox", ["sh", "-c", "echo a; echo b >&2; cat"], stdin_open=True)
    stream = box.attach(stream=True, demux=True, logs=True)
    wire = box.attach_socket(params={"stdin": 1, "stream": 1})
    box.start()
    wire._sock.sendall(b"typed\n")
    wire._sock.shutdown(socket.SHUT_WR)
    out, err = (b"".join(filter(None, half)) for half in zip(*stream, strict=True))
    assert (out, err) == (b"a\ntyped\n", b"b\n")
    wire.close()
    assert box.wait()["StatusCode"] == 0


def test_commit(client, box):
    box.exec_run("touch /made")
    image = box.commit(
        "made",
        "1",
        message="why",
        author="me",
        changes=["CMD ls /made", "ENV A=b", "EXPOSE 80"],
        conf={"Labels": {"a": "b"}},
    )
    assert image.tags == ["made:1"]
    config = image.attrs["Config"]
    assert (config["Cmd"], image.attrs["Comment"], image.attrs["Author"]) == (
        ["/bin/sh", "-c", "ls /made"],
        "why",
        "me",
    )
    assert ("A=b" in config["Env"], "80/tcp" in config["ExposedPorts"]) == (True, True)
    assert client.containers.run("made:1", remove=True) == b"/made\n"
    assert image.history()[0]["Comment"] == "why"
    client.images.remove("made:1")
    for arguments, text in (
        ({"repository": "Foo"}, "must be lowercase"),
        ({"repository": "x", "tag": "y z"}, "invalid"),
        ({"repository": "x", "changes": "FOO bar"}, "FOO"),
    ):
        with pytest.raises(docker.errors.APIError, match=text):
            box.commit(**arguments)
