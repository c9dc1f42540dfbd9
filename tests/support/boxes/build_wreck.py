"""A daemon that is made to die at one place of a build after the other, and what has to be true afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sqlite3
from collections import Counter
from typing import TYPE_CHECKING, TypeVar

from tests.support.building.remains import notes, on_disk, until_disk_is, until_nothing_is_half_made
from tests.support.building.whole_build import Built, Steps, Told, WholeBuild, built, steps
from tests.support.engines import Engine
from tests.support.leaks import Census
from tests.support.rawapi import Api
from tests.support.run import session
from tests.support.waiting import patient

if TYPE_CHECKING:
    from collections.abc import Callable


T = TypeVar("T")


class BuildWreck:
    """An engine without images, and one build through both of its ways."""

    def __init__(self, build: WholeBuild, place: str) -> None:
        self.build = build
        self.engine = Engine("ketch", suffix="w")
        self.bare = Census.take(self.engine.name)
        self.api = Api(self.engine.socket)
        self.trace, self.fault = os.path.join(place, "trace"), os.path.join(place, "fault")
        self.engine.settings = {"KETCH_FAULT": f"@{self.fault}", "KETCH_FAULT_TRACE": self.trace}
        self.ways: dict[str, Callable[[], Told]] = {
            "own": lambda: build.own(self.engine),
            "classic": lambda: build.classic(self.engine),
        }
        self.engine.start()
        self.before = Census.take(self.engine.name)
        self.empty = on_disk(self.engine)
        self.clean = True
        self.passed: dict[str, Counter[str]] = {}
        self.passed_by_others: set[str] = set()
        self.whole: dict[str, Built] = {}
        for way in self.ways:
            self._undisturbed(way)

    def _undisturbed(self, way: str) -> None:
        """Build with nobody dying: what is passed by ketchd, and what is built."""
        self.arm("*")
        told = self.ways[way]()
        self.arm("")
        assert (told.status, told.error, told.broken) == (200, "", False), told
        assert self.engine.process is not None
        with open(self.trace, encoding="ascii") as f:
            rows = [line.split() for line in f]
        self.passed[way] = Counter(name for name, pid in rows if int(pid) == self.engine.process.pid)
        self.passed_by_others |= {name for name, pid in rows if int(pid) != self.engine.process.pid}
        self.whole[way] = built(self.engine, self.build.tag)
        assert len(steps(self.engine).ran) >= 8
        self.tidy()

    def begin(self) -> None:
        """Begin with nothing there, also after a case that has failed."""
        if not self.clean:
            self.recover()
            self.tidy()
        self.clean = False

    # -- daemon ------------------------------------------------------------------------------------

    def arm(self, fault: str) -> None:
        """From now on the daemon dies at this point; empty: nowhere; ``*``: it lists what it passes."""
        with open(self.fault + ".new", "w", encoding="ascii") as f:
            f.write(fault)
        os.rename(self.fault + ".new", self.fault)
        if fault:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.trace)

    def killed(self, way: str, point: str) -> Told:
        """Build, and be killed at a point: what the client was told until then."""
        return self.dies(point, self.ways[way])

    def dies(self, point: str, do: Callable[[], T]) -> T:
        """Do something, and be killed at a point: what was answered."""
        self.arm(point)
        told = do()
        assert self.engine.process is not None
        if not os.path.exists(self.trace):
            raise AssertionError(f"the daemon passed {point} and lives: {told}\n{self.engine.log()}")
        assert self.engine.process.wait(patient(20)) == -signal.SIGKILL
        return told

    def recover(self) -> None:
        """Start with nothing armed."""
        self.arm("")
        if self.engine.process is not None:
            self.engine.stop(signal.SIGKILL)
        self.engine.start()

    # -- what must be true -------------------------------------------------------------------------

    def recorded(self) -> set[str]:
        """The steps whose results the database has; all of their layers are there."""
        found = set()
        path = f"file:{self.engine.data_root}/ketch.db?mode=ro"
        with contextlib.closing(sqlite3.connect(path, uri=True)) as db:
            assert db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
            for record in (json.loads(row[0]) for row in db.execute("SELECT record FROM build_results")):
                missing = [one for one in record["layers"] if not os.path.isdir(self._layer(one))]
                assert missing == [], record
                found.add(record["description"])
        return found

    def _layer(self, layer: str) -> str:
        return os.path.join(self.engine.data_root, "layers", layer.removeprefix("sha256:"), "diff")

    def check(self) -> None:
        """Nothing half-made is there: directories under temporary names, commands, mounts, processes; no build runs."""
        until_nothing_is_half_made(self.engine)
        assert [row["status"] for row in self.api.must("GET", "/ketch/builds") if row["status"] == "running"] == []
        left = self.before.leaks(but=("process ",))
        assert left == [], left
        assert not os.path.exists(os.path.join(self.engine.data_root, "lost"))

    def works(self, way: str, known: set[str]) -> None:
        """The same build succeeds, gives the same image, and takes from the cache what was in it."""
        told = self.ways[way]()
        assert (told.status, told.error, told.broken) == (200, "", False), (told, self.engine.log())
        found = steps(self.engine)
        assert found.ran & known == set(), (found, known)
        self._same(way, found)
        assert notes(self.engine) == []

    def _same(self, way: str, found: Steps) -> None:
        image, whole = built(self.engine, self.build.tag), self.whole[way]
        assert image.config == whole.config, found
        assert image.files == whole.files, found
        if way == "own":  # with its times rewritten
            assert image.id == whole.id

    def tidy(self) -> None:
        """Remove images and cache; then nothing is left of the builds."""
        for image in self.api.must("GET", "/images/json", all=1):
            self.api.must("DELETE", f"/images/{image['Id']}", force=1)
        self.api.must("POST", "/build/prune", all=1)
        until_disk_is(self.engine, self.empty)
        shutil.rmtree(os.path.join(self.build.place, "cache"), ignore_errors=True)

    def delete(self) -> list[str]:
        """Remove everything; returns what is left on the machine."""
        self.recover()
        self.engine.delete()
        left = self.bare.leaks()
        if left:
            session.clear(self.engine.name)
        return left
