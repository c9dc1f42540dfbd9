"""Changes of the history that wait for a listener."""

from __future__ import annotations

import pytest

from ketch.buildkit.control import histories
from ketch.engine.model.building.records import BuildRecord
from ketch.rpc.status import Code, RpcError


async def test_one_who_does_not_read_misses_the_later_ones():
    changes = histories._Changes()
    for number in range(histories._WAITING + 5):
        changes.put("changed", BuildRecord(ref=str(number), name="", created=0))
    read = [(await changes.get())[1].ref for _ in range(histories._WAITING)]
    assert read == [str(number) for number in range(histories._WAITING)]
    changes.put("changed", BuildRecord(ref="later", name="", created=0))
    with pytest.raises(RpcError) as raised:
        await changes.get()
    assert raised.value.code is Code.RESOURCE_EXHAUSTED
