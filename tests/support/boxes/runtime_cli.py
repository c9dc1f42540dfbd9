"""The runtime's command line, with one bundle."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tests.support.boxes import runtime_box
from tests.support.waiting import patient

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Runtime:
    """The command line with a root and one bundle of its own."""

    def __init__(self, directory: Path, rootfs: Path) -> None:
        self.directory = directory
        self.root = directory / "root"
        self.bundle = directory / "bundle"
        self.bundle.mkdir()
        self.box = runtime_box.Box(directory, rootfs)
        self.document = self.box.spec(["true"])
        self.document["root"] = {"path": str(rootfs), "readonly": True}

    def configure(self, args: list[str], changes: dict[str, Any] | None = None) -> None:
        runtime_box.set_in(self.document, {"process.args": args, **(changes or {})})
        (self.bundle / "config.json").write_text(json.dumps(self.document))

    def __call__(self, *args: str, code: int = 0, **options: Any) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "ketch.runtime.oci_cli.main", "--root", str(self.root), *args]
        done = subprocess.run(command, cwd=self.bundle, capture_output=True, text=True, timeout=patient(15), **options)
        assert done.returncode == code, done.stderr
        return done

    def state(self, name: str) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self("state", name).stdout)
        return document

    def create_detached(self, name: str, output: Path) -> None:
        """create whose stdout is a file: the container keeps it open after create has ended."""
        errors = output.with_suffix(".err")
        with output.open("wb") as out, errors.open("wb") as err:
            command = [sys.executable, "-m", "ketch.runtime.oci_cli.main", "--root", str(self.root), "create", name]
            done = subprocess.run(command, cwd=self.bundle, stdout=out, stderr=err, timeout=patient(15))
        assert done.returncode == 0, errors.read_text()


@contextmanager
def without_trace(runtime: Runtime) -> Iterator[Runtime]:
    """A command line whose containers go at the end; it must leave the host's mounts and cgroups as they were."""
    yield runtime
    for one in json.loads(runtime("list", "-f", "json").stdout):
        runtime("delete", "--force", one["id"])
    runtime.box.close()
    assert runtime_box.host_mounts(runtime.directory) == []
    assert runtime_box.orphaned_cgroups(runtime.box.parent) == []
