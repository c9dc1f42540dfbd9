"""The size of an exec's terminal, told when there is none any more, or not yet."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from ketch.engine.execs import service
from ketch.engine.model.execs import Exec, ExecConfig
from ketch.errors import InvalidArgument, KetchError, NotFound, RuntimeFailure, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

EXEC = "e" * 64


def execs(told: Callable[[Exec], None] = lambda _exec: None, *, started: bool = True) -> service.ExecService:
    """One exec of a running container; ``told`` is what its monitor does with a size."""
    one = Exec(id=EXEC, container_id="c", config=ExecConfig(cmd=["sh"], tty=True))
    if started:
        one.started, one.running, one.pid = True, True, 7

    async def resize(_rows: int, _cols: int, exec_id: str) -> None:
        assert exec_id == EXEC
        told(one)

    async def reach(_container: object) -> object:
        return SimpleNamespace(resize=resize)

    container = SimpleNamespace(id="c", state=SimpleNamespace(running=True, started_at=0))
    store: Any = SimpleNamespace(ids={"c": container}, get=lambda _id: container)
    live: Any = SimpleNamespace(of=lambda _id: SimpleNamespace(reach=reach))
    none: Any = None
    made = service.ExecService(store, live, none, none, none, none, none)
    made._execs[EXEC] = one
    return made


def answer(of: service.ExecService) -> tuple[type[KetchError], str]:
    with pytest.raises(KetchError) as caught:
        asyncio.run(of.resize(EXEC, 10, 20))
    return type(caught.value), caught.value.message


def test_one_that_ends_meanwhile():
    """Its end comes before the monitor's answer, which has no such exec any more."""

    def ends(one: Exec) -> None:
        one.running, one.exit_code = False, 0
        raise RuntimeFailure(f"no exec `{one.id}` is running")

    assert answer(execs(ends)) == (KetchError, "cannot resize a stopped container")


def test_one_that_runs_on():
    def fails(_exec: Exec) -> None:
        raise Unavailable("the monitor does not answer")

    assert answer(execs(fails)) == (Unavailable, "the monitor does not answer")


def test_one_that_has_ended():
    of = execs()
    of.get(EXEC).running = False
    assert answer(of) == (NotFound, f"NotFound: process does not exist {EXEC}: not found")


def test_one_that_could_not_be_started():
    of = execs(started=False)
    one = of.get(EXEC)
    one.started, one.exit_code = True, 127
    one.settled.set()
    assert answer(of) == (InvalidArgument, "exec process is not started")


def test_one_that_never_begins(monkeypatch):
    monkeypatch.setattr(service, "_BEGIN_S", 0.01)
    assert answer(execs(started=False)) == (KetchError, "timeout waiting for exec session ready")
