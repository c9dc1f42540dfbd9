"""Frames of a monitor's connection as calls, however they are cut."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.engine.build.command.output import CommandOutput
from ketch.notation.stream_frames import frame


@given(st.lists(st.tuples(st.sampled_from((1, 2)), st.binary(max_size=40))), st.integers(1, 50))
def test_any_cut(frames, size):
    async def run() -> list[tuple[int, bytes]]:
        heard: list[tuple[int, bytes]] = []
        reader = CommandOutput(lambda stream, data: heard.append((stream, data)))
        text = b"".join(frame(*one) for one in frames)
        for at in range(0, len(text), size):
            reader.data_received(text[at : at + size])
        reader.connection_lost(None)
        await reader.ended
        return heard

    assert asyncio.run(run()) == frames


async def test_ends():
    reset = CommandOutput(lambda _stream, _data: None)
    reset.connection_lost(ConnectionResetError())
    await reset.ended
    broken = CommandOutput(lambda _stream, _data: None)
    broken.connection_lost(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        await broken.ended
