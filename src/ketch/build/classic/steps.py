"""Steps of a build as the old API counts them: one for each instruction, in the file's order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ketch.build.dockerfile import parser, stages
from ketch.build.dockerfile.convert.plan import SCRATCH
from ketch.build.dockerfile.errors import DockerfileError
from ketch.build.dockerfile.instructions.run import Run

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from ketch.build.dockerfile.convert.places import Places
    from ketch.build.dockerfile.errors import Span
    from ketch.build.dockerfile.instructions.base import Instruction
    from ketch.build.dockerfile.stages import Stage


class ClassicStep(msgspec.Struct, kw_only=True):
    """One step; ``stage``: the number of its stage, None before the first; ``digests``: the vertices that it makes."""

    text: str
    span: Span | None = None
    stage: int | None = None
    runs: bool = False
    begins: bool = False
    triggers: int = 0
    """How many instructions its base image wants done first: ONBUILD."""

    empty: bool = False
    """It begins a stage with no files."""

    digests: set[str] = msgspec.field(default_factory=set)


def read(text: str, target: str, labels: Mapping[str, str]) -> list[ClassicStep]:
    """The steps of a file up to its target (DockerfileError); labels of the build are steps at the end."""
    try:
        dockerfile = parser.parse(text)
    except DockerfileError as e:
        e.message = f"failed to parse Dockerfile: {e.message}"
        raise
    found = stages.read(dockerfile)
    last = found.target(target)
    steps = [_step(arg, None) for arg in found.args]
    for stage in found.stages[: last.index + 1]:
        steps += _of_stage(stage)
    steps += [ClassicStep(text=f"LABEL {name}={labels[name]}", stage=last.index) for name in sorted(labels)]
    return steps


def _of_stage(stage: Stage) -> list[ClassicStep]:
    first = _step(stage.start, stage.index)
    first.begins, first.empty = True, stage.start.base == SCRATCH
    return [first, *(_step(one, stage.index) for one in stage.instructions)]


def _step(one: Instruction, stage: int | None) -> ClassicStep:
    return ClassicStep(text=one.statement.line.strip(), span=one.span, stage=stage, runs=isinstance(one, Run))


def located(steps: list[ClassicStep], places: Places, needed: Collection[int]) -> list[ClassicStep]:
    """The steps of those stages that are built, with the vertices that come from their lines."""
    found = [step for step in steps if step.stage is None or step.stage in needed]
    by_span = {step.span: step for step in found if step.span is not None}
    for digest, spans in places.all():
        for span in spans:
            if step := by_span.get(span):
                step.digests.add(digest)
    return found
