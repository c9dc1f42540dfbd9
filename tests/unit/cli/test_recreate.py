"""``inspect --as``: what an image brings is left out, what is left is quoted so that a shell and YAML give it back."""

from __future__ import annotations

import shlex
import subprocess
from typing import Any

import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ketch.cli.commands.containers import exec as exec_
from ketch.cli.options import mount_flags, ports, run_flags, table, value_types
from ketch.cli.output import yaml_text
from ketch.cli.recreate import as_compose, as_run, create_request
from ketch.errors import InvalidArgument

TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=12)
TRICKY = st.sampled_from(
    ["", " ", "no", "Yes", "1", "0x1f", "1:20", "1e3", "null", "~", "-", "- a", "a: b", "a:", "a #b", "#", "'", '"',
     "\\", "%x", "@x", "`x", "{a}", "[a]", "*a", "&a", "!a", "|", ">", "?", ".5", "<<", "=", "a\n b", "\t", "\x85",
     "\u2028", "$HOME", "a b ", "/x:/y:ro", "1.2.3.4:80:80", "2024-01-01", "é", "\U0001f433", "\x7f", "off", "+1",
     ".inf", "12_3"]
)  # fmt: skip
SCALARS = st.one_of(TRICKY, TEXT, st.integers(), st.booleans(), st.none())
DATA = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TRICKY | TEXT, inner, max_size=4),
    max_leaves=12,
)


@given(DATA)
@settings(max_examples=400, deadline=None)
def test_yaml_is_read_back(value):
    assert yaml.safe_load(yaml_text.dump(value)) == value


def test_yaml_is_for_people():
    value = {
        "services": {
            "web": {
                "image": "busybox:1.36",
                "command": ["sh", "-c", "echo a; exit 1"],
                "tty": True,
                "ports": ["8080:80"],
                "labels": {},
            }
        }
    }
    assert yaml_text.dump(value) == (
        'services:\n  web:\n    image: busybox:1.36\n    command:\n      - sh\n      - "-c"\n'
        '      - "echo a; exit 1"\n    tty: true\n    ports:\n      - "8080:80"\n    labels: {}\n'
    )


@given(st.lists(st.one_of(TRICKY, TEXT), min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_a_shell_gives_the_words_back(words):
    script = f"printf '%s\\0' {shlex.join(words)}"
    done = subprocess.run(["sh", "-c", script], capture_output=True, check=True)
    assert done.stdout.split(b"\0")[:-1] == [word.encode() for word in words]


NAMES = st.text("abcd", min_size=1, max_size=2)
ENV = st.lists(st.tuples(NAMES, NAMES).map("=".join), unique_by=lambda item: item.partition("=")[0], max_size=6)


@given(ENV, ENV)
def test_environment_of_the_user_is_found_again(mine, image):
    names = {item.partition("=")[0] for item in mine}
    merged = [*mine, *(item for item in image if item.partition("=")[0] not in names)]
    said = create_request.environment(merged, image)
    kept = {item.partition("=")[0] for item in said}
    assert [*said, *(item for item in image if item.partition("=")[0] not in kept)] == merged
    assert len(said) <= len(mine)


@pytest.mark.parametrize(
    "text",
    [
        "80",
        "8080:80",
        "127.0.0.1:8080:80",
        "127.0.0.1::80",
        "53:53/udp",
        "[::1]:8080:80",
        "[::]::9/sctp",
        "8000-8010:80",
    ],
)
def test_ports(text):
    assert [ports.text_of(port, binding) for port, binding in ports.publish(text)] == [text]


@pytest.mark.parametrize(
    "text",
    [
        "type=bind,source=/a,target=/b,readonly,bind-propagation=rslave",
        "type=bind,source=/a b,target=/b,bind-recursive=disabled",
        "type=bind,source=/a,target=/b,bind-propagation=rprivate,readonly,bind-recursive=readonly",
        "type=bind,source=/a,target=/b,idmap=uids=0-1000-1;gids=0-1000-1",
        'type=volume,"source=a,b",target=/b,volume-nocopy,volume-subpath=x/y,volume-label=k=v',
        "type=volume,target=/b,volume-driver=local,volume-opt=type=tmpfs,volume-opt=device=tmpfs",
        "type=tmpfs,target=/t,tmpfs-size=64m,tmpfs-mode=1777",
        "type=image,source=busybox,target=/i,image-subpath=bin",
    ],
)
def test_mounts(text):
    parsed = mount_flags.parse(text)
    assert mount_flags.parse(mount_flags.text_of(parsed)) == parsed


@pytest.mark.parametrize(
    ("entrypoint", "command", "image", "expected"),
    [
        (None, ["sh"], {"Cmd": ["sh"]}, (None, [])),
        (None, ["ls"], {"Cmd": ["sh"]}, (None, ["ls"])),
        (["e"], ["c"], {"Entrypoint": ["e"], "Cmd": ["c"]}, (None, [])),
        (["e"], None, {"Entrypoint": ["e"], "Cmd": ["c"]}, (["e"], [])),
        (["e"], ["x"], {"Entrypoint": ["e"], "Cmd": ["c"]}, (None, ["x"])),
        (None, ["x"], {"Entrypoint": ["e"]}, ([], ["x"])),
        (["f"], ["c"], {"Cmd": ["c"]}, (["f"], ["c"])),
    ],
)
def test_command(entrypoint, command, image, expected):
    assert create_request.command({"Entrypoint": entrypoint, "Cmd": command}, image) == expected


# -- the table of options --------------------------------------------------------------------------------------------

WORD = st.text("abc-_:=, '\"$", min_size=1, max_size=6)
NAME = st.from_regex(r"[a-z][a-z0-9]{0,5}", fullmatch=True)
COUNT = st.integers(1, 1 << 30).map(str)
ADDRESS = st.sampled_from(["10.0.0.1", "192.168.7.9", "fe80::1", "::1"])
PORT = st.integers(1, 65535).map(str)
DEVICE = st.sampled_from(["/dev/null", "/dev/sda", "/dev/zero:/dev/nothing:r", "/dev/null:rw"])
DEVICE_LIMIT = st.tuples(st.sampled_from(["/dev/sda", "/dev/sdb"]), COUNT).map(":".join)
PATH = NAME.map("/{}".format)
SIZE = st.one_of(COUNT, st.integers(1, 4096).map("{}m".format))
TIME = st.one_of(st.integers(1, 10**6).map("{}ms".format), st.integers(1, 999).map("{}s".format))
PAIR = st.tuples(NAME, WORD).map("=".join)
# By type, and for those flags whose values have rules of their own, by flag.
BY_TYPE = {
    value_types.TEXT: NAME,
    value_types.NUMBER: COUNT,
    value_types.COUNT: COUNT,
    value_types.SECONDS: st.integers(0, 99).map(str),
    value_types.SIZE: SIZE,
    value_types.SWAP: st.one_of(SIZE, st.just("-1")),
    value_types.CPUS: st.sampled_from(["0.5", "2", "1.25"]),
    value_types.DURATION: TIME,
    value_types.HEALTH_COMMAND: WORD,
    value_types.WORDS: WORD,
    value_types.PAIRS: PAIR,
    value_types.RESTART: st.sampled_from(["always", "unless-stopped", "on-failure", "on-failure:3"]),
    value_types.CAPABILITIES: st.sampled_from(["chown", "CAP_NET_ADMIN", "ALL"]),
    value_types.EXTRA_HOSTS: st.tuples(NAME, ADDRESS).map(":".join),
    value_types.SECURITY: st.sampled_from(["no-new-privileges", "seccomp=unconfined", value_types.UNMASKED]),
    value_types.TMPFS: st.one_of(PATH, PATH.map("{}:size=1m,mode=700".format)),
    value_types.ULIMITS: st.sampled_from(["nofile=10", "nofile=10:20", "core=-1:-1"]),
    value_types.DEVICES: DEVICE,
    value_types.DEVICE_LIMITS: DEVICE_LIMIT,
    value_types.MOUNTS: st.sampled_from(["type=bind,source=/a,target=/b,ro", "type=tmpfs,target=/t,tmpfs-size=1m"]),
}
BY_FLAG = {
    "attach": st.sampled_from(["stdin", "stdout", "stderr"]),
    "env": PAIR,
    "label": PAIR,
    "log-opt": PAIR,
    "publish": st.one_of(PORT, st.tuples(st.just("127.0.0.1"), PORT, PORT).map(":".join)),
    "expose": PORT,
    "network": st.sampled_from(["back", "host", "none", "container:x", "name=back,alias=x,gw-priority=2"]),
    "ip": st.just("10.0.0.9"),
    "ip6": st.just("fe80::9"),
    "dns": ADDRESS,
    "sysctl": st.just("net.ipv4.ip_forward=1"),
    "network-alias": NAME,
    "link-local-ip": st.just("169.254.1.1"),
    "link": NAME,
    "mac-address": st.just("02::07"),
    "cgroupns": st.just("host"),
    "ipc": st.sampled_from(["none", "host", "container:x"]),
    "uts": st.just("host"),
    "pid": st.sampled_from(["host", "container:x"]),
    "userns": st.just("host"),
    "pull": st.just("never"),
    "memory-swappiness": st.integers(0, 100).map(str),
    "volumes-from": NAME,
    "oom-score-adj": st.just("-5"),
    "volume": st.one_of(PATH, st.tuples(PATH, PATH).map(":".join), st.tuples(NAME, PATH, st.just("ro")).map(":".join)),
    "log-driver": st.sampled_from(["local", "none"]),
    "entrypoint": st.one_of(st.just(""), NAME),
}
# Those of which a container says nothing, or not the same: where its files came from, who asked for it, and how.
UNSAID = (
    "detach-keys",
    "platform",
    "pull",
    "quiet",
    "cidfile",
    "disable-content-trust",
    "env-file",
    "label-file",
    "secret",
    "gpus",
    "detach",
    "name",
    "net",
)
ROWS = [option for option in table.OPTIONS if option.flag not in UNSAID and "create" in option.commands]


@st.composite
def command_lines(draw) -> list[str]:
    """Flags and values that do not contradict each other."""
    words: list[str] = []
    for option in draw(st.lists(st.sampled_from(ROWS), unique_by=lambda option: option.flag, max_size=12)):
        if option.type == value_types.SWITCH:
            words.append(f"--{option.flag}" + draw(st.sampled_from(["", "=false"])))
            continue
        values = BY_FLAG[option.flag] if option.flag in BY_FLAG else BY_TYPE[option.type]
        many = option.type.parser == "list" and option.flag != "network"
        for value in draw(st.lists(values, min_size=1, max_size=3 if many else 1, unique=True)):
            words += [f"--{option.flag}", value]
    return words


def body_of(words: list[str]) -> dict[str, Any]:
    opts, rest = run_flags.flag_set("create", "").parse(words)
    return run_flags.body(opts, rest[0], rest[1:])


def answer_for(body: dict[str, Any]) -> dict[str, Any]:
    """What a daemon says of a container that was made so, as far as it matters here."""
    config = {key: value for key, value in body.items() if key not in ("HostConfig", "NetworkingConfig")}
    asked = {body["HostConfig"]["NetworkMode"]: {}} | body["NetworkingConfig"]["EndpointsConfig"]
    networks = {"bridge" if name == "default" else name: settings for name, settings in asked.items()}
    if address := asked[body["HostConfig"]["NetworkMode"]].get("MacAddress"):
        config["MacAddress"] = address
    config |= {"AttachStdout": True, "AttachStderr": True, "AttachStdin": bool(body.get("OpenStdin"))}
    return {
        "Name": "/box",
        "Id": "f" * 64,
        "Config": config,
        "HostConfig": body["HostConfig"],
        "NetworkSettings": {"Networks": networks},
    }


def comparable(body: dict[str, Any]) -> dict[str, Any]:
    """Without the ways in which the same can be said: the order of labels, and a network by its other name."""
    host = {**body["HostConfig"]}
    if host["NetworkMode"] in ("host", "none") or host["NetworkMode"].startswith("container:"):
        body = {**body, "NetworkingConfig": {}}  # nothing that is said of an address there reaches the container
    if host["Privileged"]:  # has no masked paths anyway
        host.pop("MaskedPaths", None)
        host.pop("ReadonlyPaths", None)
    if host.get("UTSMode") == "host" or host.get("NetworkMode", "").startswith("container:"):
        body = {
            key: value for key, value in body.items() if key not in ("Hostname", "Domainname")
        }  # refused by daemons
    if host.get("Memory") and host.get("MemorySwap") == 2 * host["Memory"]:
        del host["MemorySwap"]  # what it is without being asked for
    if host.get("ShmSize") == 64 << 20:
        del host["ShmSize"]  # likewise
    if host["LogConfig"] == {"Type": "json-file", "Config": {}}:
        host["LogConfig"]["Type"] = ""
    return {**body, "HostConfig": host}


@given(command_lines())
@settings(max_examples=300, deadline=None)
def test_a_command_line_is_found_again(words):
    try:
        asked = body_of([*words, "busybox", "a b", "-c"])
    except InvalidArgument:
        assume(False)
    request = create_request.CreateRequest(answer_for(asked), {})
    again = as_run.words(request)
    assert again[:2] == ["ketch", "run"]
    assert comparable(body_of(again[2:])) == comparable(asked)


@given(command_lines())
@settings(max_examples=100, deadline=None)
def test_compose_files_say_it_or_it_is_said_that_they_do_not(words):
    try:
        asked = body_of([*words, "busybox"])
    except InvalidArgument:
        assume(False)
    request = create_request.CreateRequest(answer_for(asked), {})
    service = yaml.safe_load(yaml_text.dump(as_compose.document([request])))["services"]["box"]
    left = as_compose.left_out(request, [request])
    for option in table.OPTIONS:
        if option.field in request.fields:
            key = option.service.partition(".")[0]
            assert key in service if key else f"--{option.flag}" in left


def test_the_table_has_each_flag_and_each_field_once():
    flags = [option.flag for option in table.OPTIONS]
    fields = [option.field for option in table.OPTIONS if option.field]
    letters = [option.short for option in table.OPTIONS if option.short]
    for names in (flags, fields, letters):
        assert len(set(names)) == len(names)
    assert all(option.help for option in table.OPTIONS)
    assert all(option.flag in BY_FLAG or option.type in BY_TYPE or option.type == value_types.SWITCH for option in ROWS)


def test_exec_has_the_flags_of_run_under_the_same_letters():
    rows = {option.flag: (option.short, option.type.parser) for option in table.OPTIONS}
    mine = {flag.name: (flag.short, flag.kind) for flag in exec_.flag_set()._flags.values()}
    assert mine and mine.items() <= rows.items()
