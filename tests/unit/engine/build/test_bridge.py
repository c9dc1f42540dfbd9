"""What the calls of one build share."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ketch.engine.build.frontends.bridge import Bridge
from ketch.engine.model.building.builds import CachePlace


async def test_a_call_that_is_given_up_leaves_the_caches_to_the_others():
    begun, on = asyncio.Event(), asyncio.Event()

    async def imports(*_arguments):
        begun.set()
        await on.wait()
        return []

    builder = SimpleNamespace(exchange=SimpleNamespace(imports=imports))
    bridge = Bridge(cast("Any", builder), cast("Any", None), cast("Any", None), lambda _status: None)
    places = [CachePlace(kind="registry", attrs={"ref": "x/y"})]
    first, second = (asyncio.create_task(bridge.use_caches(places)) for _ in range(2))
    await begun.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    on.set()
    await second
    await bridge.close()
