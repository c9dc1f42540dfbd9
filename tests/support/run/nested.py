"""Engines in containers of another engine: of the machine's programs and the sources that are tested, with no image.

Each container is an inner engine's place; `Nest` runs shell scripts there, as `docker exec` does.
"""

from __future__ import annotations

import io
import os
import sys
import sysconfig
import tarfile
from typing import TYPE_CHECKING

from tests.support.run import unprivileged
from tests.support.source.project import ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.support.engines import Engine, Result

IMAGE = "nest"
_LINKS = ("bin", "sbin", "lib", "lib32", "lib64")
_PYTHON = f"/opt/python/bin/python{sys.version_info.major}.{sys.version_info.minor}"
_ENVIRONMENT = {
    "HOME": "/tmp",  # of each user
    "PATH": "/opt/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "PYTHONPATH": "/opt/src:/opt/packages",
    "PYTHONDONTWRITEBYTECODE": "1",
    "LD_LIBRARY_PATH": "/opt/python/lib",  # where the interpreter's own library may be
}
# The same places one level further in.
INNER = ["-v", "/usr:/usr:ro", "-v", "/opt:/opt:ro", *(f"-e{name}={value}" for name, value in _ENVIRONMENT.items())]
_START = """
setsid ketchd %s --pidfile /run/ketchd-$(id -u).pid >/tmp/ketchd-$(id -u).log 2>&1 </dev/null & ketchd=$!
until ketch version >/dev/null 2>&1; do
    kill -0 $ketchd || { cat /tmp/ketchd-$(id -u).log; exit 1; }
    sleep 0.1
done
"""


def image_tar() -> bytes:
    """A root of nothing but a layout, in which the machine's /usr is mounted, and the two commands."""
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as tar:
        for name in ("usr", "etc", "root", "run", "tmp", "var", "var/lib", "var/log", "opt", "opt/bin"):
            _add(tar, name, tarfile.DIRTYPE, mode=0o1777 if name in ("tmp", "run") else 0o755)
        for name in (*_LINKS, "var/run"):
            _add(tar, name, tarfile.SYMTYPE, link="../run" if name == "var/run" else f"usr/{name}")
        for name in ("ketch", "ketchd"):
            text = f'#!/bin/sh\nexec {_PYTHON} -c "from ketch.entry import {name}; {name}()" "$@"\n'
            _add(tar, f"opt/bin/{name}", tarfile.REGTYPE, text.encode(), mode=0o755)
        _add(tar, "etc/passwd", tarfile.REGTYPE, b"root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/tmp:/bin/sh\n")
        _add(tar, "etc/group", tarfile.REGTYPE, b"root:x:0:\nuser:x:1000:\n")
    return output.getvalue()


def _add(tar: tarfile.TarFile, name: str, kind: bytes, data: bytes = b"", *, mode: int = 0o644, link: str = "") -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.linkname, entry.size = kind, mode, link, len(data)
    tar.addfile(entry, io.BytesIO(data))


def _binds(engine: Engine) -> list[str]:
    if engine.user is not None:
        places = [f"{unprivileged.PLACE}/{name}" for name in ("python", "source", "packages")]
    else:
        places = [sys.base_prefix, f"{ROOT}/src", sysconfig.get_paths()["purelib"]]
    found = ["-v", "/usr:/usr:ro"]
    for source, name in zip(places, ("python", "src", "packages"), strict=True):
        found += ["-v", f"{source}:/opt/{name}:ro"]
    return found


class Nest:
    """A container with the programs of an engine, which `start` starts."""

    def __init__(self, engine: Engine, *options: str, command: Sequence[str] = ("sleep", "10000")) -> None:
        if not engine.docker("images", "-q", IMAGE).out:
            engine.docker("import", "-", IMAGE, stdin=image_tar())
        variables = [f"-e{name}={value}" for name, value in _ENVIRONMENT.items()]
        run = ("run", "-d", *_binds(engine), *variables, *options, IMAGE, *command)
        self.engine = engine
        self.id = engine.docker(*run).out.strip()

    def __call__(self, script: str, *, check: bool = True, stdin: bytes = b"", user: str = "0") -> Result:
        """Run a script of the shell to its end."""
        return self.engine.docker(
            "exec", "-i", "-u", user, self.id, "sh", "-c", script, check=check, stdin=stdin, timeout=60
        )

    def start(self, *flags: str, user: str = "0", load: bool = True) -> None:
        """Start ketchd, and ``load`` busybox."""
        self(_START % " ".join(flags), user=user)
        if not load:
            return
        archive = f"{self.engine.root}/busybox.tar"
        if not os.path.exists(archive):
            self.engine.docker("save", "-o", archive, "busybox")
        with open(archive, "rb") as f:
            self("ketch load -q", stdin=f.read(), user=user)

    def remove(self) -> None:
        """Remove the container, with its volumes."""
        self.engine.docker("rm", "-fv", self.id)
