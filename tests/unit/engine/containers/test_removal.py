"""A removal whose last step fails: those who wait for it are told all the same."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from ketch.engine.containers.removal import Removal
from ketch.engine.live import waiting
from ketch.engine.live.containers import LiveContainers
from ketch.engine.model.records import Container, ContainerConfig, HostConfig
from ketch.engine.stats.counters import Counters
from ketch.errors import Conflict
from tests.support.waiting import patient


class Volumes:
    """Volumes of which one cannot be removed."""

    volumes = SimpleNamespace(mark_for_removal=lambda _names: None)

    def anonymous(self, _container: Container) -> list[Any]:
        return []

    async def remove_anonymous(self, _container: Container) -> None:
        raise Conflict("volume is in use")


def test_a_volume_that_stays() -> None:
    """The row has gone by then, and nothing brings the container back."""

    async def scenario() -> None:
        live, removed = LiveContainers(), []
        container = Container(
            id="one", name="one", created=0, image_id="", image_ref="", config=ContainerConfig(), host=HostConfig()
        )

        async def cleared(_container: Container) -> None:
            pass

        def ignored(*_args: object, **_options: object) -> None:
            pass

        stand_ins: dict[str, Any] = {
            "store": SimpleNamespace(remove=ignored),
            "events": SimpleNamespace(of_container=ignored),
            "cgroups": SimpleNamespace(forget=ignored),
            "orphans": SimpleNamespace(clear_for_removal=cleared),
            "link_changes": SimpleNamespace(removed=ignored),
            "container_volumes": Volumes(),
            "directories": SimpleNamespace(remove_later=removed.append),
            "counters": Counters(),
        }
        waits = waiting.register(live.of("one"), container, "removed").result()
        with pytest.raises(Conflict, match="in use"):
            await Removal(live=live, **stand_ins).remove(container, volumes=True)
        async with asyncio.timeout(patient(5)):
            await waits
        assert removed == ["one"]

    asyncio.run(scenario())
