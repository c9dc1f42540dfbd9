"""Caches that a build imports: found as its own, recorded when they are loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ketch.build.tree import Tree
from ketch.errors import NotFound
from tests.support.building.memory import MemorySnapshots, World, step

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ketch.build.cache.records import CacheRecords
    from ketch.build.cache.schema import CacheResult
    from ketch.build.operation import Work


class Elsewhere:
    """The cache of another builder."""

    def __init__(self, world: World, here: MemorySnapshots, *, broken: bool = False) -> None:
        self._records: CacheRecords = world.records
        self._texts = dict(world.snapshots.texts)
        self._here = here
        self._broken = broken
        self.asked = 0

    def targets(self, source: str, number: int, step: str, selector: str) -> Sequence[str]:
        return self._records.targets(source, number, step, selector)

    def results(self, key: str) -> Sequence[ImportedText]:
        return [ImportedText(self, one) for one in self._records.results_of(key)]

    def load(self, result: CacheResult, work: Work) -> Tree:
        self.asked += 1
        if self._broken:
            raise NotFound("the blob is gone")
        return Tree(tuple(self._here.make(work.lease, self._texts[layer]) for layer in result.layers))


class ImportedText:
    """A result of it."""

    def __init__(self, cache: Elsewhere, result: CacheResult) -> None:
        self._cache, self._result = cache, result
        self.created = result.created

    async def load(self, work: Work) -> Tree:
        return self._cache.load(self._result, work)


async def test_an_imported_cache(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    there, here = World(tmp_path / "a"), World(tmp_path / "b")
    for world in (there, here):
        world.behaviour.random.add("context")
        world.behaviour.contents.add("copy")
    top = step("run", step("copy", step("base"), step("context")))
    other = step("other", step("copy", step("base"), step("context")))
    expected = await there.build(top)
    cache = Elsewhere(there, here.snapshots)
    assert await here.build(top, imports=[cache]) == expected
    assert here.ran() == ["context"] or sorted(here.ran()) == ["base", "context"]
    assert cache.asked >= 1
    await here.restart()
    here.ran()
    assert await here.build(top) == expected
    assert set(here.ran()) <= {"context"}, "what was loaded is recorded, with the way to it"
    await here.build(other)
    assert "other" in here.ran()
    await there.close()
    await here.close()


async def test_an_imported_cache_without_its_blobs_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    there, here = World(tmp_path / "a"), World(tmp_path / "b")
    top = step("top", step("base"))
    await there.build(top)
    cache = Elsewhere(there, here.snapshots, broken=True)
    assert await here.build(top, imports=[cache]) == "top(base())"
    assert here.ran() == ["base", "top"]
    assert cache.asked == 2
    await there.close()
    await here.close()
