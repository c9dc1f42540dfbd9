"""Bundles with texts that no system call takes, or that are no JSON: `ketch-runtime` says which, and where."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.boxes import runtime_box
from tests.support.boxes.runtime_cli import Runtime
from tests.support.waiting import patient

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    one = Runtime(tmp_path, runtime_box.make_rootfs(tmp_path / "image"))
    yield one
    one.box.close()


@pytest.mark.parametrize(
    ("where", "change"),
    [
        ("process.args[1]", {"process.args": ["echo", "a\0b"]}),
        ("process.env[0]", {"process.env": ["A=\0"]}),
        ("process.cwd", {"process.cwd": "/\0"}),
        ("hostname", {"hostname": "a\0b"}),
        ("domainname", {"domainname": "a\0b"}),
        ("root.path", {"root.path": "/\0"}),
        ("mounts[0].destination", {"mounts": [{"destination": "/a\0b", "type": "tmpfs", "source": "tmpfs"}]}),
        ("mounts[0].source", {"mounts": [{"destination": "/a", "type": "bind", "source": "/a\0b"}]}),
        ("mounts[0].options[0]", {"mounts": [{"destination": "/a", "type": "tmpfs", "options": ["mode=7\0"]}]}),
        ("linux.cgroupsPath", {"linux.cgroupsPath": "/a\0b"}),
        ("a name in linux.sysctl", {"linux.sysctl": {"net\0": "1"}}),
    ],
)
@pytest.mark.parametrize(("bad", "why"), [("\0", "a NUL byte"), ("\ud83d", "half a character")], ids=["nul", "half"])
def test_texts_that_no_system_call_takes(runtime: Runtime, where: str, change: dict[str, Any], bad: str, why: str):
    runtime.configure(["true"], json.loads(json.dumps(change).replace("\\u0000", json.dumps(bad)[1:-1])))
    for verb in ("run", "create"):
        said = runtime(verb, "x", code=1).stderr
        assert f"{where} has {why}" in said
        assert "Traceback" not in said


def test_texts_that_only_look_so(runtime: Runtime, tmp_path: Path) -> None:
    """A backslash is a character, and so is each byte that is no UTF-8, as Python writes it."""
    runtime.configure(["printf", "%s", "\\u0000\\ud83d\udcff\U0001f600"])
    with (tmp_path / "out").open("wb") as out:
        command = [sys.executable, "-m", "ketch.runtime.oci_cli.main", "--root", str(runtime.root), "run", "x"]
        subprocess.run(command, cwd=runtime.bundle, stdout=out, timeout=patient(15), check=True)
    assert (tmp_path / "out").read_bytes() == b"\\u0000\\ud83d\xff" + "\U0001f600".encode()


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "\xff"], ids=["cut", "deep", "latin"])
def test_broken_documents(runtime: Runtime, text: str) -> None:
    (runtime.bundle / "config.json").write_text(text, encoding="latin-1")
    said = runtime("run", "x", code=1).stderr
    assert "config.json" in said
    assert "Traceback" not in said
