"""``inspect --as``: what an image brings is left out, what is left is quoted so that a shell and YAML give it back."""

from __future__ import annotations

import shlex
import subprocess

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ketch.cli.options import mount_flags
from ketch.cli.options.run_flags import publish
from ketch.cli.output import yaml_text
from ketch.cli.recreate import as_run, configuration

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
    value = {"services": {"web": {"image": "busybox:1.36", "command": ["sh", "-c", "echo a; exit 1"], "tty": True,
                                  "ports": ["8080:80"], "labels": {}}}}  # fmt: skip
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
    said = configuration.environment(merged, image)
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
    assert [configuration.published(port, binding) for port, binding in publish(text)] == [text]


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
    assert mount_flags.parse(as_run.mount_value(parsed)) == parsed


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
    assert configuration._command({"Entrypoint": entrypoint, "Cmd": command}, image) == expected
