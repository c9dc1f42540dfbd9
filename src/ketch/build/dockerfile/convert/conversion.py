"""The stages of a build converted one after another, and the result."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import msgspec

from ketch.build.dockerfile.arguments import quoted
from ketch.build.dockerfile.convert import config, scans, sources
from ketch.build.dockerfile.convert.copy import convert_copy
from ketch.build.dockerfile.convert.options import GraphContext, ImageContext, LocalContext
from ketch.build.dockerfile.convert.run import convert_run
from ketch.build.dockerfile.convert.state import StageState, empty_image
from ketch.build.dockerfile.errors import DockerfileError
from ketch.build.dockerfile.instructions.files import Add, Copy
from ketch.build.dockerfile.instructions.run import Run
from ketch.build.llb import ops_pb2 as pb
from ketch.oci import platform as platforms
from ketch.oci import reference
from ketch.oci.config import ImageConfig
from ketch.oci.manifest import Platform

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ketch.build.dockerfile.convert.options import Context, ResolvedImage
    from ketch.build.dockerfile.convert.places import Places
    from ketch.build.dockerfile.convert.plan import Command, Node
    from ketch.build.dockerfile.convert.scans import Scans
    from ketch.build.dockerfile.convert.state import Build
    from ketch.build.llb.vertex import Edge


_UTF8 = "write the Dockerfile in UTF-8"


class Conversion(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a conversion: files (None: an empty directory) and the image's configuration.

    The configuration has the layers of the image that the build began with (``base``), and none that it makes.
    ``places``: the lines of vertices; ``epoch``: the build's time in seconds since 1970, if it is given; ``stages``:
    the numbers of those that were converted, each with the reference of the image that it begins with (or nothing);
    ``triggers``: how many instructions that image wants done first; ``scans``: what else of the build a list of
    packages is to be made of.
    """

    edge: Edge | None
    image: ImageConfig
    base: ImageConfig | None
    places: Places
    epoch: int | None
    ignore_cache: bool
    stages: Mapping[int, str]
    triggers: Mapping[int, int]
    scans: Scans


class ConversionPass:
    """One conversion of the nodes that a target needs, in an order in which each comes after those that it needs."""

    def __init__(self, build: Build, order: Sequence[Node]) -> None:
        self._build, self._options, self._order = build, build.options, order
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
            places=self._build.places,
            epoch=self._build.epoch,
            ignore_cache=target.ignore_cache,
            triggers={
                node.stage: sum(command.trigger for command in node.commands)
                for node in self._order
                if node.stage is not None
            },
            stages={
                node.stage: node.image.reference if node.image else "" for node in self._order if node.stage is not None
            },
            scans=scans.asked(state, [self._states[id(node)] for node in self._order]),
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
                except UnicodeEncodeError as e:
                    span = command.instruction.span
                    raise DockerfileError("string field contains invalid UTF-8", span=span, hint=_UTF8) from e
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
            if node.located:
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
    ) -> Edge | None:
        """The files of a context; the build's own has no name."""
        platform = platform or self._options.target_platform
        if isinstance(context, LocalContext):
            shown = f"[context {name}] load from client" if name else "[internal] load build context"
            return sources.local(context, hint, paths, shown)
        if isinstance(context, GraphContext):
            return context.edge
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
        return _in_utf8(image)


def _in_utf8(image: ImageConfig) -> ImageConfig:
    """A configuration with U+FFFD for bytes that are not UTF-8, as in Go's JSON."""
    try:
        msgspec.json.encode(image)
    except UnicodeEncodeError:
        return msgspec.convert(_clean(msgspec.to_builtins(image)), ImageConfig)
    return image


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    if isinstance(value, dict):
        return {_clean(key): _clean(item) for key, item in value.items()}
    return [_clean(item) for item in value] if isinstance(value, list) else value


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
