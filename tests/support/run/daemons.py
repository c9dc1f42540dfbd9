"""Daemons with a census: nothing of them may be left."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from tests.support.engines import Engine
from tests.support.leaks import Census
from tests.support.run import session

if TYPE_CHECKING:
    from collections.abc import Iterator


def end(one: Engine, before: Census) -> list[str]:
    """Delete an engine, and what it has left, which is returned."""
    one.delete()
    left = before.leaks() if one.kind == "ketch" else []
    if left:
        session.clear(one.name)
    return left


@contextlib.contextmanager
def one_of_its_own(suffix: str, *, rootless: bool = False) -> Iterator[Engine]:
    """A daemon whose name ends so, to be started; it is deleted afterwards, with all that is its."""
    one = Engine("ketch", suffix=suffix)
    if rootless:
        one.rootless()
    before = Census.take(one.name)
    try:
        yield one
        if one.process is None and (one.has_containers() or Census.take(one.name).things - before.things):
            one.start()
        if one.process is not None:
            one.remove_all()
    finally:
        left = end(one, before)
    assert left == [], left
