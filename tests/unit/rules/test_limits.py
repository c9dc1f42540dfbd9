"""Limits of waiting in tests, which are `patient`: a machine that runs tests is busier than the one that wrote them."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from tests.support.source.project import parsed, sources

if TYPE_CHECKING:
    from collections.abc import Iterator

# What takes seconds to wait at most, as the last part of its name, and which argument they are; -1: a keyword alone.
_WAITS = {
    "settimeout": 0,
    "result": 0,
    "join": 0,
    "wait": 0,
    "wait_for": 1,
    "select": 3,
    "create_connection": 1,
    "communicate": -1,
    "HTTPConnection": -1,
    "HTTPSConnection": -1,
    "urlopen": -1,
    "DockerClient": -1,
}
_SPENT = 2.0  # seconds: what is shorter is a time that a test waits for nothing to happen
_OTHERS = ("tests/support/clients/tools/",)  # programs in environments that have no `tests`
_MULTIPLIED = {"one.wait(60)", "two.wait(60)"}  # `Driven.wait` is patient itself


def test_limits_are_patient():
    places = [path for path in sources("tests") if not path.startswith(_OTHERS)]
    assert [f"{path}:{line}" for path in places for line in _raw(path)] == []


def _raw(path: str) -> Iterator[str]:
    """Numbers that stand as limits in a file, with their lines."""
    for node in ast.walk(parsed(path)):
        limit = _limit(node)
        if limit is not None and _seconds(limit) >= _SPENT and ast.unparse(node) not in _MULTIPLIED:
            yield f"{node.lineno} {ast.unparse(node)}"


def _limit(node: ast.AST) -> ast.expr | None:
    """What stands where a limit does."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add) and ast.unparse(node.left).endswith("monotonic()"):
        return node.right
    if not isinstance(node, ast.Call):
        return None
    called = ast.unparse(node.func)
    place = _WAITS.get(called.rpartition(".")[2], -1 if called == "subprocess.run" else None)
    if place is None:
        return None
    named = next((one.value for one in node.keywords if one.arg == "timeout"), None)
    return node.args[place] if 0 <= place < len(node.args) else named


def _seconds(limit: ast.expr) -> float:
    """The number that is written there; 0: none is."""
    return float(limit.value) if isinstance(limit, ast.Constant) and isinstance(limit.value, (int, float)) else 0
