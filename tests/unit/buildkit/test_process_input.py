"""Input on its way to a process: all of it, in its order, and never much of it at once."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from ketch.buildkit.gateway.process_input import WAITING, ProcessInput
from tests.support.waiting import patient

PIECES = st.lists(st.one_of(st.binary(max_size=20), st.integers(0, 3).map(lambda n: b"x" * (n * WAITING // 2))))


@given(PIECES, st.lists(st.integers(0, 3), max_size=20))
def test_all_of_it_comes_in_its_order(pieces: list[bytes], pauses: list[int]) -> None:
    async def run() -> tuple[bytes, int]:
        given_on, most, brought, taken = ProcessInput(), 0, 0, b""

        async def bring() -> None:
            nonlocal brought
            for number, piece in enumerate(pieces):
                await given_on.put(piece, end=number == len(pieces) - 1)
                brought += len(piece)
            if not pieces:
                await given_on.put(b"", end=True)
            await given_on.put(b"after the end", end=True)

        bringing = asyncio.create_task(bring())
        waits = iter(pauses)
        while True:
            for _ in range(next(waits, 0)):
                await asyncio.sleep(0)
            most = max(most, brought - len(taken))
            piece = await given_on.get()
            if piece is None:
                break
            taken += piece
        await bringing
        return taken, most

    taken, most = asyncio.run(run())
    assert taken == b"".join(pieces)
    assert most < WAITING + max(map(len, pieces), default=0) + 1


def test_dropped_input_holds_nobody_up() -> None:
    async def run() -> None:
        given_on = ProcessInput()
        await given_on.put(bytes(2 * WAITING), end=False)
        waiting = asyncio.create_task(given_on.put(b"more", end=False))
        await asyncio.sleep(0)
        assert not waiting.done()
        given_on.drop()
        await asyncio.wait_for(waiting, patient(5))
        await given_on.put(bytes(2 * WAITING), end=False)
        await given_on.put(b"and more", end=True)
        assert await given_on.get() is None

    asyncio.run(run())
