"""The build cache: what its rows say, what prunes remove, what is left when the disk or the daemon fails."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import msgspec
import pytest

from ketch.build.cache import writer
from ketch.build.cache.pruning import policy
from ketch.build.cache.pruning.keeper import CacheKeeper, CacheStores
from ketch.build.cache.pruning.policy import CollectionRule, CollectionSettings, PruneOptions
from ketch.build.cache.pruning.usage import UsageRow
from ketch.build.cache.records import CacheRecords, KeyFacts
from ketch.build.cache.schema import SCHEMA, result_id
from ketch.build.errors import SolveError
from ketch.build.providers import KeptRecord
from ketch.build.tree import Tree
from ketch.errors import InvalidArgument, KetchError
from ketch.storage.contexts.copies import ContextCopies, KeptCopy
from ketch.storage.database.db import Database
from tests.support.building.memory import World, step, until
from tests.support.source.project import ROOT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    yield made
    await made.close()
    assert not made.snapshots.held()
    assert set(made.snapshots.texts) == made.records.layers(), "nothing is left but what the cache needs"


def keeper(world: World, rules: list[PruneOptions] | None = None) -> CacheKeeper:
    stores = CacheStores(
        records=world.records,
        snapshots=world.snapshots,
        image_layers=lambda: world.in_images,
        disk="/",
    )
    return CacheKeeper(stores, rules or [])


async def test_usage_and_prune(world: World) -> None:
    await world.build(step("top", step("base")))
    kept = keeper(world)
    rows = {row.description: row for row in await kept.usage()}
    assert set(rows) == {"top", "base"}
    assert rows["top"].size == len("top(base())")
    assert rows["top"].usage_count == 1
    assert not rows["top"].shared and not rows["top"].in_use
    world.in_images = {one for one, text in world.snapshots.texts.items() if text == "base()"}
    assert await kept.prune(PruneOptions(fields={"description": "nobody"})) == []
    assert [row.description for row in await kept.prune(PruneOptions())] == ["top"], "what images need stays"
    assert [row.description for row in await kept.prune(PruneOptions(everything=True))] == ["base"]
    assert world.records.all_keys() == []
    assert world.snapshots.texts == {}
    await world.restart()
    assert world.records.results() == []
    world.ran()
    await world.build(step("top", step("base")))
    assert world.ran() == ["base", "top"]


async def test_what_is_left_when_intermediate_results_go(world: World) -> None:
    top = step("c", step("b", step("a")))
    await world.build(top)
    world.ran()
    assert len(await keeper(world).prune(PruneOptions(fields={"description": "b"}))) == 1
    await world.build(top)
    assert world.ran() == [], "the way to the last result is still known"
    await keeper(world).prune(PruneOptions(fields={"description": "c"}))
    assert {key.name for key in world.records.all_keys()} == {"a"}, "keys that lead to nothing are gone"
    await world.restart()
    assert {key.name for key in world.records.all_keys()} == {"a"}
    await world.build(top)
    assert world.ran() == ["b", "c"]


async def test_limits_of_space(world: World) -> None:
    for name in ("x" * 100, "y" * 100, "z" * 100):
        await world.build(step(name))
    await world.build(step("x" * 100))
    removed = await keeper(world).prune(PruneOptions(max_used_space=250))
    assert [row.description[0] for row in removed] == ["y"], "the one that was used least goes first"
    assert await keeper(world).prune(PruneOptions(max_used_space=250)) == []
    assert len(await keeper(world).prune(PruneOptions())) == 2


async def test_layers_that_do_not_reach_the_disk_are_not_recorded(world: World) -> None:
    world.snapshots.fail_sync = True
    assert await world.build(step("top", step("base"))) == "top(base())"
    assert world.records.results() == []
    assert world.snapshots.texts == {}
    world.snapshots.fail_sync = False
    await world.build(step("top", step("base")))
    assert len(world.records.results()) == 2
    assert set().union(*world.snapshots.synced) == set(world.snapshots.texts)


def row(**fields: object) -> UsageRow:
    return UsageRow(**{"id": "abc", "kind": "regular", "description": "RUN make", **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "filters,matching,other",
    [
        ({"id": ["^a"]}, row(), row(id="b")),
        ({"type": ["regular"]}, row(), row(kind="source.local")),
        ({"description": ["RUN make"]}, row(), row(description="RUN")),
        ({"parent": ["p"]}, row(parents=["p"]), row(parents=["q"])),
        ({"private": []}, row(), None),
        ({"label": ["x", "y"]}, row(), None),
        ({"label!": ["x"]}, row(), None),
        ({"shared": ["false"]}, row(), None),
        ({"until": ["24h"]}, row(last_used=1), row(last_used=10**20)),
        ({"unused-for": ["24h"]}, row(last_used=1), row(last_used=10**20)),
        ({}, row(), row(in_use=True)),
        ({}, row(), row(shared=True)),
        ({}, row(), row(kind="internal")),
    ],
)
def test_filters(filters: dict[str, list[str]], matching: UsageRow, other: UsageRow | None) -> None:
    now = 10**20
    options = policy.parse(filters, now)
    assert policy.matches(matching, options, now)
    assert other is None or not policy.matches(other, options, now)


@pytest.mark.parametrize(
    "filters,message",
    [
        ({"mutable": ["x"]}, "failed to prune build cache: invalid filter 'mutable'"),
        (
            {"until": ["1h"], "unused-for": ["1h"]},
            'failed to prune build cache: conflicting filters: "until" and "unused-for"',
        ),
        ({"until": ["1h", "2h"]}, "failed to prune build cache: filters expect only one value"),
        (
            {"until": ["soon"]},
            "failed to prune build cache: \"until\" filter expects a duration (e.g., '24h') or a timestamp: "
            'failed to parse value as time or duration: "soon"',
        ),
    ],
)
def test_filters_that_are_refused(filters: dict[str, list[str]], message: str) -> None:
    """In dockerd's words."""
    with pytest.raises(InvalidArgument) as caught:
        policy.parse(filters, 0)
    assert caught.value.message == message


@pytest.mark.parametrize(
    "options,total,free,kept",
    [
        (PruneOptions(), 100, 0, 0),
        (PruneOptions(max_used_space=50), 100, 0, 50),
        (PruneOptions(min_free_space=30), 100, 10, 80),
        (PruneOptions(min_free_space=30), 100, 40, 100),
        (PruneOptions(max_used_space=70, min_free_space=30), 100, 10, 70),
        (PruneOptions(max_used_space=90, min_free_space=30), 100, 10, 80),
        (PruneOptions(reserved_space=95, max_used_space=90, min_free_space=30), 100, 10, 95),
    ],
)
def test_what_is_kept(options: PruneOptions, total: int, free: int, kept: int) -> None:
    assert policy.kept_bytes(total, free, options) == kept


def test_rules_of_daemon_json() -> None:
    assert policy.rules(CollectionSettings(enabled=False), 10**12) == []
    first, second, third, last = policy.rules(CollectionSettings(default_keep_storage="10GB"), 10**12)
    assert first.kinds == ("source.local", "exec.cachemount", "source.git.checkout")
    assert first.keep_ns == 48 * 3600 * 10**9
    assert second.keep_ns == 60 * 24 * 3600 * 10**9
    assert third.reserved_space == 10 << 30
    of_dockerd = policy.rules(CollectionSettings(), 270_553_174_016)  # the disk for which dockerd 28.5.2 listed these
    assert [one.max_used_space for one in of_dockerd] == [3_592_570_859, *[202 * 10**9] * 3]
    assert [one.reserved_space for one in of_dockerd] == [0, *[26 * 10**9] * 3]
    assert of_dockerd[3].min_free_space == 51 * 10**9
    assert last.everything
    own = CollectionSettings(policy=(CollectionRule(keep_storage="1GB", filter=("unused-for=2h", "type==regular")),))
    assert policy.rules(own, 0) == [
        PruneOptions(fields={"type": "regular"}, keep_ns=2 * 3600 * 10**9, reserved_space=1 << 30)
    ]
    for form in (["unused-for=2h", "type==regular"], {"unused-for": {"2h": True}, "type": {"regular": True}}):
        read = msgspec.convert({"policy": [{"keepStorage": "1GB", "filter": form}]}, CollectionSettings)
        assert policy.rules(read, 0) == policy.rules(own, 0)
    raw = {"policy": [{"keepStorage": "1GB", "filter": ["unused-for=2h", "type==regular"]}]}
    assert msgspec.convert(raw, CollectionSettings) == own
    with pytest.raises(InvalidArgument, match="no size"):
        policy.rules(CollectionSettings(default_keep_storage="much"), 0)


@pytest.mark.parametrize("point,recorded", [("build.cache-layers-synced", 0), ("build.cache-written", 1)])
def test_the_daemon_is_killed_while_it_writes(tmp_path: Path, point: str, recorded: int) -> None:
    program = "\n".join(
        (
            "import asyncio, sys",
            "from pathlib import Path",
            "from tests.support.building.memory import World, step, until",
            "asyncio.run(World(Path(sys.argv[1])).build(step('a')))",
        )
    )
    environment = {**os.environ, "KETCH_FAULT": point, "PYTHONPATH": ROOT}
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    db = Database(str(tmp_path / "ketch.db"), (SCHEMA,))
    try:
        records = CacheRecords(db)
        assert len(records.results()) == len(records.all_keys()) == recorded
        assert {len(key.results) for key in records.all_keys()} <= {1}
    finally:
        db.close()


def test_rows_that_cannot_be_read_or_lead_nowhere_are_left_out(tmp_path: Path) -> None:
    db = Database(str(tmp_path / "ketch.db"), (SCHEMA,))
    records = CacheRecords(db)
    facts = KeyFacts(id="sha256:1", step="sha256:1")
    records.add(facts, Tree(("built-1",)), description="one", kind="regular")
    records.add(KeyFacts(id="sha256:2", step="sha256:2"), Tree(("built-2",)), description="two", kind="regular")
    records.flush(lambda _layers: None, lambda _layer: 1)
    with db.transaction() as tx:
        tx.execute("UPDATE build_results SET record = x'00' WHERE id = ?", (result_id(["built-1"]),))
        tx.execute("INSERT INTO build_keys VALUES ('sha256:3', ?)", (b'{"schema":1,"id":"sha256:3","step":"x"}',))
    read = CacheRecords(db)
    assert [one.description for one in read.results()] == ["two"]
    assert [key.id for key in read.all_keys()] == ["sha256:2"]
    assert read.layers() == {"built-2"}
    read.flush(lambda _layers: None, lambda _layer: 1)
    assert len(db.query("SELECT * FROM build_keys")) == len(db.query("SELECT * FROM build_results")) == 1
    db.close()


async def test_what_others_stand_on_goes_after_them(world: World) -> None:
    world.behaviour.stacked.update(("b", "c"))
    await world.build(step("c", step("b", step("a"))))
    kept = keeper(world)
    assert await kept.prune(PruneOptions(fields={"description": "a"})) == []
    assert [row.description for row in await kept.prune(PruneOptions(max_used_space=5))] == ["c", "b"]
    assert [row.description for row in await kept.prune(PruneOptions())] == ["a"]


async def test_what_a_build_uses_stays(world: World) -> None:
    await world.build(step("a"))
    gate = world.behaviour.gates["b"] = asyncio.Event()
    build = asyncio.create_task(world.build(step("b", step("a"))))
    await until(lambda: "b" in world.behaviour.ran)
    assert [row.in_use for row in await keeper(world).usage()] == [True]
    assert await keeper(world).prune(PruneOptions(everything=True)) == []
    gate.set()
    assert await build == "b(a())"
    assert len(await keeper(world).prune(PruneOptions())) == 2


async def test_copies_and_cache_mounts_have_rows(world: World, tmp_path: Path) -> None:
    copies = ContextCopies(str(tmp_path / "contexts"))
    with world.snapshots.lease() as lease:
        layer = world.snapshots.make(lease, "context")
        copies.keep(KeptCopy(layer=layer, place="1:2", taken_ns=1), "all", [])
        world.snapshots.needed = lambda: world.records.layers() | copies.layers()
    mounts = Mounts()
    stores = CacheStores(
        records=world.records, snapshots=world.snapshots, image_layers=set, disk="/", kept=[mounts], copies=copies
    )
    kept = CacheKeeper(stores)
    rows = {row.kind: row for row in await kept.usage()}
    assert set(rows) == {"source.local", "exec.cachemount"}
    assert rows["source.local"].size == len("context")
    assert rows["source.local"].last_used > 0
    assert rows["exec.cachemount"].size == 7
    recently = PruneOptions(kinds=("source.local",), keep_ns=10**9 * 3600)
    assert await kept.prune(recently) == []
    assert {row.kind for row in await kept.prune(PruneOptions())} == set(rows)
    assert copies.layers() == set() == set(mounts.names)
    assert layer not in world.snapshots.texts
    world.snapshots.needed = world.records.layers


class Mounts:
    """Cache mounts, of which there is one."""

    def __init__(self) -> None:
        self.names = ["pip"]

    def records(self) -> list[KeptRecord]:
        return [
            KeptRecord(
                name=name,
                kind="exec.cachemount",
                description="pip",
                created=1,
                last_used=1,
                usage_count=1,
                in_use=False,
            )
            for name in self.names
        ]

    def size(self, name: str) -> int:
        return 7

    async def remove(self, name: str) -> int:
        self.names.remove(name)
        return 7


async def test_steps_of_a_failed_build_are_written_without_waiting_for_more(world, monkeypatch):
    monkeypatch.setattr(writer, "_SOON_S", 1000.0)
    world.behaviour.failing["bad"] = KetchError("no")
    with pytest.raises(SolveError):
        await world.build(step("bad", step("good")))
    await until(lambda: len(world.db.query("SELECT id FROM build_results")) == 1)


async def test_steps_of_a_long_build_are_written_before_its_end(world, monkeypatch):
    monkeypatch.setattr(writer, "_SOON_S", 0.01)
    gate = world.behaviour.gates["last"] = asyncio.Event()
    build = asyncio.create_task(world.build(step("last", step("first"))))
    await until(lambda: len(world.db.query("SELECT id FROM build_results")) == 1)
    gate.set()
    await build
    assert len(world.db.query("SELECT id FROM build_results")) == 2
