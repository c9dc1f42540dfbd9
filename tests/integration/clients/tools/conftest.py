"""Other projects' programs, run as their users run them."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Protocol

import pytest

from tests.support.clients import places
from tests.support.waiting import patient

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.engines import Engine

_PROGRAMS = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../../support/clients/tools"))
_SETTINGS = {"LC_ALL": "C.UTF-8", "TESTCONTAINERS_RYUK_DISABLED": "true"}  # its reaper is an image of a registry


class Tool(Protocol):
    """Runs a program of the environment ``tools``; returns what it printed, and fails with that if it does."""

    def __call__(self, program: str, *args: str, cwd: str | None = None, code: int = 0) -> str: ...


@pytest.fixture
def tool(world: Engine) -> Tool:
    """Runs a program of the environment; ``python`` with a name runs one of ours there."""
    place = places.place("tools")
    modules = f"{place}/node_modules"

    def call(program: str, *args: str, cwd: str | None = None, code: int = 0) -> str:
        environment = world.environment()
        done = subprocess.run(
            [f"{place}/bin/{program}", *args],
            env={**environment, **_SETTINGS, "PATH": f"{place}/bin:{environment['PATH']}", "NODE_PATH": modules},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
            timeout=patient(50),
            cwd=cwd or world.root,
        )
        assert done.returncode == code, done.stdout
        return done.stdout

    return call


@pytest.fixture
def program(tool: Tool) -> Callable[..., str]:
    """Runs a program of tests/support/clients/tools, which judges itself."""

    def call(name: str, *args: str) -> str:
        return tool("node" if name.endswith(".js") else "python", f"{_PROGRAMS}/{name}", *args)

    return call
