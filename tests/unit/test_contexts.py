"""The contexts of `ketch.contexts` do what contextlib's do."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from ketch import contexts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BOTH = pytest.mark.parametrize("module", [contexts, contextlib], ids=["own", "contextlib"])


class Wrong(Exception):
    pass


@BOTH
def test_suppress(module: Any) -> None:
    with module.suppress(Wrong, KeyError):
        raise KeyError
    with pytest.raises(ValueError), module.suppress(Wrong, KeyError):
        raise ValueError


@BOTH
def test_callbacks_are_called_in_reverse_order_whatever_fails(module: Any) -> None:
    called: list[int] = []

    def fail(number: int) -> None:
        called.append(number)
        raise Wrong(number)

    with pytest.raises(Wrong, match="2") as caught, module.ExitStack() as stack:
        stack.callback(called.append, 1)
        stack.callback(fail, 2)
        stack.callback(called.append, 3)
        stack.callback(fail, 4)
        raise ValueError
    assert called == [4, 3, 2, 1]
    assert str(caught.value.__context__) == "4"


@BOTH
def test_callbacks_handed_on(module: Any) -> None:
    called: list[int] = []
    with module.ExitStack() as stack:
        stack.callback(called.append, 1)
        other = stack.pop_all()
    assert called == []
    other.close()
    assert called == [1]


@BOTH
def test_context_of_a_generator(module: Any) -> None:
    def steps(told: list[str], caught: type[Exception]) -> Iterator[int]:
        told.append("begin")
        try:
            yield 7
        except caught:
            told.append("caught")
        finally:
            told.append("end")

    context: Callable[..., Any] = module.contextmanager(steps)
    told: list[str] = []
    with context(told, Wrong) as value:
        assert value == 7
    with context(told, Wrong):
        raise Wrong
    with pytest.raises(ValueError) as error, context(told, Wrong):
        raise ValueError
    assert error.value.__context__ is None
    assert told == ["begin", "end", "begin", "caught", "end", "begin", "end"]


@BOTH
def test_generator_that_does_not_stop(module: Any) -> None:
    context: Callable[..., Any] = module.contextmanager(lambda: iter_twice())
    with pytest.raises(RuntimeError), context():
        pass


def iter_twice() -> Iterator[None]:
    yield
    yield


def test_a_start_by_the_command_line_loads_neither_contextlib_nor_json() -> None:
    program = """if True:
        import sys
        from ketch.runtime.oci_cli import creation, lifecycle, main, relay
        print(*sys.modules.keys() & {"asyncio", "collections", "contextlib", "enum", "json", "re", "signal", "typing"})
    """
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path += {sys.path!r}\n{program}"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == ""
