"""Statements as instructions: which there are, and what reads each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ketch.build.dockerfile import suggest
from ketch.build.dockerfile.errors import DockerfileError
from ketch.build.dockerfile.instructions import commands, files, run, settings, stages

if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.build.dockerfile.instructions.base import Instruction
    from ketch.build.dockerfile.parser import Statement

READERS: dict[str, Callable[[Statement], Instruction]] = {
    "ADD": files.read_add,
    "ARG": stages.read_arg,
    "CMD": commands.read_cmd,
    "COPY": files.read_copy,
    "ENTRYPOINT": commands.read_entrypoint,
    "ENV": settings.read_env,
    "EXPOSE": settings.read_expose,
    "FROM": stages.read_from,
    "HEALTHCHECK": commands.read_healthcheck,
    "LABEL": settings.read_label,
    "MAINTAINER": settings.read_maintainer,
    "ONBUILD": settings.read_onbuild,
    "RUN": run.read_run,
    "SHELL": commands.read_shell,
    "STOPSIGNAL": settings.read_stop_signal,
    "USER": settings.read_user,
    "VOLUME": settings.read_volume,
    "WORKDIR": settings.read_workdir,
}


def instruction(statement: Statement) -> Instruction:
    """The instruction that a statement is (DockerfileError, with the statement's lines)."""
    reader = READERS.get(statement.keyword)
    try:
        if reader is None:
            meant = suggest.hint(statement.name, READERS, any_case=True)
            raise DockerfileError(f"unknown instruction: {statement.name}{meant}", word=statement.name)
        return reader(statement)
    except DockerfileError as e:
        e.span = e.span or statement.span
        raise
