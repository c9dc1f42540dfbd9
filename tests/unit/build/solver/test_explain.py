"""Explanations of why a vertex was not found in the cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ketch.build.cache.pruning.keeper import CacheKeeper, CacheStores
from ketch.build.cache.pruning.policy import PruneOptions
from ketch.build.llb import ops_pb2 as pb
from ketch.build.solver import explain
from ketch.storage.layers.changed_files import changed_files
from tests.support.building.memory import World, step

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from ketch.build.llb.vertex import Edge


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    yield made
    await made.close()


async def explained(world: World, edge: Edge) -> dict[str, tuple[str, tuple[str, ...]]]:
    with world.snapshots.lease() as lease:
        job = world.job(lease, explain=True)
        await world.solver.solve(edge, job)
    return {one.name: (one.reason, tuple(one.details)) for one in job.explanations}


async def test_explanations(world: World) -> None:
    world.behaviour.random.add("context")
    world.behaviour.contents.add("copy")
    world.behaviour.texts["context"] = " a=1 b=1 "

    def graph(*env: str, **options: bool) -> Edge:
        copy = step("copy", step("context"), files=True)
        return step("link", step("run", copy, env=env, **options))

    first = await explained(world, graph("A=1"))
    assert set(first.values()) == {("nothing like it is in the cache", ())}
    await world.restart()

    assert await explained(world, graph("A=2", "B=3")) == {
        "run": (
            "the instruction is not the one that was built before",
            ("variable A: `1` -> `2`", "variable B is new: `3`"),
        ),
        "link": ("what it is built on has changed: `run`", ()),
    }
    world.behaviour.texts["context"] = " a=1 b=2 c=1 "
    found = await explained(world, graph("A=1"))
    assert found["copy"] == ("files that it uses have changed: `context`", ("changed: b", "new: c"))
    assert found["run"] == ("what it is built on has changed: `copy`", ())
    found = await explained(world, graph("A=1", ignore_cache=True))
    assert found["run"] == ("the cache was not to be used for it", ())

    stores = CacheStores(records=world.records, snapshots=world.snapshots, image_layers=set, disk="/")
    await CacheKeeper(stores).prune(PruneOptions(fields={"description": "link"}))
    assert await explained(world, graph("A=1")) == {"link": ("nothing like it is in the cache", ())}
    await CacheKeeper(stores).prune(PruneOptions())
    assert world.db.query("SELECT * FROM build_operations") == []


async def test_a_layer_that_was_removed_is_the_reason(world: World) -> None:
    await world.build(step("top", step("base")))
    world.snapshots.texts = {one: text for one, text in world.snapshots.texts.items() if not text.startswith("base")}
    await world.build(step("other", step("top", step("base"))))
    found = await explained(world, step("third", step("base")))
    assert found["base"] == ("its result was removed from the cache, or its layer is damaged", ())


async def test_an_instruction_in_the_place_of_another(world: World) -> None:
    await world.build(step("make all", step("base")))
    await world.build(step("make", step("other base")))
    assert await explained(world, step("make some", step("base"))) == {
        "make some": (
            "the instruction is not the one that was built before",
            ("command: `make all` -> `make some`",),
        )
    }


def test_what_differs_of_commands() -> None:
    """Each option by its name; which input a mount has is no difference."""
    mounts = [pb.Mount(dest="/"), pb.Mount(dest="/c", mountType=pb.CACHE, cacheOpt=pb.CacheOpt(ID="a"), input=1)]
    old = pb.ExecOp(meta=pb.Meta(args=["x"]), mounts=mounts)
    new = pb.ExecOp()
    new.CopyFrom(old)
    assert explain._command_changes(old, new) == ["options of the command"]
    new.mounts[1].input = 2
    new.mounts[1].cacheOpt.ID = "b"
    new.network, new.security = pb.NONE, pb.INSECURE
    new.secretenv.add(ID="s", name="S")
    new.meta.extraHosts.add(Host="far", IP="1.2.3.4")
    new.meta.ulimit.add(Name="nofile", Soft=1, Hard=2)
    old.meta.args.append("y")
    found = explain._command_changes(old, new)
    assert found[:3] == ["command: `x y` -> `x`", "network: `UNSET` -> `NONE`", "security: `SANDBOX` -> `INSECURE`"]
    assert found[3].startswith("mount /c: `") and '"a"' in found[3] and '"b"' in found[3]
    assert found[4].startswith("secret S is new: ")
    assert found[5:] == ["host far is new: `1.2.3.4`", "limit nofile is new: `1:2`"]


async def test_a_source_that_is_another_one(world: World) -> None:
    world.behaviour.texts["image"] = "one"
    await world.build(step("image"))
    world.behaviour.texts["image"] = "two"
    assert await explained(world, step("image")) == {
        "image": ("what it stands for is not what it was before: `image`", ())
    }


def test_changed_files(tmp_path: Path) -> None:
    for name in ("old", "new"):
        root = tmp_path / name
        (root / "d").mkdir(parents=True)
        (root / "same").write_text("same")
        (root / "d" / "bytes").write_text(name)
        (root / "d" / "mode").write_text("x")
        (root / "link").symlink_to(name)
        (root / name).write_text("x")
    (tmp_path / "new" / "d" / "mode").chmod(0o755)
    lines = changed_files(str(tmp_path / "old"), str(tmp_path / "new"))
    assert lines == ["changed: d/bytes", "changed: d/mode", "changed: link", "new: new", "gone: old"]
    for number in range(20):
        (tmp_path / "new" / f"more-{number:02}").write_text("x")
    lines = changed_files(str(tmp_path / "old"), str(tmp_path / "new"))
    assert len(lines) == 11
    assert lines[-1] == "and 15 more"
