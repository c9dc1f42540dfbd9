"""A Dockerfile's stages: what each begins with, what it consists of, and on which others it depends."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import msgspec

from ketch.build.dockerfile import suggest
from ketch.build.dockerfile.arguments import quoted
from ketch.build.dockerfile.errors import DockerfileError
from ketch.build.dockerfile.instructions.read import instruction
from ketch.build.dockerfile.instructions.stages import Arg, From

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ketch.build.dockerfile.instructions.base import Instruction
    from ketch.build.dockerfile.parser import Dockerfile


class Stage(msgspec.Struct, kw_only=True):
    """One stage; ``index`` counts from nought and is a name of it, too."""

    index: int
    start: From
    instructions: list[Instruction]

    @property
    def name(self) -> str:
        """Its name in small letters, nothing when it has none."""
        return self.start.name


class Stages(msgspec.Struct, kw_only=True):
    """All stages of a file, and the arguments that stand before the first."""

    args: list[Arg]
    stages: list[Stage]

    def named(self, name: str, before: int | None = None) -> Stage | None:
        """The last stage of that name, of those before one; names have no case."""
        wanted = name.lower()
        return next((one for one in reversed(self.stages[:before]) if one.name and one.name == wanted), None)

    def find(self, name: str, before: int | None = None) -> Stage | None:
        """A stage by its name or by its number."""
        found = self.named(name, before)
        if found is None and name.isascii() and name.isdecimal() and len(name) < 10 and int(name) < len(self.stages):
            found = self.stages[int(name)]
        return found

    def target(self, name: str = "") -> Stage:
        """The stage that is built: the last one, or the one that is asked for by its name (DockerfileError)."""
        if not name:
            return self.stages[-1]
        found = self.named(name)
        if found is None:
            names = [stage.name for stage in self.stages if stage.name]
            raise DockerfileError(f"target stage {quoted(name)} could not be found{suggest.hint(name, names)}")
        return found


def read(dockerfile: Dockerfile) -> Stages:
    """The stages of a parsed file (DockerfileError)."""
    args: list[Arg] = []
    stages: list[Stage] = []
    for statement in dockerfile.statements:
        try:
            one = instruction(statement)
        except DockerfileError as e:
            e.args = (f"dockerfile parse error on line {statement.span.start}: {e.message}",)
            e.message = e.args[0]
            raise
        if isinstance(one, From):
            stages.append(Stage(index=len(stages), start=one, instructions=[]))
        elif stages:
            stages[-1].instructions.append(one)
        elif isinstance(one, Arg):
            args.append(one)
        else:
            raise DockerfileError("no build stage in current context", span=statement.span)
    if not stages:
        raise DockerfileError("dockerfile contains no stages to build")
    return Stages(args=args, stages=stages)


def check_cycles(edges: Sequence[Mapping[int, Instruction]], stages: Stages) -> None:
    """Refuse stages that need each other; ``edges``: for each those that it needs, and what needs them.

    DockerfileError, with the first instruction of the circle.
    """
    done: set[int] = set()
    for first in range(len(edges)):
        path: list[int] = []
        todo = [(first, False)]
        while todo:
            index, left = todo.pop()
            if left:
                done.add(path.pop())
            elif index in path:
                circle = [*path[path.index(index) :], index]
                names = [stages.stages[one].name or f"stage-{one}" for one in circle]
                span, *others = (edges[one][needed].span for one, needed in pairwise(circle))
                raise DockerfileError(
                    f"circular dependency detected on stage: {names[0]}",
                    span=span,
                    hint=" → ".join(names),
                    others=others,
                )
            elif index not in done:
                path.append(index)
                todo += [(index, True), *((needed, False) for needed in edges[index])]
