"""A Dockerfile as a build graph and an image configuration.

The file's stages become a plan (plan.py); the images that the target needs are asked for, and the instructions that
these want done first are put in.  Then all stages that the target needs are converted, twice: the first time finds
which paths of the contexts are used, which the sources of the second time name.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

from ketch.build.dockerfile import parser, scopes, stages, suggest
from ketch.build.dockerfile.arguments import quoted
from ketch.build.dockerfile.convert.conversion import ConversionPass
from ketch.build.dockerfile.convert.options import GraphContext, ImageContext, ResolvedImage, SourceContext
from ketch.build.dockerfile.convert.paths import UsedPaths
from ketch.build.dockerfile.convert.plan import SCRATCH, BuildPlan, Node
from ketch.build.dockerfile.convert.state import Build
from ketch.build.dockerfile.errors import DockerfileError, Span
from ketch.build.dockerfile.instructions.files import Add, Copy
from ketch.build.dockerfile.instructions.run import Run
from ketch.build.dockerfile.instructions.settings import Workdir
from ketch.build.errors import UnresolvedImage
from ketch.errors import InvalidArgument
from ketch.oci import platform as platforms
from ketch.oci import reference

if TYPE_CHECKING:
    from ketch.build.dockerfile.convert.conversion import Conversion
    from ketch.build.dockerfile.convert.options import Context, ConvertOptions, ImageResolver
    from ketch.build.dockerfile.parser import Dockerfile
    from ketch.build.dockerfile.scopes import GlobalScope
    from ketch.build.dockerfile.stages import Stage, Stages
    from ketch.oci.manifest import Platform

_LATEST = ((1 << 63) - 1) // 10**9  # whose nanoseconds have 64 bits
_COUNTED = (Add, Copy, Run, Workdir)


async def convert(text: str, options: ConvertOptions, images: ImageResolver) -> Conversion:
    """Convert a file's target (DockerfileError, and what the resolver raises)."""
    if not text:
        raise DockerfileError("the Dockerfile cannot be empty", span=Span(1, 1))
    dockerfile = parser.parse(text)
    converter = _Converter(dockerfile, stages.read(dockerfile), options, images)
    target = await converter.plan()
    paths = UsedPaths()
    passes = [ConversionPass(converter.build(paths), converter.order) for _ in range(2)]
    passes[0].run(target)  # for the paths
    return passes[1].run(target)


class _Converter:
    """The plan of a file, with all that its conversion depends on."""

    def __init__(self, dockerfile: Dockerfile, found: Stages, options: ConvertOptions, images: ImageResolver) -> None:
        self.options, self._found, self._images = options.canonical(), found, images
        self._escape = dockerfile.escape
        stage = options.target or found.stages[-1].name
        machine, wanted = self.options.build_platform, self.options.target_platform
        predefined = scopes.platform_args(machine, wanted, stage, options.args)
        self.scope: GlobalScope = scopes.global_scope(found.args, predefined, options.args, self._escape)
        self.epoch = _epoch(options.args.get("SOURCE_DATE_EPOCH", ""))
        self._plan = BuildPlan(found, self._escape)
        self.order: list[Node] = []
        self._tasks: dict[tuple[str, str], asyncio.Task[ResolvedImage]] = {}

    async def plan(self) -> Node:
        """Find what is needed, and the images of it; the target (DockerfileError)."""
        for stage in self._found.stages:
            self._plan.nodes.append(self._node(stage))
        target = self._plan.target(self.options.target)
        self._plan.connect()
        more = True
        while more:
            self.order = self._plan.reachable(target)
            await self._resolve([node for node in self.order if not (node.parent or node.resolved)])
            triggered = [self._plan.trigger(node) for node in self.order]  # all of them
            more = any(triggered)
        return target

    def build(self, paths: UsedPaths) -> Build:
        """The state of one conversion."""
        return Build(self.options, self.scope, self.epoch, paths)

    def _node(self, stage: Stage) -> Node:
        start = stage.start
        base = self._expanded(stage, start.base)
        if not base:
            raise DockerfileError(f"base name ({start.base}) should not be blank", span=start.span, word=start.base)
        node = Node(
            base=base,
            span=start.span,
            stage=stage.index,
            name=stage.name,
            shown=stage.name or f"stage-{stage.index}",
            platform=self._platform(stage),
        )
        if stage.name and (context := self._named_context(stage.name, node.platform)):
            node.context, node.replaced = context, True
            return node
        parent = self._found.named(base, stage.index) if base == base.lower() else None
        node.parent = self._plan.nodes[parent.index] if parent else None
        has_source = base != SCRATCH and parent is None
        node.steps = has_source + sum(isinstance(one, _COUNTED) for one in stage.instructions)
        names = self.options.no_cache
        node.ignore_cache = names is not None and (not names or stage.name in [name.lower() for name in names])
        return node

    def _expanded(self, stage: Stage, text: str) -> str:
        return scopes.expanded(text, self.scope.values, self._escape, stage.start.span).text

    def _platform(self, stage: Stage) -> Platform | None:
        written, span = stage.start.platform, stage.start.span
        if not written:
            return None
        found = scopes.expanded(written, self.scope.values, self._escape, span)
        if not found.text:
            hints = (suggest.hint(name, self.scope.values) for name in sorted(found.unset))
            why = next(filter(None, hints), "")
            raise DockerfileError(f"empty platform value from expression {written}{why}", span=span, word=written)
        try:
            return platforms.canonical(platforms.named(found.text))
        except InvalidArgument as e:
            message = f"failed to parse platform {written}: {e.message}"
            raise DockerfileError(message, span=span, word=written, hint=e.hint) from e

    def _named_context(self, name: str, platform: Platform | None) -> Context | None:
        """The context of a name, first that for a platform."""
        if name.lower() in (SCRATCH, "context"):
            return None
        try:
            found = reference.parse(name)
        except InvalidArgument:
            return None
        familiar = found.familiar_whole.removesuffix(":latest")
        shown = platforms.text(platforms.canonical(platform or self.options.target_platform))
        contexts = self.options.contexts
        return contexts.get(f"{familiar}::{shown}") or contexts.get(familiar)

    async def _resolve(self, nodes: list[Node]) -> None:
        """Find images and contexts of nodes, all at once."""
        wanted = [node for node in nodes if node.base != SCRATCH or node.context]
        for node in nodes:
            node.resolved = True
        done = await asyncio.gather(*(self._resolve_one(node) for node in wanted), return_exceptions=True)
        for failure in done:
            if failure is not None:
                raise failure

    async def _resolve_one(self, node: Node) -> None:
        wanted = node.platform or self.options.target_platform
        name = node.name if node.replaced else self._reference(node)
        context = node.context or self._named_context(name, wanted)
        if context is not None and self.options.prepare is not None:
            context = await self.options.prepare(name, context, wanted)
        node.context = context
        if isinstance(context, SourceContext | GraphContext) and context.image is not None:
            node.image = ResolvedImage(reference="", config=context.image)
        if isinstance(context, ImageContext):
            name = str(reference.parse(context.reference))
        elif context is not None:
            return
        try:
            node.image = await self._image(name, wanted)
        except UnresolvedImage as e:
            message = e.message if context is not None else f"{node.base}: {e.message}"
            error = DockerfileError(message, span=node.span, word=node.base, hint=e.hint)
            error.kind = e.kind
            raise error from e

    async def _image(self, name: str, platform: Platform) -> ResolvedImage:
        """An image, which is asked for once however often it is named."""
        key = (name, platforms.text(platform))
        task = self._tasks.get(key)
        if task is None:
            task = self._tasks[key] = asyncio.create_task(self._asked(name, platform))
        return await task

    async def _asked(self, name: str, platform: Platform) -> ResolvedImage:
        return await self._images.image(name, platform)

    def _reference(self, node: Node) -> str:
        try:
            return str(reference.parse(node.base))
        except InvalidArgument as e:
            message = f"failed to parse stage name {quoted(node.base)}: {e.message}"
            raise DockerfileError(message, span=node.span, word=node.base) from e


def _epoch(text: str) -> int | None:
    """The build's time, in seconds since 1970."""
    if not text:
        return None
    if not re.fullmatch(r"[+-]?[0-9]{1,40}", text):
        message = f'invalid SOURCE_DATE_EPOCH: {text}: strconv.ParseInt: parsing "{text}": invalid syntax'
        raise DockerfileError(message, hint="give the seconds since 1970")
    if abs(int(text)) > _LATEST:
        raise DockerfileError(f"invalid SOURCE_DATE_EPOCH: {text}: value out of range", hint="give seconds, not ms")
    return int(text)
