"""The solver: what runs, what is found, what several builds share."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from ketch.build.cache.pruning.usage import rows_of_results
from ketch.build.errors import SolveError
from ketch.build.solver.reports import JobReport
from ketch.build.tree import EMPTY
from ketch.errors import NotFound
from tests.support.building.memory import World, evaluated, step, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from ketch.build.llb.vertex import Edge


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    yield made
    await made.close()
    assert not made.snapshots.held()
    assert set(made.snapshots.texts) == made.records.layers(), "nothing is left but what the cache needs"


async def test_a_graph_is_made_once_and_found_again(world: World) -> None:
    base = step("base")
    left, right = step("left", base), step("right", base)
    top = step("top", left, right)
    step("unused", base)
    assert await world.build(top) == evaluated(world, top)
    assert sorted(world.ran()) == ["base", "left", "right", "top"]
    world.snapshots.looked_at.clear()
    assert await world.build(top) == evaluated(world, top)
    assert world.ran() == []
    assert len(world.snapshots.looked_at) == 1, "only the last result is loaded"
    await world.restart()
    assert await world.build(step("more", top)) == evaluated(world, step("more", top))
    assert world.ran() == ["more"]
    assert await world.solver.solve(None, world.job(None)) == EMPTY  # type: ignore[arg-type]


async def test_contents_count_where_they_are_asked_for(world: World) -> None:
    world.behaviour.random.add("context")
    world.behaviour.contents.add("copy")
    world.behaviour.texts["context"] = "one"
    top = step("run", step("copy", step("context")))
    assert await world.build(top) == "run(copy(context(one)))"
    assert world.ran() == ["context", "copy", "run"]
    assert await world.build(top) == "run(copy(context(one)))"
    assert world.ran() == ["context"]
    world.behaviour.texts["context"] = "two"
    assert await world.build(top) == "run(copy(context(two)))"
    assert world.ran() == ["context", "copy", "run"]
    await world.restart()
    world.behaviour.texts["context"] = "one"
    assert await world.build(top) == "run(copy(context(one)))"
    assert world.ran() == ["context"]


async def test_what_has_the_same_content_is_found_by_its_definition_afterwards(world: World) -> None:
    world.behaviour.contents.add("copy")
    world.behaviour.ignored.add("make")
    world.behaviour.texts["src"] = "one"
    top = step("copy", step("make", step("src")))
    await world.build(top)
    world.ran()
    world.behaviour.texts["src"] = "two"
    await world.build(top)
    assert world.ran() == ["src", "make"], "the copy is the same"
    world.behaviour.computed.clear()
    await world.build(top)
    assert world.ran() == []
    assert world.behaviour.computed == [], "no content is needed once it is linked"


async def test_a_layer_that_is_gone_is_made_again(world: World) -> None:
    top = step("c", step("b", step("a")))
    await world.build(top)
    world.ran()
    last = next(one for one, text in world.snapshots.texts.items() if text.startswith("c"))
    del world.snapshots.texts[last]
    assert await world.build(top) == evaluated(world, top)
    assert world.ran() == ["c"]
    assert last not in world.records.layers()
    world.snapshots.texts.clear()
    assert await world.build(top) == evaluated(world, top)
    assert world.ran() == ["a", "b", "c"]


async def test_ignoring_the_cache(world: World) -> None:
    plain = step("c", step("b", step("a")))
    await world.build(plain)
    world.ran()
    ignoring = step("c", step("b", step("a"), ignore_cache=True))
    await world.build(ignoring)
    assert world.ran() == ["b", "c"], "what stands on what was made anew is made anew"
    await world.build(plain)
    assert world.ran() == [], "the new results are recorded"
    await world.build(step("c", step("b", step("a", ignore_cache=True), ignore_cache=True), ignore_cache=True))
    assert world.ran() == ["a", "b", "c"]


async def test_each_of_several_maps_finds_the_result(world: World) -> None:
    world.behaviour.maps["image"] = ["by manifest", "by configuration"]
    top = step("run", step("image"))
    await world.build(top)
    world.ran()
    for name in ("by manifest", "by configuration"):
        world.behaviour.maps["image"] = ["something else", name]
        await world.build(top)
        await world.build(step("image"))
        assert world.ran() == []


async def test_several_outputs_run_once(world: World) -> None:
    world.behaviour.outputs["both"] = 2
    both = step("both", step("a"))
    top = step("top", both, both._replace(output=1))
    assert await world.build(top) == evaluated(world, top)
    assert world.ran() == ["a", "both", "top"]
    assert await world.build(both._replace(output=1)) == "both(a())#1"
    assert world.ran() == []
    with pytest.raises(SolveError, match="there is no output 2"):
        await world.build(both._replace(output=2))


async def test_errors_name_their_vertex(world: World) -> None:
    world.behaviour.failing["b"] = NotFound("no such thing")
    failing = step("b", step("a"))
    with pytest.raises(SolveError, match="no such thing") as caught:
        await world.build(step("c", failing))
    assert (caught.value.vertex, caught.value.name) == (failing.vertex.digest, "b")
    assert isinstance(caught.value.cause, NotFound)
    assert "no such thing" in [one.error for status in world.statuses for one in status.vertexes]
    world.behaviour.failing.clear()
    world.ran()
    await world.build(step("c", failing))
    assert world.ran() == ["b", "c"]


async def test_so_many_run_at_once(tmp_path: Path) -> None:
    world = World(tmp_path, parallel=3)
    world.behaviour.gates = {f"s{i}": asyncio.Event() for i in range(9)}
    top = step("top", *(step(f"s{i}") for i in range(9)))
    build = asyncio.create_task(world.build(top))
    for i in range(9):
        await until(lambda name=f"s{i}": name in world.behaviour.ran)
        world.behaviour.gates[f"s{i}"].set()
    assert await build == evaluated(world, top)
    assert world.behaviour.most_running <= 3
    await world.close()


async def test_stages_that_one_copies_from_run_at_once(world: World) -> None:
    """The look-up of a copy by content waits for the first stage; the second is not in any cache, and begins."""
    world.behaviour.contents = {"copy1", "copy2", "copy3"}
    names = ("one", "two", "three")
    world.behaviour.gates = {name: asyncio.Event() for name in names}
    base = step("base")
    top = base
    for number, name in enumerate(names, 1):
        top = step(f"copy{number}", top, step(name, base))
    build = asyncio.create_task(world.build(top))
    await until(lambda: world.behaviour.running == len(names))
    for gate in world.behaviour.gates.values():
        gate.set()
    assert await build == evaluated(world, top)
    world.ran()
    assert await world.build(top) == evaluated(world, top)
    assert world.ran() == []


async def test_two_builds_share_what_runs(world: World) -> None:
    gate = world.behaviour.gates["slow"] = asyncio.Event()
    slow = step("slow", step("a"))
    first = asyncio.create_task(world.build(step("x", slow)))
    await until(lambda: "slow" in world.behaviour.ran)
    with world.snapshots.lease() as lease:
        seen: list[bytes] = []
        job = world.job(lease)
        job.report._listener = lambda status: seen.extend(line.data for line in status.logs)
        second = asyncio.create_task(world.solver.solve(step("y", slow), job))
        await until(lambda: seen)
        assert seen[-1] == b"begin slow\n", "who comes late gets the output so far"
        gate.set()
        assert await first == "x(slow(a()))"
        assert world.snapshots.text(await second) == "y(slow(a()))"
        assert b"end slow\n" in seen
    assert sorted(world.ran()) == ["a", "slow", "x", "y"]


async def test_who_comes_late_holds_what_a_result_stands_on(world: World) -> None:
    gate = world.behaviour.gates["slow"] = asyncio.Event()
    world.behaviour.stacked.add("slow")
    slow = step("slow", step("a"))
    await world.build(step("a"))
    first = asyncio.create_task(world.build(slow))
    await until(lambda: "slow" in world.behaviour.ran)
    second = asyncio.create_task(world.build(slow))
    await asyncio.sleep(0.01)
    first.cancel()
    gate.set()
    assert await second == "a()|slow(a())"  # `build` looks whether it holds all of that
    rows = rows_of_results(world.records.results(), world.records.in_use(), set())
    assert [(row.description, row.size, len(row.parents)) for row in rows] == [("a", 3, 0), ("slow", 9, 1)]


@pytest.mark.parametrize("leaving", ["first", "second", "both"])
async def test_a_build_that_is_cancelled_stops_what_nobody_else_needs(world: World, leaving: str) -> None:
    gate = world.behaviour.gates["slow"] = asyncio.Event()
    world.behaviour.gates["own"] = asyncio.Event()
    slow = step("slow", step("a"))
    first = asyncio.create_task(world.build(step("x", slow, step("own"))))
    await until(lambda: {"slow", "own"} <= set(world.behaviour.ran))
    second = asyncio.create_task(world.build(step("y", slow)))
    await until(lambda: len(world.solver._active) == 5)
    await asyncio.sleep(0.01)
    if leaving in ("first", "both"):
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert world.behaviour.stopped == ["own"]
    if leaving in ("second", "both"):
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
    if leaving == "both":
        assert sorted(world.behaviour.stopped) == ["own", "slow"]
        assert not world.solver._active
    gate.set()
    world.behaviour.gates["own"].set()
    if leaving == "first":
        assert await second == "y(slow(a()))"
    elif leaving == "second":
        assert await first == "x(slow(a()),own())"
    assert not world.solver._active
    canceled = [one for status in world.statuses for one in status.vertexes if one.error == "context canceled"]
    assert canceled


async def test_progress_is_told_as_buildkit_tells_it(world: World) -> None:
    top = step("b", step("a"))
    await world.build(top)
    names = [one.name for one in world.statuses[0].vertexes]
    assert names == ["a", "b"]
    last = {one.name: one for status in world.statuses for one in status.vertexes}
    assert all(one.started and one.completed and not one.cached for one in last.values())
    world.statuses.clear()
    await world.build(top)
    last = {one.name: one for status in world.statuses for one in status.vertexes}
    assert last["b"].cached
    assert last["b"].started and last["b"].completed
    assert last["b"].inputs == [top.vertex.inputs[0].vertex.digest]


async def test_several_solves_of_one_build(world: World) -> None:
    """What one of them made or found the next ones have, also what is made anew, and nobody is told of it again."""
    world.behaviour.random.add("context")
    anew = step("b", step("a", step("base"), step("context"), ignore_cache=True))
    top = step("c", anew)
    with world.snapshots.lease() as lease:
        job = world.job(lease)
        for edge in (anew, top, anew):
            await world.solver.solve(edge, job)
        assert sorted(world.ran()) == ["a", "b", "base", "c", "context"]
        began = [one.name for status in world.statuses for one in status.vertexes if one.started and not one.completed]
        assert Counter(began) == {"base": 2, "context": 2, "a": 1, "b": 1, "c": 1}, "sources are looked up, and fetched"
        with pytest.raises(SolveError):
            world.behaviour.failing["d"] = NotFound("gone")
            await world.solver.solve(step("d", top), job)
        del world.behaviour.failing["d"]
        await world.solver.solve(step("d", top), job)
        assert world.ran() == ["d", "d"]


async def test_deep_graphs(world: World) -> None:
    edge = step("s")
    for _ in range(3000):
        edge = step("s", edge)
    world.behaviour.ignored.add("s")
    await world.build(edge)
    assert len(world.ran()) == 3001
    await world.build(edge)
    assert world.ran() == []


async def test_what_is_made_anew_is_not_what_another_build_makes(world: World) -> None:
    await world.build(step("a"))
    world.behaviour.texts["a"] = " changed without a trace"
    world.behaviour.maps["a"] = ["a:"]
    gate = world.behaviour.gates["b"] = asyncio.Event()
    plain = asyncio.create_task(world.build(step("b", step("a"))))
    await until(lambda: "b" in world.behaviour.ran)
    fresh = asyncio.create_task(world.build(step("b", step("a", ignore_cache=True))))
    await until(lambda: world.behaviour.ran.count("b") == 2)
    gate.set()
    assert await plain == "b(a())"
    assert await fresh == "b(a( changed without a trace))"


async def test_a_listener_that_fails_harms_nobody_else(world: World) -> None:
    gate = world.behaviour.gates["slow"] = asyncio.Event()

    def failing(_status: object) -> None:
        raise ConnectionResetError

    with world.snapshots.lease() as lease:
        job = world.job(lease)
        job.report = JobReport(failing)
        first = asyncio.create_task(world.solver.solve(step("slow"), job))
        await until(lambda: "slow" in world.behaviour.ran)
        second = asyncio.create_task(world.build(step("slow")))
        await asyncio.sleep(0.01)
        gate.set()
        assert world.snapshots.text(await first) == await second == "slow()"
    assert [one.name for status in world.statuses for one in status.vertexes if one.completed] == ["slow"]


async def test_what_another_build_made_meanwhile_is_not_made_again(world: World) -> None:
    behaviour = world.behaviour
    behaviour.contents.update(("copy", "side"))
    sources = {f"{name}-{number}" for name in ("context", "more") for number in (1, 2)}
    behaviour.random.update(sources)
    behaviour.same.update(sources)
    copying, waiting = behaviour.gates["copy"], behaviour.gates["more-2"] = asyncio.Event(), asyncio.Event()
    first, second = (
        step("make", step("copy", step(f"context-{number}")), step("side", step(f"more-{number}"))) for number in (1, 2)
    )
    earlier = asyncio.create_task(world.build(first))
    await until(lambda: {"copy", "side"} <= set(behaviour.ran))
    later = asyncio.create_task(world.build(second))
    await until(lambda: {"context-2", "more-2"} <= set(behaviour.ran))
    await asyncio.sleep(0.05)  # it has looked for `make`, and knows that it is to be made
    copying.set()
    made = await earlier
    waiting.set()
    assert await later == made
    assert [behaviour.ran.count(name) for name in ("copy", "side", "make")] == [1, 1, 1]


@pytest.mark.parametrize("first_leaves", [False, True])
async def test_steps_with_equal_keys_run_once(world: World, first_leaves: bool) -> None:
    """Two builds with contexts of their own, whose content is the same."""
    gate = world.behaviour.gates["make"] = asyncio.Event()
    world.behaviour.contents.add("copy")
    world.behaviour.random.update(("context-1", "context-2"))
    world.behaviour.ignored.update(("copy", "context"))

    def graph(number: int) -> Edge:
        return step("make", step("copy", step(f"context-{number}")))

    world.behaviour.same.update(("context-1", "context-2"))
    first = asyncio.create_task(world.build(graph(1)))
    await until(lambda: "make" in world.behaviour.ran)
    world.statuses.clear()
    second = asyncio.create_task(world.build(graph(2)))
    await until(lambda: [line for status in world.statuses for line in status.logs if line.data == b"begin make\n"])
    if first_leaves:
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
    gate.set()
    assert await second == "make(copy())"
    assert first_leaves or await first == "make(copy())"
    assert world.behaviour.ran.count("make") == 1
    assert world.behaviour.stopped == []
    seen = {line.vertex for status in world.statuses for line in status.logs if line.data == b"end make\n"}
    assert len(seen) == (1 if first_leaves else 2)
    world.ran()
    await world.build(graph(2))
    assert world.ran() == ["context-2"]
