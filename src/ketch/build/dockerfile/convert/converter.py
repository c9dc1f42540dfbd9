"""A Dockerfile as a build graph and an image configuration.

The file's stages become a plan (plan.py); the images that the target needs are asked for, and the instructions that
these want done first are put in.  Then all stages that the target needs are converted, twice: the first time finds
which paths of the contexts are used, which the sources of the second time name.
"""

from __future__ import annotations

import asyncio
import copy
import re
from typing import TYPE_CHECKING

import msgspec

from ketch.build.dockerfile import parser, scopes, stages, suggest
from ketch.build.dockerfile.arguments import quoted
from ketch.build.dockerfile.convert import config, sources
from ketch.build.dockerfile.convert.copy import convert_copy
from ketch.build.dockerfile.convert.options import ImageContext, LocalContext, ResolvedImage
from ketch.build.dockerfile.convert.paths import UsedPaths
from ketch.build.dockerfile.convert.places import Places
from ketch.build.dockerfile.convert.plan import SCRATCH, BuildPlan, Node
from ketch.build.dockerfile.convert.run import convert_run
from ketch.build.dockerfile.convert.state import Build, StageState, empty_image
from ketch.build.dockerfile.errors import DockerfileError, Span
from ketch.build.dockerfile.instructions.files import Add, Copy
from ketch.build.dockerfile.instructions.run import Run
from ketch.build.dockerfile.instructions.settings import Workdir
from ketch.build.llb import ops_pb2 as pb
from ketch.errors import InvalidArgument
from ketch.oci import platform as platforms
from ketch.oci import reference
from ketch.oci.manifest import Platform

if TYPE_CHECKING:
    from ketch.build.dockerfile.convert.options import Context, ConvertOptions, ImageResolver
    from ketch.build.dockerfile.convert.plan import Command
    from ketch.build.dockerfile.parser import Dockerfile
    from ketch.build.dockerfile.scopes import GlobalScope
    from ketch.build.dockerfile.stages import Stage, Stages
    from ketch.build.llb.vertex import Edge
    from ketch.oci.config import ImageConfig

_COUNTED = (Add, Copy, Run, Workdir)


class Conversion(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a conversion: files (None: an empty directory) and the image's configuration.

    The configuration has the layers of the image that the build began with (``base``), and none that it makes.
    ``places``: the lines of vertices; ``epoch``: the build's time in seconds since 1970, if it is given.
    """

    edge: Edge | None
    image: ImageConfig
    base: ImageConfig | None
    places: Places
    epoch: int | None
    ignore_cache: bool


async def convert(text: str, options: ConvertOptions, images: ImageResolver) -> Conversion:
    """Convert a file's target (DockerfileError, and what the resolver raises)."""
    if not text:
        raise DockerfileError("the Dockerfile cannot be empty", span=Span(1, 1))
    dockerfile = parser.parse(text)
    converter = _Converter(dockerfile, stages.read(dockerfile), options, images)
    target = await converter.plan()
    paths = UsedPaths()
    _Pass(converter, paths).run(target)  # for the paths
    return _Pass(converter, paths).run(target)


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
        context = node.context
        if context is None:
            name = self._reference(node)
            context = node.context = self._named_context(name, wanted)
        else:
            name = node.base
        if context is None:
            node.image = await self._images.image(name, wanted)
        elif isinstance(context, ImageContext):
            node.image = await self._images.image(str(reference.parse(context.reference)), wanted)

    def _reference(self, node: Node) -> str:
        try:
            return str(reference.parse(node.base))
        except InvalidArgument as e:
            message = f"failed to parse stage name {quoted(node.base)}: {e.message}"
            raise DockerfileError(message, span=node.span, word=node.base) from e


class _Pass:
    """One conversion of all that the target needs."""

    def __init__(self, converter: _Converter, paths: UsedPaths) -> None:
        self._options, self._order = converter.options, converter.order
        self._build = Build(converter.options, converter.scope, converter.epoch, paths)
        self._build.places = Places()
        self._states: dict[int, StageState] = {}

    def run(self, target: Node) -> Conversion:
        """Convert (DockerfileError)."""
        self._build.context = self._source(self._options.context, "context", self._build.paths.context, "")
        for node in self._order:
            if node.stage is None:
                self._states[id(node)] = self._base(node)
        for node in self._order:
            if node.stage is not None:
                self._stage(node)
        state = self._states[id(target)]
        state.paths.add("/")
        return Conversion(
            edge=state.edge,
            image=self._finished(state),
            base=_first_image(target),
            places=self._build.places or Places(),
            epoch=self._build.epoch,
            ignore_cache=target.ignore_cache,
        )

    def _stage(self, node: Node) -> None:
        state = self._base(node)
        if node.parent:
            state.inherit(self._states[id(node.parent)])
        if not node.replaced:
            state.begin()
            for command in node.commands:
                try:
                    self._command(state, command)
                except DockerfileError as e:
                    e.span = e.span or command.instruction.span
                    raise
        self._states[id(node)] = state

    def _command(self, state: StageState, command: Command) -> None:
        one = command.instruction
        state.in_trigger = command.trigger
        if isinstance(one, Run):
            convert_run(
                state, one, {number: self._mounted(state, one, node) for number, node in command.sources.items()}
            )
        elif isinstance(one, Copy | Add):
            source = command.sources.get(0)
            convert_copy(state, one, self._copied(state, one, source) if source else None)
        elif step := config.STEPS.get(type(one)):
            step(state, one)

    def _copied(self, state: StageState, one: Copy | Add, source: Node) -> StageState:
        found = self._states.get(id(source))
        if found is None:
            name = one.source_stage if isinstance(one, Copy) else ""
            raise DockerfileError(
                f"cannot copy from stage {quoted(name)}, it needs to be defined before current stage "
                f"{quoted(state.node.shown)}",
                word=name,
            )
        return found

    def _mounted(self, state: StageState, one: Run, source: Node) -> Edge | None:
        found = self._states.get(id(source))
        if found is None:
            raise DockerfileError(
                f"cannot mount from stage {quoted(source.shown)} to {quoted(state.node.shown)}, stage needs to be "
                "defined before current command",
                span=one.span,
                word=source.shown,
            )
        found.paths.add("/")
        return found.edge

    def _base(self, node: Node) -> StageState:
        """The beginning of a node: its image, its context, or nothing."""
        target = self._options.target_platform
        platform = node.platform or target
        if node.image and node.replaced:
            platform = _platform_of(node.image.config)
        elif node.image and node.platform is None and self._options.platform is None:
            platform = _detected(node.image.config, platform, self._options.build_platform)
        state = StageState(self._build, node, platform)
        if node.parent:
            return state
        if node.image:
            state.image = copy.deepcopy(node.image.config)
            state.image.created = None
            if not node.replaced:
                state.config.on_build = None
        if node.context:
            name = node.name if node.replaced else reference.parse(node.base).familiar_whole.removesuffix(":latest")
            hint = f"context:{name}"
            state.edge = self._source(node.context, hint, state.paths, name, platform, node.image)
        elif node.image and _has_files(node.image.config):
            name = node.image.reference
            metadata = state.metadata(state.step(f"FROM {name}", {}), command=f"FROM {node.base}")
            state.edge = sources.image(name, platform, self._options.resolve_mode, metadata)
            if node.located and self._build.places is not None:
                self._build.places.add(state.edge.vertex, node.span)
        elif node.image is None:
            state.platform, state.image = target, empty_image(target)
        return state

    def _source(
        self,
        context: Context,
        hint: str,
        paths: set[str],
        name: str,
        platform: Platform | None = None,
        image: ResolvedImage | None = None,
    ) -> Edge:
        """The files of a context; the build's own has no name."""
        platform = platform or self._options.target_platform
        if isinstance(context, LocalContext):
            shown = f"[context {name}] load from client" if name else "[internal] load build context"
            return sources.local(context, hint, paths, shown)
        if isinstance(context, ImageContext):
            shown = f"[context {name}] {reference.parse(context.reference).familiar_whole}"
            found = image.reference if image else str(reference.parse(context.reference))
            return sources.image(found, platform, "", _named(shown))
        shown = f"[context {name}] {context.identifier}" if name else "[internal] load remote build context"
        return sources.other(context, platform, shown)

    def _finished(self, state: StageState) -> ImageConfig:
        """The image's configuration with the build's labels and platform."""
        image, wanted = state.image, self._options.platform
        if self._options.labels:
            state.config.labels = {**(state.config.labels or {}), **self._options.labels}
        if wanted:
            same = (image.os, image.architecture) == (wanted.os, wanted.architecture)
            image.os, image.architecture = wanted.os, wanted.architecture
            image.variant = wanted.variant if wanted.variant or not same else image.variant
            image.os_version = wanted.os_version if wanted.os_version or not same else image.os_version
        own = _platform_of(image)
        image.os, image.architecture, image.variant = own.os, own.architecture, own.variant
        return image


def _named(name: str) -> pb.OpMetadata:
    return pb.OpMetadata(description={"llb.customname": name})


def _first_image(node: Node) -> ImageConfig | None:
    """The configuration of the image that a stage and those below it begin with."""
    while node.parent:
        node = node.parent
    return node.image.config if node.image else None


def _has_files(image: ImageConfig) -> bool:
    return bool(image.rootfs.diff_ids) or any(not step.empty_layer for step in image.history or ())


def _platform_of(image: ImageConfig) -> Platform:
    found = Platform(os=image.os, architecture=image.architecture, variant=image.variant, os_version=image.os_version)
    return platforms.canonical(found)


def _detected(image: ImageConfig, wanted: Platform, machine: Platform) -> Platform:
    """The platform of a stage where none is asked for: the machine's, when the image is for it."""
    return machine if (image.os, image.architecture) == (machine.os, machine.architecture) else wanted


def _epoch(text: str) -> int | None:
    """The build's time, in seconds since 1970."""
    if not text:
        return None
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
        message = f'invalid SOURCE_DATE_EPOCH: {text}: strconv.ParseInt: parsing "{text}": invalid syntax'
        raise DockerfileError(message, hint="give the seconds since 1970")
    return int(text)
