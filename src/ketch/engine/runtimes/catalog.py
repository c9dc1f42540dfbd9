"""The OCI runtimes that containers can ask for (``--runtime``), by name.

    ketch, io.containerd.runc.v2     the built-in one; the second is containerd's name for Docker's own
    what the settings name           a program with arguments (``runtimes`` of daemon.json, ``--add-runtime``)
    runc, crun, runsc, youki         that program, when PATH has it
    an absolute path                 that program

A machine without runc runs what asks for runc with the built-in runtime, and says so: it is what clients that know
Docker ask for.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from msgspec import Struct

from ketch import programs
from ketch.errors import InvalidArgument

if TYPE_CHECKING:
    from ketch.notation.api_objects import ApiObject
    from ketch.runtime.protocol import ForeignRuntime

BUILT_IN = "ketch"
BUILT_IN_NAMES = (BUILT_IN, "io.containerd.runc.v2")
DOCKERS = "runc"
KNOWN = (DOCKERS, "crun", "runsc", "youki")
_PATH = "ketch-runtime"  # of the built-in one, for clients: the same as a command


class RuntimeProgram(Struct, frozen=True):
    """A runtime's program, a path or a name in PATH (empty: the built-in one), and what stands before each command.

    ``root`` is where it keeps its state; empty: below the exec root.
    """

    path: str = ""
    args: tuple[str, ...] = ()
    root: str = ""


class Runtimes(Struct, eq=False):
    """All runtimes; ``state`` is the directory in which each has one for its state."""

    configured: dict[str, RuntimeProgram]
    default: str
    state: str

    def change(self, other: Runtimes) -> None:
        """Have the runtimes and the default of another from now on."""
        self.configured, self.default = other.configured, other.default

    def check(self, name: str) -> list[str]:
        """Check that there is a runtime of this name (InvalidArgument, in Docker's words); returns warnings."""
        if name == DOCKERS and self._program(name) is None:
            return ["There is no runtime runc on this machine: the built-in one takes its place"]
        if name not in BUILT_IN_NAMES and self._program(name) is None:
            raise InvalidArgument(f"unknown or invalid runtime name: {name}")
        return []

    def find(self, name: str) -> ForeignRuntime | None:
        """The runtime of a container that asks for ``name``; None: the built-in one (InvalidArgument: none)."""
        name = name or self.default
        self.check(name)
        program = self._program(name)
        if program is None or not program.path:
            return None
        path = program.path if "/" in program.path else programs.find(program.path) or program.path
        root = program.root or os.path.join(self.state, name.strip("/").replace("/", "-"))
        return {"command": [path, *program.args], "root": root}

    def listing(self) -> dict[str, ApiObject]:
        """The runtimes as ``info`` shows them."""
        found: dict[str, ApiObject] = {name: {"path": _PATH} for name in (*BUILT_IN_NAMES, DOCKERS)}
        for name in (*KNOWN, *self.configured):
            program = self._program(name)
            if program is not None:
                found[name] = {"path": program.path or _PATH}
                if program.args:
                    found[name]["runtimeArgs"] = list(program.args)
        return found

    def _program(self, name: str) -> RuntimeProgram | None:
        """The program of a runtime, if there is one of this name beside the built-in one."""
        if name in self.configured:
            return self.configured[name]
        if name in KNOWN and programs.find(name) is not None:
            return RuntimeProgram(name)
        if os.path.isabs(name) and os.path.isfile(name) and os.access(name, os.X_OK):
            return RuntimeProgram(os.path.normpath(name))
        return None
