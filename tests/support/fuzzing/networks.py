"""Requests about networks, each a few steps; ``tests/data/networks.json`` has what a dockerd answers to each step.

The rows are made from lists of values that are put in one place of a request.  `record` writes down anew how a dockerd
answers; rows over which its connection breaks are left out.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.rawapi import Api

RECORDED = Path(__file__).parents[2] / "data" / "networks.json"
Step = tuple[str, str, Any]
Row = tuple[str, list[Step]]

_SLEEP = {"Image": "busybox", "Cmd": ["sleep", "1000"], "StopSignal": "KILL"}
_NETWORKS: list[dict[str, Any]] = [
    {"Name": "one", "IPAM": {"Config": [{"Subnet": "10.81.0.0/24"}]}},
    {"Name": "two", "IPAM": {"Config": [{"Subnet": "10.82.0.0/24", "IPRange": "10.82.0.128/25"}]}},
    {"Name": "six", "EnableIPv6": True, "IPAM": {"Config": [{"Subnet": "10.83.0.0/24"}, {"Subnet": "fd00:83::/64"}]}},
    {"Name": "auto", "Labels": {"a": "b"}},
]
_TAKEN = {"IPAMConfig": {"IPv4Address": "10.81.0.77"}}
_MAC, _OTHER_MAC = "02:00:00:00:00:09", "02:00:00:00:00:08"
_SYSCTLS, _IFNAME = "com.docker.network.endpoint.sysctls", "com.docker.network.endpoint.ifname"
_BRIDGE = "com.docker.network.bridge."
_MTU = "com.docker.network.driver.mtu"
_INTERFACE = "net.ipv4.conf.IFNAME."


def build(api: Api) -> None:
    """Make what the requests are about: networks, and a container `other` with a fixed address on `one`."""
    for network in _NETWORKS:
        api.must("POST", "/networks/create", network)
    networking = {"EndpointsConfig": {"one": _TAKEN}}
    body = {**_SLEEP, "HostConfig": {"NetworkMode": "one"}, "NetworkingConfig": networking}
    api.must("POST", "/containers/create?name=other", body)
    api.must("POST", "/containers/other/start")


def clear(api: Api) -> None:
    """Remove it all."""
    for row in api.must("GET", "/containers/json?all=1"):
        api("DELETE", f"/containers/{row['Id']}?force=1&v=1")
    api("POST", "/networks/prune")


def rows() -> Iterator[Row]:
    """All rows by name."""
    yield from _combinations()
    yield from _endpoints()
    yield from _versions()
    yield from _new_networks()
    yield from _connections()
    yield from _lists()


def _create(
    endpoints: dict[str, Any] | None = None, mode: str = "", version: str = "1.51", *, start: bool = False, **more: Any
) -> list[Step]:
    body = {**_SLEEP, **more, "HostConfig": {"NetworkMode": mode}}
    if endpoints is not None:
        body["NetworkingConfig"] = {"EndpointsConfig": endpoints}
    look: Step = ("GET", f"/v{version}/containers/tried/json", None)
    started: list[Step] = [("POST", "/containers/tried/start", None), look] if start else []
    return [("POST", f"/v{version}/containers/create?name=tried", body), look, *started, _GONE]


_GONE: Step = ("DELETE", "/containers/tried?force=1", None)
_LOOK: Step = ("GET", "/containers/tried/json", None)
_START: Step = ("POST", "/containers/tried/start", None)


def _combinations() -> Iterator[Row]:
    """Modes with endpoints of the same, another, and several networks."""
    for mode in ("", "default", "bridge", "host", "none", "one", "container:other", "nope"):
        for name in ("host", "none", "default", "bridge", "one", "nope", ""):
            yield f"mode '{mode}', endpoint '{name}'", _create({name: {}}, mode, start=True)
    for mode in ("", "host", "none", "one"):
        for pair in ("host one", "none one", "bridge one", "one two", "default one"):
            yield f"mode '{mode}', endpoints {pair}", _create(dict.fromkeys(pair.split(), {}), mode, start=True)


_FIELDS: dict[str, Any] = {
    "mac": {"MacAddress": _MAC},
    "eight": {"MacAddress": "02:00:00:00:00:00:00:01"},
    "multicast": {"MacAddress": "01:00:00:00:00:01"},
    "dashes": {"MacAddress": "02-00-00-00-00-09"},
    "dots": {"MacAddress": "0200.0000.0009"},
    "no mac": {"MacAddress": "zz"},
    "space": {"MacAddress": " "},
    "no ipam": {"IPAMConfig": None},
    "ipam": {"IPAMConfig": {}},
    **{
        f"v4 {text}": {"IPAMConfig": {"IPv4Address": text}}
        for text in (
            "10.81.0.50",
            "fd00:83::5",
            "::ffff:10.81.0.50",
            "0.0.0.0",
            "10.99.0.5",
            "10.81.0",
            "10.81.0.50/24",
            "10.81.0.77",
            "10.81.0.1",
            "10.81.0.0",
            "10.81.0.255",
            "010.081.000.050",
        )
    },
    **{
        f"v6 {text}": {"IPAMConfig": {"IPv6Address": text}}
        for text in ("fd00:83::5", "10.81.0.50", "::", "fe80::1%eth0", "::ffff:10.81.0.50")
    },
    **{f"link-local {text}": {"IPAMConfig": {"LinkLocalIPs": [text]}} for text in ("169.254.1.1", "x", "", "0.0.0.0")},
    "link": {"Links": ["other:x"]},
    "link to none": {"Links": ["nope:x"]},
    "options": {"DriverOpts": {"a": "b"}},
    **{
        f"sysctl {text}": {"DriverOpts": {_SYSCTLS: text}}
        for text in (
            f"{_INTERFACE}log_martians=1",
            "net.ipv4.conf.eth0.log_martians=1",
            "",
            f"{_INTERFACE}log_martians=1,",
            f"{_INTERFACE}nope=1",
        )
    },
    "interface": {"DriverOpts": {_IFNAME: "foo0"}},
    "no interface": {"DriverOpts": {_IFNAME: "a/b"}},
    "priority": {"GwPriority": -7},
    "fraction": {"GwPriority": 1.5},
    "aliases": {"Aliases": ["a1", "A2", "a1"]},
    "no alias": {"Aliases": []},
    "wrong type": {"Gateway": 5},
    "wrong list": {"DNSNames": "x"},
    "unknown": {"Foo": 1},
    "list": [],
    "text": "x",
    "case": {"ipamconfig": {"ipv4address": "10.81.0.51"}},
}
_AT_START = ("mac", "multicast", "dashes", "dots", "v4", "sysctl", "interface", "no interface", "link", "aliases")


def _endpoints() -> Iterator[Row]:
    """Fields of an endpoint, of several networks."""
    for what, field in _FIELDS.items():
        start = what.startswith(_AT_START)
        yield f"endpoint of one, {what}", _create({"one": field}, "one", start=start)
        yield f"endpoint of bridge, {what}", _create({"bridge": field})
        if what.startswith(("v4", "v6")):
            for name in ("six", "auto", "host", "none", "nope"):
                yield f"endpoint of {name}, {what}", _create({name: field}, name)


def _versions() -> Iterator[Row]:
    """The same by version, and the container's own hardware address."""
    for version in ("1.24", "1.43", "1.44", "1.47", "1.48", "1.51"):
        yield f"{version}: no endpoints", _create(None, "one", version)
        for what in ("mac", "no mac", "v4 10.81.0.50", "priority", "aliases", "link"):
            for mode in ("one", ""):
                yield f"{version}: mode '{mode}', {what}", _create({"one": _FIELDS[what]}, mode, version)
        for mode, name in (
            ("one", "one"),
            ("one", "two"),
            ("", "bridge"),
            ("default", "default"),
            ("host", "host"),
            ("none", "none"),
            ("container:other", "one"),
        ):
            for address in (_MAC, "zz"):
                for own in ({}, {"MacAddress": _OTHER_MAC}):
                    steps = _create({name: own}, mode, version, MacAddress=address)
                    yield f"{version}: container's {address}, mode '{mode}', endpoint of {name} {own}", steps
            yield f"{version}: container's, mode '{mode}'", _create(None, mode, version, MacAddress=_MAC)


def _ipam(*configs: Any, **more: Any) -> dict[str, Any]:
    return {"IPAM": {"Config": list(configs), **more}}


def _options(values: dict[str, tuple[str, ...]]) -> dict[str, Any]:
    return {f"{name}={text}": {"Options": {name: text}} for name, texts in values.items() for text in texts}


_S, _V6 = "10.84.0.0/24", "fd00:84::/64"
_OF_SUBNET = {
    "Gateway": ("10.84.0.254", "10.85.0.1", "x", "10.84.0.0", "10.84.0.255", "fd00:84::1", "10.84.0.1/24", None),
    "IPRange": ("10.84.0.128/25", "10.85.0.0/25", "10.84.0.0/16", "x", "10.84.0.129/25", "fd00:84::/80", _S),
    "AuxiliaryAddresses": (
        {"a": "10.84.0.5", "b": "10.84.0.6"},
        {"a": "10.85.0.5"},
        {"a": "x"},
        {"a": "10.84.0.5", "b": "10.84.0.5"},
        {"a": "10.84.0.1"},
        {"a": ""},
        {"a": "fd00::1"},
        {"": "10.84.0.7"},
        {"a": "10.84.0.0"},
    ),
}
_NEW: dict[str, Any] = {
    **{f"driver {d}": {"Driver": d} for d in (None, "", "nope", "host", "null", "none", "overlay", "BRIDGE")},
    **{f"scope {s}": {"Scope": s} for s in ("local", "swarm", "odd")},
    **{f"flag {f}": {f: True} for f in ("Attachable", "Internal", "Ingress", "CheckDuplicate")},
    **{f"IPAM {i}": {"IPAM": i} for i in (None, {}, {"Config": None}, {"Config": [None]}, {"Config": [{}]})},
    **{f"IPAM driver {d}": {"IPAM": {"Driver": d}} for d in ("", None, "nope", "null")},
    **{f"IPAM options {o}": {"IPAM": {"Options": o}} for o in ({"a": "b"}, {})},
    **{
        f"subnet {text}": _ipam({"Subnet": text})
        for text in (
            _S,
            "10.84.0.1/24",
            "10.84.0.0",
            "x",
            "",
            "10.84.0.0/31",
            "10.84.0.0/32",
            "0.0.0.0/0",
            "010.084.000.000/24",
            " 10.84.0.0/24",
            "10.84.0.0/024",
            "10.84.0.0/255.255.255.0",
            "10.81.0.0/25",
            "10.80.0.0/12",
            _V6,
            "fd00:84::1/64",
        )
    },
    "gateway alone": _ipam({"Gateway": "10.84.0.1"}),
    **{
        f"{name} {value}": _ipam({"Subnet": _S, name: value}) for name, values in _OF_SUBNET.items() for value in values
    },
    "gateway and auxiliary": _ipam({"Subnet": _S, "Gateway": "10.84.0.1", "AuxiliaryAddresses": {"a": "10.84.0.1"}}),
    "two subnets": _ipam({"Subnet": _S}, {"Subnet": "10.85.0.0/24"}),
    "a subnet twice": _ipam({"Subnet": _S}, {"Subnet": _S}),
    "overlapping subnets": _ipam({"Subnet": _S}, {"Subnet": "10.84.0.128/25"}),
    "a subnet and none": _ipam({"Subnet": _S}, {"Subnet": ""}),
    "IPv6 and its subnet": {"EnableIPv6": True, **_ipam({"Subnet": _V6})},
    "IPv6 without one": {"EnableIPv6": True},
    "IPv6 and one of IPv4": {"EnableIPv6": True, **_ipam({"Subnet": _S})},
    "both": {"EnableIPv6": True, **_ipam({"Subnet": _V6}, {"Subnet": _S})},
    "both, not enabled": _ipam({"Subnet": _S}, {"Subnet": _V6}),
    "IPv6 and two": {"EnableIPv6": True, **_ipam({"Subnet": _V6}, {"Subnet": "fd00:85::/64"})},
    "IPv6 and a gateway outside": {"EnableIPv6": True, **_ipam({"Subnet": _V6, "Gateway": "fd00:99::99"})},
    "IPv6 and host bits": {"EnableIPv6": True, **_ipam({"Subnet": "fd00:84::1/64"})},
    "no IPv4": {"EnableIPv4": False},
    "IPv6 alone": {"EnableIPv4": False, "EnableIPv6": True, **_ipam({"Subnet": _V6})},
    "an option and its field": {"EnableIPv6": False, "Options": {"com.docker.network.enable_ipv6": "true"}},
    "options null": {"Options": None},
    "options of other types": {"Options": {"a": 1}},
    **_options(
        {
            "x": ("y",),
            "com.docker.network.enable_ipv6": ("true", "x"),
            _MTU: ("1400", "0", "-1", "67", "65536", "99999999999999999999", "x", "", "+1400"),
            _BRIDGE + "name": ("abcdefghijklmnopq", "a/b", "a b", "lo", "."),
            _BRIDGE + "enable_icc": ("false", "x", "", "T"),
            _BRIDGE + "host_binding_ipv4": ("127.0.0.1", "x", "::1", ""),
            _BRIDGE + "gateway_mode_ipv4": ("routed", "x", "", "isolated"),
            "com.docker.network.host_ipv4": ("10.9.9.9", "x"),
        }
    ),
    "isolated": {"Internal": True, "Options": {_BRIDGE + "gateway_mode_ipv6": "isolated"}},
    **{f"labels {text}": {"Labels": text} for text in ({"a": "b"}, None, {"": ""}, {"a": 1})},
    **{f"name '{text}'": {"Name": text} for text in ("one", "", " ", "bridge", "host", "default", None)},
    **{
        f"{driver} {option}={text}": {"Driver": driver, "Options": {option: text}}
        for driver, option, text in (
            ("macvlan", "parent", "nope"),
            ("macvlan", "parent", "nope.5"),
            ("macvlan", "parent", "lo"),
            ("macvlan", "macvlan_mode", "x"),
            ("ipvlan", "ipvlan_mode", "x"),
            ("ipvlan", "ipvlan_flag", "x"),
        )
    },
    "macvlan without IPAM": {"Driver": "macvlan", "IPAM": {"Driver": "null"}},
    "configuration": {"ConfigOnly": True, "Driver": "macvlan", "Options": {"parent": "x"}, **_ipam({"Subnet": _S})},
    "configuration, internal": {"ConfigOnly": True, "Internal": True},
    "configuration with a wrong subnet": {"ConfigOnly": True, **_ipam({"Subnet": "x"})},
    "configuration of another": {"ConfigOnly": True, "ConfigFrom": {"Network": "one"}},
    **{f"made from {name}": {"ConfigFrom": {"Network": name}} for name in ("nope", "one", "")},
}
_CONFIGURATION: dict[str, Any] = {
    "Name": "config",
    "ConfigOnly": True,
    "EnableIPv6": True,
    **_ipam({"Subnet": "10.90.0.0/24", "Gateway": "10.90.0.9"}, {"Subnet": "fd00:90::/64"}),
    "Options": {_BRIDGE + "enable_icc": "false"},
    "Labels": {"c": "d"},
}


def _new_networks() -> Iterator[Row]:
    """Networks that are made; each has subnets of its own, for dockerd loses those of some that fail."""
    for number, (what, fields) in enumerate(_NEW.items()):
        text = json.dumps({"Name": "new", **fields})
        moved = text.replace("10.84.", f"10.{100 + number}.").replace("10.85.", f"10.{101 + number}.")
        body = json.loads(moved.replace("fd00:84:", f"fd00:{1000 + number}:"))
        name = quote(body["Name"] or "new")
        after: list[Step] = [("GET", f"/networks/{name}", None), ("DELETE", f"/networks/{name}", None)]
        yield f"new network, {what}", [("POST", "/networks/create", body), *(after if name != "one" else ())]
    for version in ("1.24", "1.47", "1.48"):
        for fields in ({}, {"EnableIPv4": False, "EnableIPv6": True}, {"Name": ""}, {"Name": "one"}):
            steps: list[Step] = [("POST", f"/v{version}/networks/create", {"Name": "new", **fields})]
            if "Name" not in fields:
                steps += [("GET", f"/v{version}/networks/new", None), ("DELETE", "/networks/new", None)]
            yield f"{version}: new network {fields}", steps
    yield "configurations", [*_of_configuration()]


def _of_configuration() -> Iterator[Step]:
    made = {"Name": "made", "ConfigFrom": {"Network": "config"}}
    yield "POST", "/networks/create", _CONFIGURATION
    yield "GET", "/networks/config", None
    for own in (
        {"IPAM": {"Options": {"a": "b"}}},
        {"EnableIPv6": True},
        {"Labels": {"a": "b"}},
        {"Options": {"a": ""}},
    ):
        yield "POST", "/networks/create", {**made, **own}
    yield "POST", "/networks/create", {**made, "Internal": True}
    yield "GET", "/networks/made", None
    yield "POST", "/networks/create", {**made, "Name": "again"}
    yield "DELETE", "/networks/config", None
    yield "DELETE", "/networks/made", None
    yield "POST", "/networks/config/connect", {"Container": "other"}
    yield from _create(None, "config", start=True)
    yield "DELETE", "/networks/config", None


def _connections() -> Iterator[Row]:
    """Containers that are connected and disconnected, while they run and while they do not."""
    tried = {"Container": "tried"}
    for runs in (False, True):
        begin: list[Step] = [_START] if runs else []
        end: list[Step] = [_LOOK, *([] if runs else [_START, _LOOK]), _GONE]
        when = "running" if runs else "stopped"
        for name in ("one", "bridge", "host", "none", "nope", "default"):
            join, leave = (("POST", f"/networks/{name}/{verb}", tried) for verb in ("connect", "disconnect"))
            for mode in ("bridge", "one", "none", "host", "container:other"):
                steps = [_create(None, mode)[0], *begin, join, _LOOK, leave, *end]
                yield f"{when} in '{mode}', {name} and back", steps
        for what in ("mac", "no mac", "v4 10.81.0.50", "v4 10.99.0.5", "v4 10.81.0", "v4 0.0.0.0", "link", "priority"):
            for name in ("one", "bridge"):
                join = ("POST", f"/networks/{name}/connect", {**tried, "EndpointConfig": _FIELDS[what]})
                yield f"{when}, {name} with {what}", [_create(None, "auto")[0], *begin, join, *end]
        for body in ({}, {"Container": ""}, {"Container": "nope"}, {"Container": "nope", "Force": True}, []):
            both = [("POST", f"/networks/one/{verb}", body) for verb in ("connect", "disconnect")]
            yield f"{when}, one with {body}", [_create()[0], *begin, *both, _GONE]
        twice = [("POST", "/networks/one/connect", tried)] * 2 + [("POST", "/networks/one/disconnect", tried)] * 2
        yield f"{when}, twice", [_create()[0], *begin, *twice, *end]
        alone = [("POST", "/networks/bridge/disconnect", {**tried, "Force": True})]
        yield f"{when}, from its only one", [_create()[0], *begin, *alone, *end]
    yield "an address that another took", _thief()
    made: Step = ("POST", "/networks/create", {"Name": "gone"})
    gone: Step = ("DELETE", "/networks/gone", None)
    steps = [made, _create(None, "gone")[0], gone, _START, _LOOK, made, _START, _GONE, gone]
    yield "a network that is removed and made again", steps
    stop: Step = ("POST", "/containers/tried/stop?t=0", None)
    several = _create({"one": {}, "two": {"GwPriority": 3}, "six": {}}, "one")[0]
    yield "several networks", [several, _START, _LOOK, stop, _LOOK, _START, _LOOK, _GONE]


def _thief() -> list[Step]:
    address = {"one": {"IPAMConfig": {"IPv4Address": "10.81.0.50"}}}
    (path, body) = _create(address, "one")[0][1:]
    stop: Step = ("POST", "/containers/tried/stop?t=0", None)
    thief: list[Step] = [
        ("POST", path.replace("tried", "thief"), body),
        ("POST", "/containers/thief/start", None),
    ]
    away: Step = ("DELETE", "/containers/thief?force=1", None)
    return [("POST", path, body), _START, stop, *thief, _START, _LOOK, away, _START, _LOOK, _GONE]


_FILTERS: list[Any] = [
    *({"dangling": values} for values in (["x"], ["true", "false"], [], [""])),
    *({"scope": values} for values in (["local"], ["global"], ["x"], [])),
    *({"type": values} for values in (["custom"], ["builtin"], ["x"], ["custom", "builtin"], [])),
    *({"driver": values} for values in (["bridge"], ["null"], ["BRIDGE"], ["bri"], [], ["host", "null"])),
    *({"name": values} for values in (["ne"], ["^o"], ["one$"], ["ONE"], [""], ["("], ["one", "two"])),
    *({"name": values} for values in ({"one": True}, "one", None, [1])),
    *({"id": values} for values in (["zz"], [""])),
    *({"label": values} for values in (["a"], ["a=b"], ["a=c"], [""], ["a=b", "c"])),
    *({name: ["a"]} for name in ("label!", "until", "nope", "idOrName", "")),
    *("x", "[]", "null", "", "{}"),
]


def _lists() -> Iterator[Row]:
    """Lists, inspections, and what is pruned."""
    for chosen in _FILTERS:
        text = chosen if isinstance(chosen, str) else json.dumps(chosen)
        yield f"list {text}", [("GET", f"/networks?filters={quote(text)}", None)]
    for query in ("verbose=1", "verbose=x", "verbose=", "scope=local", "scope=swarm", "scope=x", "scope="):
        yield f"inspect {query}", [("GET", f"/networks/one?{query}", None)]
    for name in ("nope", "ONE", "bridge", "host", "none", "default"):
        yield f"inspect {name}", [("GET", f"/networks/{name}", None), ("DELETE", f"/networks/{name}", None)]
    yield "remove one that is used", [("DELETE", "/networks/one", None)]
    labels = [{"label": [text]} for text in ("zz=2", "")]
    for chosen in (*labels, {"until": ["x"]}, {"until": ["1h", "2h"]}, {"name": ["x"]}, {"label": ["zz=1"]}):
        prune: Step = ("POST", f"/networks/prune?filters={quote(json.dumps(chosen))}", None)
        labelled = {"Name": "labelled", "Labels": {"zz": "1"}}
        delete: Step = ("DELETE", "/networks/labelled", None)
        yield f"prune {chosen}", [("POST", "/networks/create", labelled), prune, delete]


# -- answers -------------------------------------------------------------------------------------


def play(api: Api, steps: list[Step]) -> list[list[Any]]:
    """What is answered to each step: the status, and what can be compared of the rest."""
    return [_reduced(method, *api(method, path, body)) for method, path, body in steps]


_ID = re.compile(r"\b[0-9a-f]{64}\b|\b[0-9a-f]{12}\b")
_ASKED = ("10.81.0.50", "10.81.0.51")
_CHOSEN = ("172.", "192.168.", "fd")  # subnets that nobody asked for, apart from fd00:


def _reduced(method: str, status: int, body: Any) -> list[Any]:
    if status >= 400:
        return [status, _ID.sub("ID", body["message"]).strip()]
    if isinstance(body, list):
        return [status, sorted(item["Name"] for item in body)]
    if method == "GET" and "NetworkSettings" in body:
        return [status, _container(body)]
    if method == "GET" and "IPAM" in body:
        return [status, _network(body)]
    body = body if isinstance(body, dict) else {}
    return [status, body.get("Warnings") or body.get("Warning") or body.get("NetworksDeleted")]


def _container(body: dict[str, Any]) -> dict[str, Any]:
    networks = {name: _endpoint(settings) for name, settings in body["NetworkSettings"]["Networks"].items()}
    mode, address = body["HostConfig"]["NetworkMode"], body["Config"].get("MacAddress") or ""
    return {"mode": _ID.sub("ID", mode), "mac": address, "networks": networks}


def _endpoint(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that differ from none; addresses and ids that nobody asked for are alike."""
    shown = {}
    for name, value in sorted(settings.items()):
        if not value:
            continue
        if name == "MacAddress":
            value = value if value.lower().startswith(("02:00:00", "02-00", "0200", "01:")) else "chosen"
        elif name.endswith(("Address", "Gateway")):
            value = value if value in _ASKED else "chosen"
        elif name.endswith("Len"):
            value = "chosen"
        elif name.endswith("ID"):
            value = "ID"
        elif name in ("DNSNames", "Aliases"):
            value = sorted(_ID.sub("ID", item) for item in value)
        shown[name] = value
    return shown


def _network(body: dict[str, Any]) -> dict[str, Any]:
    shown = {name: value for name, value in body.items() if name not in ("Id", "Created")}
    shown["Containers"] = sorted(one["Name"] for one in (body["Containers"] or {}).values())
    shown["Options"] = {name: value for name, value in body["Options"].items() if name != _BRIDGE + "name"}
    for config in shown["IPAM"]["Config"] or ():
        if config["Subnet"].startswith(_CHOSEN) and not config["Subnet"].startswith("fd00:"):
            config.update(Subnet="chosen", Gateway="chosen")
    return shown


def record(api: Api) -> None:
    """Write down how a dockerd answers."""
    build(api)
    found = {name: play(api, steps) for name, steps in rows()}
    clear(api)
    kept = {name: answers for name, answers in found.items() if all(answer[0] for answer in answers)}
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(answers)}" for name, answers in kept.items())
    RECORDED.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
