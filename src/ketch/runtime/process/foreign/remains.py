"""The record of the runtime that runs a container, in the container's run directory.

It is there from before the runtime is asked for anything until the runtime has deleted the container: whoever finds it
(the monitor at the end, ketchd when a monitor was killed) has that done.
"""

from __future__ import annotations

import os

from ketch import trees
from ketch.contexts import suppress
from ketch.notation import documents
from ketch.runtime.process import messages
from ketch.runtime.process.foreign.program import ForeignProgram

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.runtime.protocol import ForeignRuntime

_RECORD = "runtime.json"


def record(run_dir: str, runtime: ForeignRuntime) -> None:
    """Record the runtime that a container is about to be created with (OSError)."""
    messages.write_file(os.path.join(run_dir, _RECORD), documents.dumps(runtime).encode())


def find(run_dir: str) -> ForeignProgram | None:
    """The runtime that has this container; None: the built-in one, or it has been deleted (OSError, ValueError)."""
    try:
        fd = os.open(os.path.join(run_dir, _RECORD), os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return ForeignProgram(documents.loads(os.read(fd, 1 << 20)))
    finally:
        os.close(fd)


def delete(run_dir: str, container_id: str) -> None:
    """Have the container deleted by its runtime, if another one than the built-in has it (RuntimeFailure, OSError).

    Of a program that is not there (any more) the state is removed: nobody else can, and the container's processes are
    found by their cgroup.
    """
    program = find(run_dir)
    if program is None:
        return
    if os.path.isabs(program.command[0]) and os.access(program.command[0], os.X_OK):
        program.delete(container_id)
    else:
        trees.remove_path(os.path.join(program.root, container_id))
    with suppress(FileNotFoundError):
        os.unlink(os.path.join(run_dir, _RECORD))
