"""The progress of builds by their refs, and what is kept of it."""

from __future__ import annotations

import asyncio

import pytest

from ketch.build.progress import LogLine, SolveStatus, VertexState, VertexStatus, VertexWarning
from ketch.buildkit.control.jobs import BuildJobs
from ketch.buildkit.control.statuses import responses, responses_of_log
from ketch.engine.build.status_log import unpacked
from ketch.errors import AlreadyExists, NotFound

AT = "2026-11-28T01:02:03.123456789Z"
VERTEX = VertexState(digest="sha256:1", name="[1/2] FROM x", inputs=["sha256:0"], started=AT, cached=True)


def output(data, vertex="sha256:1"):
    return SolveStatus(logs=[LogLine(vertex=vertex, stream=2, data=data, timestamp=AT)])


async def test_who_follows_hears_everything_whenever_they_come():
    jobs = BuildJobs()

    async def follow():
        return [status async for status in (await jobs.get("r")).follow()]

    early = asyncio.create_task(follow())
    await asyncio.sleep(0)
    async with jobs.begin("r") as job:
        await asyncio.sleep(0)
        job.status(SolveStatus(vertexes=[VERTEX]))
        middle = asyncio.create_task(follow())
        await asyncio.sleep(0)
        job.status(output(b"1"))
    late = asyncio.create_task(follow())
    expected = [SolveStatus(vertexes=[VERTEX]), output(b"1")]
    assert await asyncio.gather(early, middle, late) == [expected] * 3


async def test_a_build_that_never_begins():
    with pytest.raises(NotFound, match="no such job r"):
        await BuildJobs().get("r", wait_s=0.01)


async def test_one_who_gives_up_waiting_does_not_stop_others():
    jobs = BuildJobs()
    first = asyncio.create_task(jobs.get("r", wait_s=0.01))
    second = asyncio.create_task(jobs.get("r", wait_s=10))
    with pytest.raises(NotFound):
        await first
    async with jobs.begin("r") as job:
        assert await second is job


async def test_two_builds_of_one_ref():
    jobs = BuildJobs()
    async with jobs.begin("r"):
        with pytest.raises(AlreadyExists, match="job ID r exists"):
            async with jobs.begin("r"):
                pass
    async with jobs.begin("r") as job:
        assert jobs.find("r") is job


async def test_much_output_is_not_kept_for_the_history_but_told():
    jobs = BuildJobs()
    async with jobs.begin("r") as job:
        follower = job.follow()
        task = asyncio.ensure_future(anext(follower))
        await asyncio.sleep(0)
        for _ in range(50):
            job.status(output(bytes(100_000)))
        job.status(SolveStatus(vertexes=[VERTEX]))
        told = [await task] + [await anext(follower) for _ in range(50)]
        await follower.aclose()
    assert len(told) == 51
    assert 2 << 20 <= sum(len(line.data) for status in job._kept for line in status.logs) < 3 << 20
    assert list(responses_of_log(unpacked(job.packed())))[-1].vertexes[0].name == "[1/2] FROM x"


async def test_of_a_client_that_does_not_read_output_is_left_out():
    jobs = BuildJobs()
    async with jobs.begin("r") as job:
        follower = job.follow()
        task = asyncio.ensure_future(anext(follower))
        await asyncio.sleep(0)
        for _ in range(400):
            job.status(output(bytes(100_000)))
    told = [await task] + [status async for status in follower]
    assert sum(len(line.data) for status in told for line in status.logs) < 20 << 20


async def test_warnings_and_names_count():
    jobs = BuildJobs()
    warning = SolveStatus(warnings=[VertexWarning(vertex="sha256:1", short=b"s", detail=[bytes(100_000)])])
    named = SolveStatus(vertexes=[VertexState(digest="sha256:1", name="n" * 100_000)])
    async with jobs.begin("r") as job:
        follower = job.follow()
        task = asyncio.ensure_future(anext(follower))
        await asyncio.sleep(0)
        for _ in range(20):
            job.status(named)
        for _ in range(400):
            job.status(warning)
    assert sum(len(status.warnings) for status in job._kept) < 20
    told = [await task] + [status async for status in follower]
    assert 100 < sum(len(status.warnings) for status in told) < 200


def test_messages():
    status = SolveStatus(
        vertexes=[
            VERTEX,
            VertexState(digest="sha256:2", error="failed\udc80", progress_group={"id": "g", "weak": True}),
        ],
        statuses=[VertexStatus(id="s", vertex="sha256:1", current=5, total=7, timestamp=AT)],
        logs=output(b"\xff").logs,
        warnings=[
            VertexWarning(
                vertex="sha256:1",
                short=b"short",
                url="u",
                source_info={"filename": "Dockerfile", "data": "RlJPTQ==", "language": "Dockerfile"},
                range=[{"start": {"line": 3}, "end": {"line": 4}}],
            )
        ],
    )
    (message,) = responses(status)
    first, second = message.vertexes
    assert (first.name, first.cached, list(first.inputs)) == ("[1/2] FROM x", True, ["sha256:0"])
    assert (first.started.nanos, first.started.ToJsonString(), first.HasField("completed")) == (123456789, AT, False)
    assert (second.error, second.progressGroup.id, second.progressGroup.weak) == ("failed?", "g", True)
    assert (message.statuses[0].current, message.statuses[0].total) == (5, 7)
    assert (message.logs[0].msg, message.logs[0].stream) == (b"\xff", 2)
    (warning,) = message.warnings
    assert (warning.short, warning.info.data, warning.ranges[0].start.line) == (b"short", b"FROM", 3)


def test_long_output_is_cut_into_messages_that_peers_take():
    status = SolveStatus(vertexes=[VERTEX], logs=output(bytes(1 << 20)).logs * 40)
    found = list(responses(status))
    assert all(message.ByteSize() < 8 << 20 for message in found)
    assert sum(len(message.logs) for message in found) == 40
    assert [len(message.vertexes) for message in found][:2] == [1, 0]
