"""Values that break programs, and requests in which one value of a right request is replaced by one of them."""

from __future__ import annotations

import copy
import json
import random
import urllib.parse
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, -(2**63) - 1, 2**64, 10**400, 1.5,
    -0.0, 1e400,
    "", " ", "\0", "a\0b", "a\nb", "a\r\nX-Header: 1", "../../etc/passwd", "/", "//", "/../..", ".", "..", "-",
    "a" * 5000,
    "%00", "%2e%2e%2f", "%", "é", "日本", "\u202e", "\ud800", "a:b:c:d", ":", "::", "=", "=x", "$(id)", "'; --", "*",
    "[", "(",
    "0", "-1", "+1", "1e3", "0x10", "١", "99999999999999999999", "1-2", "80/tcp", "65536", "65535-65536/udp",
    "1-65535",
    "container:", "container:/", "container:none", "host", "none", "bridge", "default", "always", "SIGRTMIN+99",
    "no\0",
    [], [None], [[]], [""], ["\0"], ["a\nb"], [{}], ["a"] * 2000, {}, {"": ""}, {"a": None}, {"\0": "\0"},
    {"a": {"b": {}}},
    {"80/tcp": None}, {"80/tcp": [{"HostPort": "-1"}]}, {"80/tcp": [{"HostIp": "1.2.3", "HostPort": "1"}]},
)  # fmt: skip

CONFIG: dict[str, Any] = {
    "Hostname": "h",
    "Domainname": "d",
    "User": "0",
    "ExposedPorts": {"80/tcp": {}},
    "Tty": False,
    "OpenStdin": False,
    "StdinOnce": False,
    "AttachStdin": False,
    "AttachStdout": True,
    "AttachStderr": True,
    "NetworkDisabled": False,
    "Env": ["A=b"],
    "Cmd": ["true"],
    "Entrypoint": ["sh"],
    "Image": "busybox",
    "Volumes": {"/v": {}},
    "WorkingDir": "/w",
    "Healthcheck": {
        "Test": ["CMD", "true"],
        "Interval": 10**9,
        "Timeout": 10**9,
        "Retries": 1,
        "StartPeriod": 10**9,
        "StartInterval": 10**9,
    },
    "MacAddress": "02:42:00:00:00:01",
    "OnBuild": [],
    "Labels": {"a": "b"},
    "StopSignal": "TERM",
    "StopTimeout": 1,
    "Shell": ["sh", "-c"],
    "ArgsEscaped": False,
    "HostConfig": {
        "Binds": ["nvol:/n:ro"],
        "ContainerIDFile": "",
        "LogConfig": {"Type": "local", "Config": {"max-size": "1m"}},
        "NetworkMode": "default",
        "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "0"}]},
        "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 1},
        "AutoRemove": False,
        "VolumeDriver": "local",
        "VolumesFrom": ["new:ro"],
        "Mounts": [
            {
                "Type": "tmpfs",
                "Target": "/m",
                "Source": "",
                "ReadOnly": False,
                "TmpfsOptions": {"SizeBytes": 65536, "Mode": 0o700},
            },
            {
                "Type": "volume",
                "Source": "nvol",
                "Target": "/k",
                "VolumeOptions": {
                    "NoCopy": True,
                    "Labels": {},
                    "Subpath": "",
                    "DriverConfig": {"Name": "local", "Options": {}},
                },
            },
        ],
        "ConsoleSize": [1, 2],
        "Annotations": {"a": "b"},
        "CapAdd": ["CHOWN"],
        "CapDrop": ["MKNOD"],
        "CgroupnsMode": "private",
        "Dns": ["127.0.0.1"],
        "DnsOptions": ["ndots:1"],
        "DnsSearch": ["x.test"],
        "ExtraHosts": ["a:10.0.0.1"],
        "GroupAdd": ["1"],
        "IpcMode": "private",
        "Cgroup": "",
        "Links": ["running:r"],
        "OomScoreAdj": 1,
        "PidMode": "",
        "Privileged": False,
        "PublishAllPorts": False,
        "ReadonlyRootfs": False,
        "SecurityOpt": ["no-new-privileges"],
        "StorageOpt": {},
        "Tmpfs": {"/t": "size=1m"},
        "UTSMode": "",
        "UsernsMode": "",
        "ShmSize": 1 << 20,
        "Sysctls": {"net.ipv4.ip_forward": "0"},
        "Runtime": "",
        "Isolation": "",
        "MaskedPaths": ["/proc/kcore"],
        "ReadonlyPaths": ["/proc/sys"],
        "CpuShares": 512,
        "Memory": 64 << 20,
        "BlkioWeight": 100,
        "BlkioWeightDevice": [],
        "BlkioDeviceReadBps": [{"Path": "/dev/null", "Rate": 1}],
        "CpuPeriod": 100000,
        "CpuQuota": 50000,
        "CpuRealtimePeriod": 0,
        "CpuRealtimeRuntime": 0,
        "CpusetCpus": "0",
        "CpusetMems": "0",
        "Devices": [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/n", "CgroupPermissions": "rwm"}],
        "DeviceCgroupRules": ["c 1:3 r"],
        "DeviceRequests": [],
        "MemoryReservation": 32 << 20,
        "MemorySwap": 128 << 20,
        "MemorySwappiness": 10,
        "OomKillDisable": False,
        "Init": True,
        "PidsLimit": 10,
        "Ulimits": [{"Name": "nofile", "Soft": 10, "Hard": 20}],
    },
    "NetworkingConfig": {
        "EndpointsConfig": {
            "bridge": {
                "IPAMConfig": None,
                "Links": [],
                "Aliases": [],
                "MacAddress": "",
                "DriverOpts": {},
                "GwPriority": 0,
            }
        }
    },
}
UPDATE = {
    "CpuShares": 512,
    "Memory": 64 << 20,
    "MemorySwap": -1,
    "MemoryReservation": 32 << 20,
    "CpuPeriod": 100000,
    "CpuQuota": 50000,
    "CpusetCpus": "0",
    "CpusetMems": "0",
    "PidsLimit": 10,
    "BlkioWeight": 100,
    "NanoCpus": 0,
    "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
}
EXEC = {
    "AttachStdin": False,
    "AttachStdout": True,
    "AttachStderr": True,
    "DetachKeys": "ctrl-p",
    "Tty": False,
    "Env": ["A=b"],
    "Cmd": ["true"],
    "Privileged": False,
    "User": "0",
    "WorkingDir": "/",
    "ConsoleSize": [1, 2],
}
NETWORK = {
    "Name": "nnet",
    "Driver": "bridge",
    "Scope": "local",
    "Internal": False,
    "Attachable": False,
    "Ingress": False,
    "ConfigOnly": False,
    "EnableIPv4": True,
    "EnableIPv6": False,
    "Options": {"com.docker.network.driver.mtu": "1400"},
    "IPAM": {
        "Driver": "default",
        "Config": [
            {
                "Subnet": "10.77.0.0/24",
                "IPRange": "10.77.0.0/25",
                "Gateway": "10.77.0.1",
                "AuxiliaryAddresses": {"a": "10.77.0.9"},
            }
        ],
        "Options": {},
    },
    "Labels": {"a": "b"},
}
CONNECT = {
    "Container": "new",
    "EndpointConfig": {
        "IPAMConfig": {"IPv4Address": "", "IPv6Address": "", "LinkLocalIPs": []},
        "Links": ["running:r"],
        "Aliases": ["a"],
        "MacAddress": "02:42:00:00:00:02",
        "DriverOpts": {"a": "b"},
        "GwPriority": 1,
    },
}
VOLUME = {"Name": "nvol", "Driver": "local", "DriverOpts": {"type": "tmpfs", "device": "tmpfs"}, "Labels": {"a": "b"}}
BODIES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("/containers/create?name=nasty", CONFIG),
    ("/containers/ended/update", UPDATE),
    ("/containers/running/exec", EXEC),
    ("/networks/create", NETWORK),
    ("/networks/net/connect", CONNECT),
    ("/networks/net/disconnect", {"Container": "new", "Force": False}),
    ("/volumes/create", VOLUME),
)
FILTERED = ("/containers/json?all=1&", "/images/json?", "/networks?", "/volumes?", "/events?since=0&until=1&")
FILTER_NAMES = (
    "ancestor",
    "before",
    "dangling",
    "driver",
    "event",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "label",
    "name",
    "network",
    "publish",
    "reference",
    "scope",
    "since",
    "status",
    "type",
    "until",
    "volume",
)
QUERIES = (
    "GET /containers/json?limit=",
    "GET /containers/json?all=",
    "GET /containers/json?size=",
    "GET /containers/json?filters=",
    "GET /containers/running/logs?stdout=1&since=",
    "GET /containers/running/logs?stdout=1&until=",
    "GET /containers/running/logs?stdout=1&tail=",
    "GET /containers/running/logs?stdout=",
    "GET /containers/running/top?ps_args=",
    "POST /containers/running/resize?h=1&w=",
    "POST /containers/running/kill?signal=",
    "POST /containers/ended/stop?t=",
    "POST /containers/ended/wait?condition=",
    "POST /containers/ended/rename?name=",
    "POST /containers/create?name=",
    "POST /containers/create?platform=",
    "POST /containers/frozen/attach?logs=1&detachKeys=",
    "GET /events?until=1&since=",
    "GET /images/json?all=",
    "POST /images/busybox/tag?repo=",
    "POST /images/busybox/tag?repo=x&tag=",
    "GET /containers/",
    "DELETE /containers/",
    "GET /containers/#/json",
    "POST /containers/#/start",
    "GET /exec/#/json",
    "GET /images/#/json",
    "GET /networks/",
    "DELETE /networks/",
    "GET /volumes/",
    "DELETE /volumes/",
    "GET /",
    "POST /",
)


class Request(NamedTuple):
    """What is sent as it is."""

    method: str
    target: str
    body: bytes = b""
    kind: str = "application/json"


def requests(seed: int, share: float) -> Iterator[Request]:
    """A ``share`` of all replacements, chosen by ``seed``; broken JSON and broken headers always."""
    chance = random.Random(seed)
    yield from _broken()
    for path, body in BODIES:
        for place in _places(body):
            for value in VALUES:
                if chance.random() < share:
                    yield Request("POST", path, _json(_replaced(body, place, value)))
    yield from _queries(chance, share)
    yield from _filters(chance, share)


def _queries(chance: random.Random, share: float) -> Iterator[Request]:
    for query in QUERIES:
        for value in VALUES:
            if isinstance(value, str) and chance.random() < max(share, 0.1):
                text = urllib.parse.quote(value.encode("utf-8", "surrogatepass"), safe="")
                method, _, target = query.partition(" ")
                target = target.replace("#", text) if "#" in target else target + text
                yield Request(method, target, b"{}" if "create" in target else b"")


def _filters(chance: random.Random, share: float) -> Iterator[Request]:
    for path in FILTERED:
        for name in FILTER_NAMES:
            for value in VALUES:
                if chance.random() < share:
                    for form in ({name: [value]}, {name: value}):
                        yield Request("GET", f"{path}filters={urllib.parse.quote(_json(form))}")


def _broken() -> Iterator[Request]:
    texts = (
        b"",
        b"null",
        b"[]",
        b"{",
        b'{"Image":',
        b'"text"',
        b"1",
        b"\xff\xfe",
        b'{"Image": "\xff"}',
        b'{"Image": "\\ud800"}',
        b'{"Image": "a", "Image": 5}',
        b"{" * 50000,
        b"[" * 100000,
        b'{"a":' * 20000 + b"1" + b"}" * 20000,
        b"\0" * 100,
        b'{"Image": "busybox", "Cmd": ' + b"[" * 3000 + b"]" * 3000 + b"}",
        b'{"Image": "' + b"a" * 3_000_000 + b'"}',
        b"Image=busybox",
        b"{} {}",
        b"\xef\xbb\xbf{}",
    )
    for path, _ in BODIES:
        for text in texts:
            yield Request("POST", path, text)
    for kind in ("", "text/plain", "application/x-tar", "application/json; charset=utf-16", "nonsense", "a/b/c;;;="):
        yield Request("POST", "/volumes/create", b'{"Name": "nvol"}', kind)


def _places(body: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if before:
        yield before
    items = body.items() if isinstance(body, dict) else enumerate(body) if isinstance(body, list) else ()
    for key, value in items:
        yield from _places(value, (*before, key))


def _replaced(body: Any, place: tuple[Any, ...], value: Any) -> Any:
    changed = copy.deepcopy(body)
    inner = changed
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return changed


def _json(value: Any) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")
