"""The plan of a build: its stages and the images that it takes files of, and what each needs of the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ketch.build.dockerfile import scopes, stages
from ketch.build.dockerfile.errors import DockerfileError, Span
from ketch.build.dockerfile.instructions import mounts
from ketch.build.dockerfile.instructions.files import Copy
from ketch.build.dockerfile.instructions.read import instruction
from ketch.build.dockerfile.instructions.run import Run
from ketch.build.dockerfile.instructions.settings import Onbuild
from ketch.build.dockerfile.instructions.stages import From
from ketch.build.dockerfile.parser import parse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ketch.build.dockerfile.convert.options import Context, ResolvedImage
    from ketch.build.dockerfile.instructions.base import Instruction
    from ketch.build.dockerfile.stages import Stages
    from ketch.oci.manifest import Platform

SCRATCH = "scratch"


class Command(msgspec.Struct, kw_only=True):
    """An instruction, and the nodes that its files (number 0) or mounts are of; ``trigger``: its base wants it done."""

    instruction: Instruction
    sources: dict[int, Node]
    trigger: bool = False


class Node(msgspec.Struct, kw_only=True, eq=False):
    """A stage, or an image or a context that files are taken of without being a stage (``stage`` is None)."""

    base: str
    span: Span
    located: bool = True
    stage: int | None = None
    name: str = ""
    shown: str = ""
    """Its name in the names of steps."""

    parent: Node | None = None
    platform: Platform | None = None
    context: Context | None = None
    replaced: bool = False
    """A context is in the stage's place: nothing of the stage is done."""

    image: ResolvedImage | None = None
    resolved: bool = False
    triggered: bool = False
    commands: list[Command] = []
    steps: int = 0
    """How many steps its names count."""

    ignore_cache: bool = False

    def needs(self) -> Iterator[Node]:
        """The nodes that must be done before it."""
        if self.parent:
            yield self.parent
        for command in self.commands:
            yield from command.sources.values()


class BuildPlan:
    """All nodes: those of stages first, in the file's order."""

    def __init__(self, found: Stages, escape: str) -> None:
        self._found, self._escape = found, escape
        self.nodes: list[Node] = []

    def named(self, name: str) -> Node | None:
        """The stage of a name."""
        found = self._found.named(name)
        return self.nodes[found.index] if found else None

    def target(self, name: str) -> Node:
        """The node that is built (DockerfileError: there is no such stage)."""
        return self.nodes[self._found.target(name).index]

    def connect(self) -> None:
        """Find what instructions need (DockerfileError: stages that need each other)."""
        for stage, node in zip(self._found.stages, list(self.nodes), strict=True):
            node.commands = [self.command(one) for one in stage.instructions]
        edges = [
            {
                source.stage: command.instruction
                for command in reversed(node.commands)
                for source in command.sources.values()
                if source.stage is not None
            }
            for node in self.nodes[: len(self._found.stages)]
        ]
        stages.check_cycles(edges, self._found)
        if len(self.nodes) == 1:
            self.nodes[0].shown = ""

    def command(self, one: Instruction, *, trigger: bool = False) -> Command:
        """An instruction with its sources; images among them become nodes (DockerfileError)."""
        sources: dict[int, Node] = {}
        if isinstance(one, Copy) and one.source_stage:
            sources[0] = self._copied(one)
        elif isinstance(one, Run):
            for number, text in enumerate(one.mount_options):
                name = mounts.source_stage(text) or SCRATCH  # also where the type, perhaps a variable, has none
                sources[number] = self.named(name) or self._added(name, one.span, located=False)
        return Command(instruction=one, sources=sources, trigger=trigger)

    def _copied(self, one: Copy) -> Node:
        name = one.source_stage
        if scopes.expanded(name, {}, self._escape, one.span).text != name:
            message = "variable expansion is not supported for --from, define a new stage with FROM using ARG from "
            raise DockerfileError(f"{message}global scope as a workaround", span=one.span, word=name)
        if name.isascii() and name.isdecimal():
            if len(name) > 9 or int(name) >= len(self._found.stages):
                raise DockerfileError(f"invalid stage index {name}", span=one.span, word=name)
            return self.nodes[int(name)]
        return self.named(name) or self._added(name, one.span)

    def _added(self, name: str, span: Span, *, located: bool = True) -> Node:
        node = Node(base=name, span=span, located=located)
        self.nodes.append(node)
        return node

    def reachable(self, target: Node) -> list[Node]:
        """The nodes that a target needs, itself among them, in the file's order."""
        found: set[int] = set()
        todo = [target]
        while todo:
            node = todo.pop()
            if id(node) not in found:
                found.add(id(node))
                todo += node.needs()
        return [node for node in self.nodes if id(node) in found]

    def trigger(self, node: Node) -> bool:
        """Put the instructions first that a node's base wants done; whether there were any (DockerfileError)."""
        if node.triggered or node.stage is None or node.replaced:
            return False
        node.triggered = True
        texts = list(node.image.config.config.on_build or ()) if node.image and node.image.config.config else []
        for command in node.parent.commands if node.parent else ():
            if isinstance(command.instruction, Onbuild):
                texts.append(command.instruction.expression)
        commands = [self.command(_read(text, node.span), trigger=True) for text in texts]
        node.commands = commands + node.commands
        node.steps += len(commands)
        return bool(commands)


def _read(text: str, span: Span) -> Instruction:
    """An instruction of a base image, at the place of FROM."""
    try:
        found = parse(text).statements
        if len(found) != 1:
            raise DockerfileError("onbuild trigger should be a single expression")
        found[0].span = span
        one = instruction(found[0])
    except DockerfileError as e:
        e.span = span
        raise
    if isinstance(one, From | Onbuild):
        raise DockerfileError(f"{one.keyword} isn't allowed as an ONBUILD trigger", span=span)
    return one
