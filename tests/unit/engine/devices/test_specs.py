"""Specifications of devices as vendors' tools leave them, or half of them: the others count."""

from __future__ import annotations

import json
import os

import pytest

from ketch.engine.devices import specs


def of_device(members: str) -> str:
    edits = f'{{"deviceNodes": [{{{members}}}]}}'
    return f'{{"cdiVersion": "0.6.0", "kind": "v/c", "devices": [{{"name": "0", "containerEdits": {edits}}}]}}'


GOOD = json.dumps({"cdiVersion": "0.6.0", "kind": "vendor.com/class", "devices": [{"name": "0"}]})


def test_what_is_no_file(tmp_path):
    """A pipe would be waited for by everybody who asks the daemon anything."""
    (tmp_path / "good.json").write_text(GOOD)
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "directory.json").mkdir()
    (tmp_path / "link.yaml").symlink_to("link.yaml")
    found = specs.find([str(tmp_path)])
    assert list(found.devices) == ["vendor.com/class=0"]
    assert len(found.errors) == 3, found.errors


@pytest.mark.parametrize("name", ["x" * 300, "closed"])
def test_a_directory_that_cannot_be_read(tmp_path, name):
    """As one of root's that is not for users; those after it are read."""
    if name == "closed":
        if os.geteuid() == 0:
            pytest.skip("root reads every directory")
        (tmp_path / name).mkdir(mode=0)
    (tmp_path / "good.json").write_text(GOOD)
    found = specs.find([str(tmp_path / name), str(tmp_path)])
    assert list(found.devices) == ["vendor.com/class=0"]
    assert name in found.errors[0]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.json", "[" * 100_000),
        ("x.yaml", "- " * 3000 + "x"),
        ("x.yaml", "&a\ncdiVersion: '0.6.0'\nkind: v/c\ndevices: [*a]\n"),
        ("x.yaml", "!!python/object/apply:os.system ['true']"),
        ("x.json", GOOD.replace('"0"', "9" * 5000)),
        ("x.json", "\x00"),
        ("x.json", of_device('"path": "/dev/\\u0000"')),
        ("x.json", of_device('"path": "/dev/\\ud800"')),
        ("x.json", of_device('"path": "/dev/x", "type": "z"')),
        ("x.json", of_device('"path": "/dev/x", "type": "c", "major": -1, "minor": 0')),
        ("x.json", of_device('"path": "/dev/x", "type": "c", "major": 1, "minor": 99999999999999999999')),
        ("x.json", of_device('"path": "/dev/x", "uid": -1')),
        ("x.yaml", f"cdiVersion: '0.6.0'\nkind: v/c\ndevices: [{{name: x}}]\n#{'x' * (8 << 20)}"),
    ],
)
def test_broken_files(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    (tmp_path / "good.json").write_text(GOOD)
    found = specs.find([str(tmp_path)])
    assert list(found.devices) == ["vendor.com/class=0"]
    assert len(found.errors) == 1
