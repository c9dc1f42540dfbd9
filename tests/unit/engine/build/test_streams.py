"""What waits for a client that does not read has a bound: outputs wait, what commands print is left out."""

from __future__ import annotations

import asyncio

from ketch.build.progress import LogLine, SolveStatus, VertexState
from ketch.engine.build.run.streams import EventListener
from ketch.engine.build.run.waiting import WaitingItems
from tests.support.waiting import patient

AT = "2024-01-02T03:04:05Z"


def log(data: bytes) -> SolveStatus:
    return SolveStatus(logs=[LogLine(vertex="v", stream=1, data=data, timestamp=AT)])


async def test_what_commands_print_is_left_out_for_a_client_that_does_not_read():
    listener = EventListener()
    for _ in range(40):
        listener.status(log(b"x" * (1 << 20)))
    listener.status(SolveStatus(vertexes=[VertexState(digest="v", completed=AT)]))
    listener.events.put(None)
    found = []
    while (event := await listener.events.get()) is not None:
        found.append(event.status)
    data = [line.data for status in found for line in status.logs]
    assert sum(map(len, data)) < 18 << 20
    assert len([one for one in data if one.startswith(b"[output is left out")]) == 1
    assert found[-1].vertexes[0].completed == AT
    listener.status(log(b"again"))
    assert (await listener.events.get()).status.logs[0].data == b"again"


async def test_outputs_wait_for_the_client():
    items: WaitingItems[bytes] = WaitingItems(most=10)
    items.put(b"x" * 10, 10)
    waiting = asyncio.create_task(items.room())
    await asyncio.sleep(0)
    assert items.full
    assert not waiting.done()
    await items.get()
    await asyncio.wait_for(waiting, patient(10))
