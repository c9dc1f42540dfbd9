"""The settings of dockerd 28 that Ketch has not: those that say what Ketch does anyway, and those that it refuses.

A daemon.json, or a command line, that was written for dockerd either means here what it meant there, or is refused with
a sentence that says what to use.  A few settings are about parts that Ketch lacks, and change nothing: that is noted in
the log.
"""

from __future__ import annotations

import argparse
import json
from typing import Any, NamedTuple

from ketch.errors import InvalidArgument
from ketch.notation import booleans

ANY = ("*",)
_PREFIX = "dockerd_"


class Foreign(NamedTuple):
    """One setting: the flag, the key in daemon.json, whether the flag is a switch, and the values that are accepted.

    ``accepted`` of `ANY` are all values.  ``reason``: why these are as good as nothing, or what to use for the others;
    with ``told`` it is noted when the setting is there.
    """

    flag: str
    key: str
    switch: bool
    accepted: tuple[str, ...]
    reason: str
    told: bool = False


_CONTAINERD = "Ketch has no containerd"
_SWARM = "Ketch runs containers on one machine, without a swarm"
_CPU_RT = "the kernel shares real-time time out by cgroup v1 alone; give containers --cpu-rt-runtime there"
SETTINGS = (
    Foreign(
        "authorization-plugin",
        "authorization-plugins",
        False,
        (),
        "Ketch has no plugins; who may use the socket is said by --group, over TLS by --tlsverify",
    ),
    Foreign("containerd", "containerd", False, ANY, _CONTAINERD, told=True),
    Foreign("containerd-namespace", "containerd-namespace", False, ANY, _CONTAINERD, told=True),
    Foreign("containerd-plugins-namespace", "containerd-plugins-namespace", False, ANY, _CONTAINERD, told=True),
    Foreign("cpu-rt-period", "cpu-rt-period", False, ("0",), _CPU_RT),
    Foreign("cpu-rt-runtime", "cpu-rt-runtime", False, ("0",), _CPU_RT),
    Foreign("cri-containerd", "cri-containerd", True, ("false",), "Ketch has no containerd, and serves no Kubernetes"),
    Foreign("experimental", "experimental", True, ANY, "nothing of Ketch is experimental by a switch"),
    Foreign("feature", "features", False, ANY, "Ketch has the builder, the image store and the formats of all of them"),
    Foreign("init-path", "init-path", False, (), "Ketch has an init of its own: --init"),
    Foreign("ip-forward", "ip-forward", True, ("true",), "use --bridge none, and networks with --internal"),
    Foreign("ip-forward-no-drop", "ip-forward-no-drop", True, ANY, "Ketch never changes the policy of another's chain"),
    Foreign("ip6tables", "ip6tables", True, ("true",), "Ketch writes one nftables table of its own; use --bridge none"),
    Foreign("iptables", "iptables", True, ("true",), "Ketch writes one nftables table of its own; use --bridge none"),
    Foreign("network-control-plane-mtu", "network-control-plane-mtu", False, ANY, _SWARM, told=True),
    Foreign("node-generic-resource", "node-generic-resources", False, ANY, _SWARM, told=True),
    Foreign("raw-logs", "raw-logs", True, ANY, "lines of the log are never coloured"),
    Foreign("rootless", "", True, ("false",), "start ketchd as the user: it needs no flag"),
    Foreign("selinux-enabled", "selinux-enabled", True, ("false",), "give containers --security-opt label=disable"),
    Foreign("swarm-default-advertise-addr", "swarm-default-advertise-addr", False, ANY, _SWARM, told=True),
    Foreign("userland-proxy", "userland-proxy", True, ANY, "published ports answer on loopback in either case"),
    Foreign("userland-proxy-path", "userland-proxy-path", False, ANY, "there is no such program here", told=True),
)
_EMPTY = ("", "[]", "{}")  # as if it were not there
_BY_KEY = {setting.key: setting for setting in SETTINGS if setting.key}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags, without a line in the help."""
    for setting in SETTINGS:
        name, where = f"--{setting.flag}", _PREFIX + setting.flag
        if setting.switch:
            parser.add_argument(name, action="append", dest=where, help=argparse.SUPPRESS, nargs="?", const="true")
        else:
            parser.add_argument(name, action="append", dest=where, help=argparse.SUPPRESS)


def keys_of(flags: dict[str, Any]) -> set[str]:
    """The keys in daemon.json of the flags that were given."""
    return {setting.key for setting in SETTINGS if setting.key and _PREFIX + setting.flag in flags}


def take_flags(flags: dict[str, Any]) -> list[str]:
    """Take the flags out of what was given; returns notes (InvalidArgument: one is refused)."""
    notes: list[str] = []
    for setting in SETTINGS:
        for value in flags.pop(_PREFIX + setting.flag, None) or ():
            notes += _judged(setting, f"--{setting.flag}", str(value))
    return notes


def take_keys(values: dict[str, Any], path: str) -> list[str]:
    """Take the keys out of a file's object, of which null says nothing; returns notes (InvalidArgument: refused)."""
    notes: list[str] = []
    for key in [key for key in values if key in _BY_KEY]:
        value = values.pop(key)
        if value is None:
            continue
        if _BY_KEY[key].switch and str(value) not in _EMPTY and not isinstance(value, bool):
            raise InvalidArgument(f"read configuration `{path}`: {key} must be true or false, not {json.dumps(value)}")
        text = booleans.write(value) if isinstance(value, bool) else str(value)
        notes += _judged(_BY_KEY[key], f"`{path}`: {key}", text)
    return notes


def _judged(setting: Foreign, where: str, value: str) -> list[str]:
    if value in _EMPTY:
        return []
    chosen = booleans.parse(value) if setting.switch else None
    text = value if chosen is None else booleans.write(chosen)
    if setting.accepted != ANY and text not in setting.accepted:
        raise InvalidArgument(f"{where} {text}: Ketch does not have that", hint=setting.reason)
    return [f"{where}: nothing is changed by it: {setting.reason}"] if setting.told else []
