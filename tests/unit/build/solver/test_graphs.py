"""The solver on generated graphs: equal to an evaluation without cache, and no more runs than contents ask for."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from ketch.build.llb.vertex import Edge, in_order
from tests.support.building.memory import World, evaluated, step

_SETTINGS = settings(max_examples=30, deadline=None)


class Graph(NamedTuple):
    """A graph of a test: for each vertex its inputs, all of which are before it."""

    inputs: list[list[int]]
    by_contents: list[bool]
    constant: list[bool]  # their results are the same whatever their inputs are
    ignoring: list[bool]


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    size = draw(st.integers(1, 12))
    inputs = [draw(st.lists(st.integers(0, i - 1), max_size=3)) if i else [] for i in range(size)]
    flags = st.lists(st.booleans(), min_size=size, max_size=size)
    return Graph(inputs, draw(flags), draw(flags), draw(flags))


def edges(graph: Graph, world: World, *, ignoring: bool = False) -> list[Edge]:
    made: list[Edge] = []
    for i, inputs in enumerate(graph.inputs):
        name = f"v{i}" if inputs else f"s{i}"
        if graph.by_contents[i]:
            world.behaviour.contents.add(name)
        if graph.constant[i] and inputs:
            world.behaviour.ignored.add(name)
        made.append(step(name, *(made[used] for used in inputs), ignore_cache=ignoring and graph.ignoring[i]))
    return made


def name_of(edge: Edge) -> str:
    return edge.vertex.name


@given(graphs(), st.data())
@_SETTINGS
def test_against_an_evaluation_without_cache(graph: Graph, data: st.DataObject) -> None:
    async def check(world: World) -> None:
        made = edges(graph, world)
        top = made[-1]
        needed = {one.name for one in in_order([top.vertex])}
        assert await world.build(top) == evaluated(world, top)
        assert set(world.ran()) <= needed
        assert await world.build(top) == evaluated(world, top)
        assert world.ran() == []

        changed = data.draw(st.sampled_from(sorted(name for name in needed if name[0] == "s")))
        before = {name_of(edge): evaluated(world, edge) for edge in made}
        world.behaviour.texts[changed] = "changed"
        assert await world.build(top) == evaluated(world, top)
        ran = set(world.ran())
        after = {name_of(edge): evaluated(world, edge) for edge in made}
        assert changed in ran
        assert ran <= must_run(graph, made, needed, changed, before, after)
        assert await world.build(top) == evaluated(world, top)
        assert world.ran() == []

        world.behaviour.texts.clear()
        assert await world.build(top) == evaluated(world, top)
        assert world.ran() == [], "what was there before is still known"
        await world.restart()
        some = data.draw(st.sampled_from(made))
        await world.build(some)
        assert await world.build(some) == evaluated(world, some)

        ignoring = edges(graph, world, ignoring=True)[-1]
        world.ran()
        assert await world.build(ignoring) == evaluated(world, top)
        assert {f"v{i}" if graph.inputs[i] else f"s{i}" for i in range(len(made)) if graph.ignoring[i]} & needed <= set(
            world.ran()
        ) | unneeded(graph, needed)

        for layer in data.draw(st.sets(st.sampled_from(sorted(world.snapshots.texts)))):
            del world.snapshots.texts[layer]
        assert await world.build(top) == evaluated(world, top)

    run(check)


def must_run(
    graph: Graph, made: list[Edge], needed: set[str], changed: str, before: dict[str, str], after: dict[str, str]
) -> set[str]:
    """The vertices that have no result yet for what their inputs are now."""
    other = {changed}
    for i, edge in enumerate(made):
        used = [name_of(made[k]) for k in graph.inputs[i]]
        if graph.by_contents[i]:
            differs = any(before[name] != after[name] for name in used)
        else:
            differs = any(name in other for name in used)
        if differs and name_of(edge) in needed:
            other.add(name_of(edge))
    return other


def unneeded(graph: Graph, needed: set[str]) -> set[str]:
    """Those that a cached result may stand in for: everything but the last vertex, when that is not made anew."""
    last = len(graph.inputs) - 1
    return set() if graph.ignoring[last] else needed


def run(check: object) -> None:
    async def with_world() -> None:
        with tempfile.TemporaryDirectory() as directory:
            world = World(Path(directory))
            await check(world)  # type: ignore[operator]
            await world.close()
            assert not world.snapshots.held()

    asyncio.run(with_world())


@given(graphs(), st.data())
@_SETTINGS
def test_several_builds_at_once_and_some_cancelled(graph: Graph, data: st.DataObject) -> None:
    async def check(world: World) -> None:
        made = edges(graph, world)
        wanted = data.draw(st.lists(st.sampled_from(made), min_size=2, max_size=4))
        cancelled = data.draw(st.sets(st.integers(0, len(wanted) - 1)))
        builds = [asyncio.create_task(world.build(edge)) for edge in wanted]
        for number in sorted(cancelled):
            for _ in range(data.draw(st.integers(0, 30))):
                await asyncio.sleep(0)
            builds[number].cancel()
        for number, (edge, build) in enumerate(zip(wanted, builds, strict=True)):
            try:
                assert await build == evaluated(world, edge)
            except asyncio.CancelledError:
                assert number in cancelled
        assert not world.solver._active
        assert world.behaviour.running == 0
        finished = [name for name in world.ran() if name not in world.behaviour.stopped]
        assert len(finished) == len(set(finished)), "nothing runs twice but what was stopped"
        assert set(world.snapshots.texts) == world.records.layers()

    run(check)
