"""Merging of the user's and the image's configuration, and validation."""

from __future__ import annotations

import os

import pytest

from ketch.engine.containers import validate
from ketch.engine.logs import options as log_options
from ketch.engine.model import merge
from ketch.engine.model.records import Container, ContainerConfig, HostConfig, LogConfig, PortBinding, RestartPolicy
from ketch.engine.spec import bundle
from ketch.errors import InvalidArgument
from ketch.oci.config import RunConfig

IMAGE = RunConfig(
    env=["PATH=/bin", "A=image"],
    cmd=["serve"],
    entrypoint=["/entry"],
    user="app",
    working_dir="/srv",
    exposed_ports={"80/tcp": {}},
    volumes={"/data": {}},
    labels={"a": "1", "b": "2"},
    stop_signal="SIGINT",
)


@pytest.mark.parametrize(
    ("asked", "command"),
    [
        ({}, ("/entry", ["serve"])),
        ({"cmd": ["other", "x"]}, ("/entry", ["other", "x"])),
        ({"cmd": "other"}, ("/entry", ["other"])),
        ({"entrypoint": ["/mine"]}, ("/mine", [])),
        ({"entrypoint": "/mine", "cmd": ["x"]}, ("/mine", ["x"])),
        ({"entrypoint": [""], "cmd": ["x"]}, ("x", [])),
    ],
)
def test_entrypoint_and_command(asked, command):
    assert merge.command_of(merge.merge(ContainerConfig(**asked), IMAGE)) == command


def test_no_command_at_all():
    with pytest.raises(InvalidArgument, match="no command specified"):
        merge.command_of(merge.merge(ContainerConfig(entrypoint=[""]), IMAGE))
    with pytest.raises(InvalidArgument, match="no command specified"):
        merge.command_of(merge.merge(ContainerConfig(entrypoint=""), IMAGE))


def test_the_rest_is_united_and_the_user_wins():
    asked = ContainerConfig(env=["A=mine", "B"], labels={"b": "3"}, exposed_ports={"53/udp": {}}, working_dir="/w")
    merged = merge.merge(asked, IMAGE)
    assert merged.env == ["A=mine", "B", "PATH=/bin"]
    assert merged.labels == {"a": "1", "b": "3"}
    assert set(merged.exposed_ports or ()) == {"80/tcp", "53/udp"}
    assert (merged.user, merged.working_dir, merged.stop_signal) == ("app", "/w", "SIGINT")
    assert asked.env == ["A=mine", "B"]


def container(**host) -> Container:
    return Container(
        id="a" * 64,
        name="web",
        created=1,
        image_id="sha256:0",
        image_ref="busybox",
        path="sh",
        config=ContainerConfig(env=["A=1", "TERM"], tty=True),
        host=HostConfig(**host),
    )


def test_environment():
    assert bundle.environment(container(), tty=True, extra=["A=2", "C=3"]) == [
        bundle.DEFAULT_PATH,
        "HOSTNAME=" + "a" * 12,
        "A=2",
        "C=3",
    ]


def test_capabilities():
    assert "CAP_SYS_ADMIN" not in bundle.capabilities(HostConfig())
    assert "CAP_SYS_ADMIN" in bundle.capabilities(HostConfig(cap_add=["sys_admin"]))
    assert bundle.capabilities(HostConfig(cap_drop=["ALL"], cap_add=["NET_ADMIN"])) == ["CAP_NET_ADMIN"]
    everything = bundle.capabilities(HostConfig(privileged=True))
    assert set(bundle.capabilities(HostConfig(cap_add=["ALL"], cap_drop=["CHOWN"]))) == set(everything) - {"CAP_CHOWN"}
    with pytest.raises(InvalidArgument, match='invalid CapAdd: unknown capability: "CAP_FLY"'):
        bundle.capabilities(HostConfig(cap_add=["FLY"]))


def test_the_bundle_has_what_docker_s_has():
    document = bundle.build(container(memory=64 << 20, pids_limit=7), "/c", "/ketch/a", lambda _ref, _kind: "")
    linux = document["linux"]
    assert {n["type"] for n in linux["namespaces"]} == {"mount", "network", "pid", "ipc", "uts", "cgroup"}
    assert linux["resources"]["memory"] == {"limit": 64 << 20, "swap": 128 << 20}
    assert linux["resources"]["pids"] == {"limit": 7}
    assert linux["resources"]["devices"][0] == {"allow": False, "access": "rwm"}
    assert {"/proc/kcore", "/proc/keys"} <= set(linux["maskedPaths"])
    assert linux["seccomp"]["defaultAction"] == "SCMP_ACT_ERRNO"
    assert {"/etc/hosts", "/etc/hostname", "/etc/resolv.conf"} <= {m["destination"] for m in document["mounts"]}
    unconfined = bundle.build(container(security_opt=["seccomp=unconfined"]), "/c", "/k", lambda _ref, _kind: "")
    assert "seccomp" not in unconfined["linux"]


@pytest.mark.parametrize(("name", "number"), [("TERM", 15), ("SIGKILL", 9), ("sigint", 2), ("10", 10), ("RTMIN+1", 35)])
def test_signals(name, number):
    assert bundle.signal_number(name) == number


@pytest.mark.parametrize("bad", ["", "0", "-1", "99", "SIGNOPE", "BLOCK", "RTMIN+99"])
def test_bad_signals(bad):
    with pytest.raises(InvalidArgument, match="invalid signal|does not support signal"):
        bundle.signal_number(bad)


@pytest.mark.parametrize(
    ("config", "host", "why"),
    [
        ({"image": ""}, {}, "no command specified"),
        ({"working_dir": "x"}, {}, "absolute path"),
        ({"env": ["=x"]}, {}, "invalid environment variable"),
        ({"stop_signal": "NOPE"}, {}, "invalid signal"),
        ({}, {"memory": 1024}, "Minimum memory limit"),
        ({}, {"memory_swap": 1 << 30}, "Memoryswap"),
        ({}, {"memory": 64 << 20, "memory_swap": 32 << 20}, "larger than memory"),
        ({}, {"nano_cpus": ((os.cpu_count() or 1) + 1) * 10**9}, "range of CPUs"),
        ({}, {"nano_cpus": 10**9, "cpu_period": 1000}, "Nano CPUs"),
        ({}, {"cpuset_cpus": "a"}, "cpuset"),
        ({}, {"cpuset_cpus": "4096"}, "not available"),
        ({}, {"restart_policy": RestartPolicy(name="sometimes")}, "restart policy"),
        ({}, {"restart_policy": RestartPolicy(name="always", maximum_retry_count=3)}, "on-failure"),
        ({}, {"auto_remove": True, "restart_policy": RestartPolicy(name="always")}, "AutoRemove"),
        ({}, {"log_config": LogConfig(type="carrier-pigeon")}, "error looking up logging plugin"),
        ({}, {"log_config": LogConfig(config={"colour": "red"})}, "unknown log opt"),
        ({}, {"port_bindings": {"http": []}}, "invalid port"),
        ({}, {"port_bindings": {"80/tcp": [PortBinding(host_port="x")]}}, "invalid port"),
        ({}, {"network_mode": "container:x", "port_bindings": {"80/tcp": []}}, "conflicting options"),
        ({}, {"pid_mode": "moon"}, "invalid PID mode"),
    ],
)
def test_refused_configurations(config, host, why):
    with pytest.raises(InvalidArgument, match=why):
        validate.check(ContainerConfig(**{"image": "busybox", **config}), HostConfig(**host))


def test_valid_configurations_have_no_warnings():
    assert validate.check(ContainerConfig(image="busybox"), HostConfig(memory=64 << 20, pids_limit=-1)) == []


@pytest.mark.parametrize(("text", "size"), [("10mb", 10**7), ("10m", 10**7), ("1.5G", 15 * 10**8), ("-1", 0)])
def test_log_sizes(text, size):
    assert log_options.size(text, "max-size", 1) == size
    assert log_options.size("4k", "max-buffer-size", 1) == 4096


@pytest.mark.parametrize(
    ("image", "why"),
    [
        ({"healthcheck": {"Interval": "x"}}, "health check cannot be read"),
        ({"healthcheck": {"Test": 5}}, "health check cannot be read"),
        ({"cmd": ["a\0b"]}, "NUL byte in `cmd`"),
        ({"entrypoint": ["/a\0"]}, "NUL byte in `entrypoint`"),
        ({"env": ["A=\0"]}, "NUL byte in `env`"),
        ({"volumes": {"/a\0": {}}}, "NUL byte in `volumes`"),
        ({"working_dir": "/\0"}, "NUL byte in `working_dir`"),
        ({"user": "\0"}, "NUL byte in `user`"),
    ],
)
def test_images_that_cannot_be_run(image, why):
    with pytest.raises(InvalidArgument, match=why):
        merge.merge(ContainerConfig(image="x"), RunConfig(**image))
    assert merge.merge(ContainerConfig(image="x"), RunConfig(labels={"a": "\0"})).labels == {"a": "\0"}
