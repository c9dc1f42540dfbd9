"""dockerd's flags and keys of daemon.json: taken, as good as nothing, or refused with a sentence; none is unknown."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess

import pytest

from ketch.daemon.settings import dockerd, load
from ketch.errors import InvalidArgument
from tests.support import peers

HERE = os.path.dirname(__file__)
ROOT = os.path.join(HERE, "..", "..", "..")
with open(os.path.join(HERE, "../../data/dockerd-settings.json"), encoding="utf-8") as f:
    KNOWN: dict[str, dict[str, object]] = json.load(f)
OTHERS = {setting.flag: setting for setting in dockerd.SETTINGS}


def own_flags() -> set[str]:
    """The flags that ketchd's help shows."""
    actions = load.parser()._actions
    shown = (action for action in actions if action.help != argparse.SUPPRESS)
    return {option[2:] for action in shown for option in action.option_strings if option.startswith("--")}


def row(flag: str) -> str:
    """The line of a flag in docs/migrating.md."""
    key = KNOWN[flag]["key"]
    names = f"`--{flag}`" + (f", `{key}`" if key and key != flag else "")
    setting = OTHERS.get(flag)
    if setting is None:
        return f"| {names} | the same | |"
    if setting.accepted == dockerd.ANY:
        return f"| {names} | changes nothing | {setting.reason} |"
    taken = " or ".join(f"`{value}`" for value in setting.accepted)
    return f"| {names} | {f'{taken} alone' if taken else 'refused'} | {setting.reason} |"


def test_the_list_is_dockerds():
    if peers.MISSING:
        pytest.skip(peers.MISSING)
    text = subprocess.run(peers.command("dockerd", "--help"), capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"^ +(?:-\w, )? *--([a-z0-9-]+)", text, re.MULTILINE)) == set(KNOWN)


def test_each_flag_is_known():
    assert set(KNOWN) - own_flags() == set(OTHERS)
    assert {setting.key for setting in dockerd.SETTINGS} == {KNOWN[flag]["key"] for flag in OTHERS}
    assert {flag for flag, setting in OTHERS.items() if setting.switch} == {
        flag for flag in OTHERS if KNOWN[flag]["switch"]
    }


def test_each_key_is_known(tmp_path):
    fields = load.Config.__dataclass_fields__.keys() | {"debug"}
    keys = {str(known["key"]) for flag, known in KNOWN.items() if flag not in OTHERS} - {""}
    assert {key for key in keys if key.replace("-", "_") not in fields} == set()


def test_the_document_has_each():
    with open(os.path.join(ROOT, "docs/migrating.md"), encoding="utf-8") as f:
        text = f.read()
    assert [line for line in text.splitlines() if line.startswith("| `--")] == [row(flag) for flag in sorted(KNOWN)]


@pytest.mark.parametrize("setting", dockerd.SETTINGS, ids=lambda setting: setting.flag)
def test_flags_and_keys_that_ketch_has_not(setting, tmp_path):
    path = tmp_path / "daemon.json"
    path.write_text("{}")
    good = [value for value in setting.accepted if value != "*"] or (["true"] if setting.accepted else [])
    for value in good:
        config = load.load(["--config-file", str(path), f"--{setting.flag}={value}"])
        assert bool(config.notes) == setting.told
        if setting.key:
            path.write_text(json.dumps({setting.key: value == "true" if setting.switch else value}))
            assert bool(load.load(["--config-file", str(path)]).notes) == setting.told
            path.write_text("{}")
    if setting.accepted == dockerd.ANY:
        return
    bad = "false" if "true" in setting.accepted else "true"
    with pytest.raises(InvalidArgument) as refused:
        load.load(["--config-file", str(path), f"--{setting.flag}={bad}"])
    assert refused.value.message == f"--{setting.flag} {bad}: Ketch does not have that"
    assert refused.value.hint == setting.reason
    if setting.key:
        path.write_text(json.dumps({setting.key: bad == "true" if setting.switch else bad}))
        with pytest.raises(InvalidArgument, match="Ketch does not have that"):
            load.load(["--config-file", str(path)])


@pytest.mark.parametrize("empty", ["", [], {}])
def test_keys_without_a_value_are_as_if_they_were_not_there(tmp_path, empty):
    path = tmp_path / "daemon.json"
    path.write_text(json.dumps({setting.key: empty for setting in dockerd.SETTINGS if setting.key}))
    assert load.load(["--config-file", str(path)]).notes == []


def test_options_of_networks_by_driver(tmp_path):
    flags = ["--default-network-opt", "bridge=a=b=c", "--default-network-opt", "macvlan=d="]
    wanted = {"bridge": {"a": "b=c"}, "macvlan": {"d": ""}}
    assert load.load(flags).default_network_opts == wanted
    path = tmp_path / "daemon.json"
    path.write_text(json.dumps({"default-network-opts": wanted, "host-gateway-ips": ["10.0.0.1", "fd00::1"]}))
    config = load.load(["--config-file", str(path)])
    assert (config.default_network_opts, config.host_gateway_ips) == (wanted, ["10.0.0.1", "fd00::1"])


def test_switches_are_written_as_dockers_are():
    for words, wanted in ((["--icc=false"], False), (["--icc"], True), (["--icc", "false"], False)):
        assert load.load(words).icc is wanted
    assert load.load(["--ipv6=true", "--tls=false", "-D"]).log_level == "debug"
    assert load.load(["--live-restore"]).notes == []


@pytest.mark.parametrize(
    ("arguments", "file", "wrong"),
    [
        (["--default-ulimit", "nofile"], {}, "invalid --default-ulimit `nofile`"),
        (["--default-ulimit", "nope=1"], {}, "default-ulimits: invalid ulimit type: nope"),
        (["--default-ulimit", "nofile=2:1"], {}, "ulimit soft limit must be less than or equal to hard limit: 2 > 1"),
        ([], {"default-ulimits": {"nofile": {"Name": "cpu", "Soft": 1, "Hard": 1}}}, "default-ulimits: nofile: not a"),
        ([], {"default-ulimits": {"nofile": 3}}, "default-ulimits: nofile: not a limit"),
        (["--default-shm-size", "big"], {}, "default-shm-size big: not a size"),
        (["--default-ipc-mode", "host"], {}, "IPC is not supported as default value: host"),
        (["--default-cgroupns-mode", "none"], {}, "invalid default cgroup namespace (none)"),
        (["--seccomp-profile", "/none"], {}, "opening seccomp profile (/none) failed: No such file or directory"),
        (["--seccomp-profile", __file__], {}, "Decoding seccomp profile failed"),
        (["--label", "=x"], {}, "bad attribute format: =x"),
        (["--fixed-cidr", "x"], {}, "--fixed-cidr x: "),
        (["--fixed-cidr", "10.1.0.0/16", "--bip", "10.0.0.1/24"], {}, "--fixed-cidr 10.1.0.0/16: not a part of --bip"),
        (["--bip6", "10.0.0.1/8"], {}, "--bip6 10.0.0.1/8: "),
        (["--default-gateway", "10.0.0.9"], {}, "not in the subnet of the default network (none is chosen)"),
        (
            ["--default-gateway", "10.1.0.9", "--bip", "10.0.0.1/24"],
            {},
            "not in the subnet of the default network (10.",
        ),
        (["--default-gateway-v6", "fd01::9", "--bip6", "fd00::1/64"], {}, "--default-gateway-v6 fd01::9: not in"),
        (["--default-network-opt", "bridge=mtu"], {}, "invalid --default-network-opt `bridge=mtu`"),
        ([], {"default-network-opts": {"bridge": {"mtu": 3}}}, "default-network-opts: bridge: not texts by name"),
        (["--host-gateway-ip", "x"], {}, "--host-gateway-ip x: "),
        ([], {"host-gateway-ips": ["10.0.0.1", "10.0.0.2"]}, "10.0.0.1, 10.0.0.2: more than one address of a family"),
        (["--metrics-addr", "9323"], {}, "metrics-addr 9323: not an address"),
        ([], {"metrics-addr": "127.0.0.1:x"}, "metrics-addr 127.0.0.1:x: not an address"),
        ([], {"proxies": {"ftp-proxy": "x"}}, "proxies: unknown keys: ftp-proxy"),
        ([], {"graph": "/x"}, "unknown keys: graph"),
        (
            [],
            {"private": "/x", "repair": True, "prune-lost": True, "notes": [], "cgroup-base": "x"},
            "unknown keys: cg",
        ),
        ([], {"data_root": "/x"}, "unknown keys: data_root"),
        ([], {"log-level": "loud"}, "log-level loud: not a level"),
        ([], {"log-format": "xml"}, "log-format xml: not a format"),
    ],
)
def test_values_that_are_none(tmp_path, arguments, file, wrong):
    path = tmp_path / "daemon.json"
    path.write_text(json.dumps(file))
    with pytest.raises(InvalidArgument, match=re.escape(wrong)):
        load.load(["--config-file", str(path), *arguments])
