"""Startup of a container: how long it holds its volumes."""

from __future__ import annotations

import asyncio
import contextlib
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from ketch.engine.containers.startup import Startup
from ketch.errors import Conflict
from ketch.undo import AsyncUndo

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.mark.parametrize("fails", [False, True])
def test_volumes_are_held_until_a_start_ends(fails: bool, monkeypatch):
    """Also where something keeps what was popped off the undo stack."""
    done, popped, pop_all = [], [], AsyncUndo.pop_all
    monkeypatch.setattr(AsyncUndo, "pop_all", lambda self: popped.append(pop_all(self)))

    class Volumes:
        @contextlib.contextmanager
        def starting(self, _container: object) -> Iterator[None]:
            done.append("held")
            try:
                yield
            finally:
                done.append("let go")

    async def start(_args: object) -> int:
        done.append("started")
        if fails:
            raise Conflict("it does not start")
        return 1

    async def undone(*_: object) -> None:
        done.append("undone")

    monitor = SimpleNamespace(start=start)
    prepared = SimpleNamespace(monitor=monitor, args=[], pid=2, undo=undone)
    live = SimpleNamespace(
        prepared=prepared, early=[], held=[], close_early=lambda: done.append("closed"), release_held=lambda: None
    )
    sandboxes = SimpleNamespace(tell_unwired=lambda *_: None)
    startup = Startup(None, None, sandboxes, Volumes(), None, None)
    with pytest.raises(Conflict) if fails else contextlib.nullcontext():
        asyncio.run(startup.run(SimpleNamespace(), live, lambda: None))
    assert done == ["held", "started", *(["undone", "let go", "closed"] if fails else ["let go"])]


def test_clients_of_a_start_that_is_refused_do_not_wait():
    """While a volume is being restored: they are told of the start's end as of any other."""
    done = []

    def starting(_container: object) -> None:
        raise Conflict("it is being restored")

    startup = Startup(None, None, None, SimpleNamespace(starting=starting), None, None)
    live = SimpleNamespace(close_early=lambda: done.append("closed"))
    with pytest.raises(Conflict):
        asyncio.run(startup.run(SimpleNamespace(), live, lambda: None))
    assert done == ["closed"]
