"""Measurements of the longest wait of others while a hundred thousand files are imported, copied, archived and removed.

A process of its own sends pings to the daemon, one after the other, and keeps the longest wait: each row is the worst
of one operation.  The waits with nothing going on say what the machine itself does to a ping.
"""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import tarfile
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.engines import Engine

LIMIT_MS = 20
FILES = 100_000
_IMAGE = "bench/files"
_SECONDS = 3.0
# The pinger answers to nobody else's lock: no thread, no garbage, real-time priority where that is allowed.
_PINGER = """
import gc, os, socket, sys, time
gc.disable()
try:
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
except PermissionError:
    pass
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
question = b"GET /_ping HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n"
waits = []
print("ready", flush=True)
os.set_blocking(0, False)
while True:
    begin = time.perf_counter()
    s.sendall(question)
    while not s.recv(4096).endswith(b"OK"):
        pass
    waits.append(time.perf_counter() - begin)
    if sys.stdin.buffer.raw.read(1) == b"":  # None: nothing yet
        break
    time.sleep(0.001)
waits.sort()
print(waits[-1], waits[len(waits) * 99 // 100], waits[len(waits) // 2])
"""


class Waits(NamedTuple):
    """Seconds: the longest ping, the 99th of a hundred, and the one in the middle."""

    longest: float
    p99: float
    median: float


@contextlib.contextmanager
def pings(engine: Engine) -> Iterator[Callable[[], Waits]]:
    """Send pings until the function that this gives is called."""
    with subprocess.Popen(
        [sys.executable, "-I", "-c", _PINGER, engine.socket], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == "ready\n"

        def end() -> Waits:
            process.stdin.close()  # type: ignore[union-attr]
            return Waits(*map(float, process.stdout.readline().split()))  # type: ignore[union-attr]

        try:
            yield end
        finally:
            if process.poll() is None:
                process.kill()


def tree(path: str, files: int) -> str:
    """Write a tar with that many small files below ``data``, a hundred in each directory."""
    with open(path, "wb") as f, tarfile.open(fileobj=f, mode="w") as archive:
        for directory in ("data", "bin"):
            info = tarfile.TarInfo(directory)
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(info)
        for number in range(files):
            if number % 100 == 0:
                info = tarfile.TarInfo(f"data/{number // 100}")
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(info)
            info = tarfile.TarInfo(f"data/{number // 100}/file{number}")
            info.size = 16
            archive.addfile(info, io.BytesIO(b"%016d" % number))
    return path


class Operations:
    """The operations in an order in which each finds what it needs; ``root`` is a directory for archives."""

    def __init__(self, root: str, files: int) -> None:
        self.files = files
        self._tar = tree(os.path.join(root, "files.tar"), files)
        self._archive = os.path.join(root, "saved.tar")

    def all(self) -> list[tuple[str, Callable[[Engine], object], Callable[[Engine], object] | None]]:
        """(name, what is measured, what is made ready for it before)."""
        return [
            ("nothing", lambda _: time.sleep(_SECONDS), None),
            ("import", self._import, None),
            ("save", lambda e: e.docker("save", "-o", self._archive, _IMAGE, timeout=600), None),
            ("copy-up into a volume", lambda e: self._create(e, "one", "named:/data"), None),
            ("export", lambda e: e.docker("export", "-o", self._archive + ".export", "one", timeout=600), None),
            ("cp into a container", self._copy_in, None),
            ("ps -s, system df", self._sizes, None),
            ("diff", lambda e: e.docker("diff", "one", timeout=600), None),
            ("commit", lambda e: e.docker("commit", "one", f"{_IMAGE}:committed", timeout=600), None),
            ("rm", lambda e: e.docker("rm", "one", timeout=600), None),
            ("volume rm", lambda e: e.docker("volume", "rm", "named", timeout=600), None),
            ("rm -v", lambda e: e.docker("rm", "-v", "two", timeout=600), lambda e: self._create(e, "two", "/data")),
            ("volume prune", lambda e: e.docker("volume", "prune", "-af", timeout=600), self._unused),
            ("rmi", lambda e: e.docker("rmi", "-f", f"{_IMAGE}:committed", _IMAGE, timeout=600), None),
            ("load", lambda e: e.docker("load", "-i", self._archive, timeout=600), None),
            ("image prune", lambda e: e.docker("image", "prune", "-af", timeout=600), None),
        ]

    def _import(self, engine: Engine) -> None:
        engine.docker("import", "-c", 'CMD ["true"]', self._tar, _IMAGE, timeout=600)

    def _create(self, engine: Engine, name: str, volume: str) -> None:
        engine.docker("create", "--name", name, "-v", volume, _IMAGE, timeout=600)

    def _copy_in(self, engine: Engine) -> None:
        with open(self._tar, "rb") as f:
            engine.docker("cp", "-", "one:/bin", stdin=f.read(), timeout=600)

    def _sizes(self, engine: Engine) -> None:
        engine.docker("ps", "-as", timeout=600)
        engine.docker("system", "df", timeout=600)

    def _unused(self, engine: Engine) -> None:
        self._create(engine, "three", "other:/data")
        engine.docker("rm", "three", timeout=600)


def waits(engine: Engine, operations: Operations) -> Iterator[tuple[str, Waits, float]]:
    """(operation, the waits of pings meanwhile, the seconds that it took), one after the other."""
    for name, work, prepare in operations.all():
        if prepare is not None:
            prepare(engine)
        time.sleep(1)  # what the one before left to do in the background
        with pings(engine) as end:
            begin = time.perf_counter()
            work(engine)
            took = time.perf_counter() - begin
            time.sleep(0.2)
            yield name, end(), took


def longest(engines: list[Engine], root: str, quick: bool) -> Iterator[tuple[str, str, float]]:
    """(row, engine, milliseconds) of the longest ping meanwhile."""
    files = FILES // 10 if quick else FILES
    operations = Operations(root, files)
    for engine in engines:
        for name, found, _ in waits(engine, operations):
            yield f"longest ping, {files:,} files: {name}", engine.kind, found.longest * 1000
