"""The front end `dockerfile.v0`: a Dockerfile and a context, of the client, of another graph, or from elsewhere."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from ketch import dockerignore
from ketch.build.dockerfile.convert.converter import convert
from ketch.build.dockerfile.convert.options import (
    ConvertOptions,
    GraphContext,
    ImageContext,
    LocalContext,
    ResolvedImage,
    SourceContext,
)
from ketch.build.dockerfile.convert.paths import listed
from ketch.build.dockerfile.errors import DockerfileError
from ketch.build.llb import definition as definitions
from ketch.build.llb import ops_pb2 as pb
from ketch.build.llb.operations import Action, files, source
from ketch.engine.build import dockerfiles
from ketch.engine.build.dockerfiles import FoundDockerfile
from ketch.engine.build.frontends import source_facts, subrequests, syntax, warnings
from ketch.engine.build.frontends.attributes import FrontendAttributes
from ketch.engine.build.frontends.errors import PlacedError, SourcePlace, UnsupportedCapability, lines
from ketch.engine.build.frontends.results import CONFIG, EPOCH, PLATFORMS, SINGLE, FrontendResult
from ketch.engine.build.frontends.syntax import info_of
from ketch.errors import InvalidArgument, NotFound
from ketch.oci import platform as platforms
from ketch.oci import reference as references
from ketch.oci.config import decode as decode_config
from ketch.oci.manifest import Platform

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.build.dockerfile.convert.conversion import Conversion
    from ketch.build.dockerfile.convert.options import Context
    from ketch.build.llb.vertex import Edge
    from ketch.engine.build.frontends.bridge import Bridge, FrontendRequest
    from ketch.engine.build.frontends.results import Ref
    from ketch.oci.config import ImageConfig

NAME = "dockerfile.v0"
_CAPABILITIES = (
    "moby.buildkit.frontend.inputs",
    "moby.buildkit.frontend.subrequests",
    "moby.buildkit.frontend.contexts",
)
_CONTEXT, _DOCKERFILE, _FILE = "context", "dockerfile", "Dockerfile"
_IMAGE, _INPUT, _LAYOUT, _LOCAL = "docker-image://", "input:", "oci-layout://", "local:"
_METADATA = "input-metadata:"
_NOTHING = "scratch"


async def dockerfile(bridge: Bridge, request: FrontendRequest) -> FrontendResult:
    """The result of a Dockerfile (KetchError; those of its lines are placed there)."""
    return await _DockerfileFrontend(bridge, request).run()


class _DockerfileFrontend:
    """One request."""

    def __init__(self, bridge: Bridge, request: FrontendRequest) -> None:
        self._bridge, self._request = bridge, request
        self._attrs = FrontendAttributes(request.attrs)
        self._name = self._attrs.text("filename", _FILE)
        self._file: FoundDockerfile | None = None
        self._remote: SourceContext | GraphContext | None = None
        self._vertex = ""  # that has read the file
        self._context = self._attrs.text("contextkey", _CONTEXT)
        self._images: dict[tuple[str, str], ImageConfig] = {}
        self._steps: dict[str, str] = {}  # that look for images of named contexts, by reference
        session = bridge.session.id
        self._session = {"local.session": session, "local.unique": session}

    async def run(self) -> FrontendResult:
        """The result."""
        self._attrs.refuse_removed()
        for name in self._attrs.text("frontend.caps").split(","):
            plain = name.partition("+")[0]  # behind it stands who may answer in its place
            if plain and plain not in _CAPABILITIES:
                raise UnsupportedCapability(plain)
        try:
            return await self._run()
        except DockerfileError as e:
            if e.span is None or self._file is None:
                raise
            info = info_of(self._file)
            raise PlacedError(e, [SourcePlace(info, lines(span)) for span in (e.span, *e.others)]) from e

    async def _run(self) -> FrontendResult:
        self._remote = await self._remote_context()
        self._file = file = await self._read()
        if self._attrs.given("cmdline") is None:  # else the image has been asked
            other = syntax.foreign(file, self._attrs.args().get(syntax.ARGUMENT, ""))
            if other is not None:
                return await syntax.solve(self._bridge, self._request, other, file)
        if call := self._attrs.text("requestid"):
            return subrequests.answer(call, self._attrs, file)
        await self._bridge.use_caches(self._attrs.cache_imports())
        wanted: Sequence[Platform | None] = self._attrs.platforms()
        many = self._attrs.many_platforms(len(wanted))
        options = self._options(file, many=many)
        try:
            found = await asyncio.gather(
                *(self._converted(file, msgspec.structs.replace(options, platform=one)) for one in wanted or (None,))
            )
        except DockerfileError:
            self._warn(file)
            raise
        self._warn(file)
        result = FrontendResult()
        shown = []
        for platform, conversion in zip(wanted or (None,), found, strict=True):
            name = self._add(result, file, conversion, platform, many=many)
            shown.append({"ID": name, "Platform": msgspec.to_builtins(_platform_of(conversion))})
        result.metadata[PLATFORMS] = msgspec.json.encode({"Platforms": shown})
        return result

    def _add(
        self,
        result: FrontendResult,
        file: FoundDockerfile,
        conversion: Conversion,
        platform: Platform | None,
        *,
        many: bool,
    ) -> str:
        """Put a platform's result among the others; returns its name."""
        info = info_of(file)

        def places(digest: str) -> Sequence[SourcePlace]:
            return [SourcePlace(info, lines(span)) for span in conversion.places.of(digest)]

        ref = self._bridge.ref(
            conversion.edge, places, lambda edge: conversion.places.message(edge, file.name, info.data)
        )
        ref.scans = conversion.scans
        name = platforms.text(platform or _platform_of(conversion))
        suffix = f"/{name}" if many else ""
        result.refs[name if many else SINGLE] = ref
        result.metadata[CONFIG + suffix] = msgspec.json.encode(conversion.image)
        if conversion.epoch is not None:
            result.metadata[EPOCH + suffix] = str(conversion.epoch).encode()
        return name

    def _warn(self, file: FoundDockerfile) -> None:
        """Tell what a check finds in the file (DockerfileError: the file says that this is an error)."""
        report = warnings.report(file, self._attrs, self._images)
        for one in warnings.rows(report, self._vertex, info_of(file)):
            self._bridge.warn(one)
        failure = report.failure()
        if failure is not None and report.error is None:
            raise failure

    # -- files of the build --------------------------------------------------------------------------

    async def _remote_context(self) -> SourceContext | GraphContext | None:
        """The main context, where it is a repository or an address; None: it is the client's, or a graph."""
        address = self._attrs.text(self._context)
        if not address or self._input(_CONTEXT) is not None:
            return None
        if dockerfiles.is_git(address):
            return dockerfiles.git(address, keep=self._attrs.flag("build-arg:BUILDKIT_CONTEXT_KEEP_GIT_DIR"))
        if not address.startswith(("http://", "https://")):
            raise InvalidArgument(f"invalid context `{address[:200]}`", hint="give a repository or an address")
        return await self._downloaded(address)

    async def _downloaded(self, address: str) -> GraphContext:
        """An address as a context: an archive is unpacked, another file is the Dockerfile."""
        edge = source(address, {"http.filename": _CONTEXT}, None, _named("[internal] load remote build context"))
        head = await self._bridge.read_file(self._bridge.ref(edge), _CONTEXT, 0, 1024)
        if not subrequests.is_archive(head):
            self._name = _CONTEXT
            return GraphContext(edge=edge)
        copy = pb.FileActionCopy(
            src=f"/{_CONTEXT}", dest="/", mode=-1, timestamp=-1, attemptUnpackDockerCompatibility=True
        )
        return GraphContext(edge=files(None, [Action(pb.FileAction(copy=copy), edge)]))

    def _input(self, name: str) -> pb.Definition | None:
        """A graph that came with the request."""
        return self._request.inputs.get(name)

    async def _read(self) -> FoundDockerfile:
        """The Dockerfile, and the rules beside it (KetchError)."""
        given = self._input(self._attrs.text("dockerfilekey", _DOCKERFILE))
        own_rules = dockerignore.file_names(self._name)[0]
        names = [self._name, own_rules]
        if self._name == _FILE:
            names.append(_FILE.lower())
        if given is not None:
            ref = self._bridge.defined(given)
        elif self._remote is not None and self._attrs.given("dockerfilekey") is None:
            ref = self._bridge.ref(_edge_of(self._remote))
        else:
            key = self._attrs.text("dockerfilekey", _DOCKERFILE)
            attrs = {
                "local.differ": "none",
                "local.followpaths": listed(names),
                "local.sharedkeyhint": key,
                **self._session,
            }
            shown = f"[internal] load build definition from {self._name}"
            ref = self._bridge.ref(source(f"local://{key}", attrs, None, _named(shown)))
        self._vertex = ref.edge.vertex.digest if ref.edge is not None else ""
        data = await self._file_in(ref, self._name)
        if data is None and self._name == _FILE:
            data = await self._file_in(ref, _FILE.lower())
        if data == b"":
            raise InvalidArgument("the Dockerfile cannot be empty")
        if data is None:
            raise NotFound(f"failed to read dockerfile: open {self._name}: no such file or directory")
        own = await self._file_in(ref, own_rules)
        patterns = () if own is None else dockerfiles.ignore_patterns(own, own_rules)
        if own is None and self._remote is None and self._input(_CONTEXT) is None:
            patterns = await self._rules(self._context)
        return FoundDockerfile(self._name, dockerfiles.text_of(data, self._name), patterns)

    async def _file_in(self, ref: Ref, path: str) -> bytes | None:
        try:
            return await self._bridge.read_file(ref, path)
        except NotFound:
            return None

    async def _rules(self, name: str) -> Sequence[str]:
        """The patterns of what is left out of a directory of the client."""
        attrs = {
            "local.followpaths": listed([dockerignore.DEFAULT]),
            "local.sharedkeyhint": f"{name}-{dockerignore.DEFAULT}",
            **self._session,
        }
        shown = "[internal] load .dockerignore" if name == self._context else f"[context {name}] load .dockerignore"
        data = await self._file_in(
            self._bridge.ref(source(f"local://{name}", attrs, None, _named(shown))), dockerignore.DEFAULT
        )
        return () if data is None else dockerfiles.ignore_patterns(data, dockerignore.DEFAULT)

    # -- conversion ----------------------------------------------------------------------------------

    def _options(self, file: FoundDockerfile, *, many: bool) -> ConvertOptions:
        attrs = self._attrs
        given = self._input(_CONTEXT)
        context: Context = LocalContext(name=self._context, ignore=file.ignore, attrs=self._session)
        if given is not None:
            context = GraphContext(edge=_graph(given))
        elif self._remote is not None:
            context = self._remote
        part = attrs.text("contextsubdir")
        if part and (edge := _edge_of(context)) is not None:
            context = GraphContext(edge=_directory(edge, part))
        return ConvertOptions(
            target=attrs.text("target"),
            args=attrs.args(),
            labels=attrs.labels(),
            many_platforms=many,
            context=context,
            contexts={name: self._named_context(name, text) for name, text in attrs.contexts().items()},
            prepare=self._prepared,
            resolve_mode=attrs.resolve_mode(),
            no_cache=attrs.no_cache(),
            merges=True,
            network=attrs.network(),
            hosts=attrs.hosts(),
            hostname=attrs.text("hostname"),
            shm_size=attrs.shm_size(),
            ulimits=attrs.ulimits(),
            cgroup_parent=attrs.text("cgroup-parent"),
            cache_namespace=attrs.text("build-arg:BUILDKIT_CACHE_MOUNT_NS"),
        )

    def _named_context(self, name: str, place: str) -> Context:
        """A named context, by the way it is written (InvalidArgument)."""
        if place == _IMAGE + _NOTHING:
            return GraphContext(edge=None)
        if place.startswith(_IMAGE):
            reference = place.removeprefix(_IMAGE)
            self._steps[str(references.parse(reference))] = f"[context {name}] load metadata for {reference}"
            return ImageContext(reference=reference)
        if place.startswith(_LOCAL):
            return LocalContext(name=place.removeprefix(_LOCAL), attrs=self._session)
        if place.startswith(_INPUT):
            key = place.removeprefix(_INPUT)
            given = self._input(key)
            if given is None:
                raise InvalidArgument(f"invalid input {key} for context {name}")
            return GraphContext(edge=_graph(given), image=self._image_of(key))
        if dockerfiles.is_git(place):
            return dockerfiles.git(place)
        if place.startswith(("http://", "https://", _LAYOUT)):
            return SourceContext(identifier=place)
        raise InvalidArgument(f"unsupported context source {place} for {name}")

    def _image_of(self, key: str) -> ImageConfig | None:
        """The configuration of an image that a graph is of (InvalidArgument)."""
        text = self._attrs.text(f"{_METADATA}{key}")
        if not text:
            return None
        try:
            metadata = msgspec.json.decode(text.encode(), type=dict[str, bytes])
            return decode_config(metadata[CONFIG], made=False) if CONFIG in metadata else None
        except (msgspec.DecodeError, UnicodeDecodeError) as e:
            raise InvalidArgument(f"failed to parse metadata of context {key}: {e}") from e

    async def _prepared(self, name: str, context: Context, platform: Platform) -> Context:
        """A named context with what is left out of it, or with the configuration of the image that it is."""
        if isinstance(context, LocalContext) and not context.ignore:
            return msgspec.structs.replace(context, ignore=await self._rules(context.name))
        bridge = self._bridge
        return await source_facts.with_image(
            context, name, platform, bridge.builder.sources, bridge.session, bridge.tell
        )

    async def _converted(self, file: FoundDockerfile, options: ConvertOptions) -> Conversion:
        return await convert(file.text, options, self)

    async def image(self, reference: str, platform: Platform) -> ResolvedImage:
        """The image of a normalized reference, for a conversion (UnresolvedImage)."""
        found = await self._bridge.image(
            reference, platform, self._attrs.resolve_mode(), self._steps.get(reference, "")
        )
        self._images[reference, platforms.text(platform)] = found.config
        return ResolvedImage(reference=found.reference, config=found.config)


def _directory(edge: Edge, path: str) -> Edge:
    """A directory of a graph's result, as the whole of another."""
    copy = pb.FileActionCopy(src=path, dest="/", mode=-1, timestamp=-1, dirCopyContents=True)
    return files(None, [Action(pb.FileAction(copy=copy), edge)])


def _edge_of(context: Context) -> Edge | None:
    """The graph of a context; None: it is empty, or a directory or an image, which are no graphs yet."""
    if isinstance(context, GraphContext):
        return context.edge
    if not isinstance(context, SourceContext):
        return None
    return source(context.identifier, context.attrs, None, _named("[internal] load git source"))


def _graph(definition: pb.Definition) -> Edge | None:
    """The result of a graph that came with a request; an empty one is an empty directory (InvalidArgument)."""
    return definitions.load(definition) if getattr(definition, "def") else None


def _named(name: str) -> pb.OpMetadata:
    return pb.OpMetadata(description={"llb.customname": name})


def _platform_of(conversion: Conversion) -> Platform:
    image = conversion.image
    found = Platform(os=image.os or "linux", architecture=image.architecture or "", variant=image.variant)
    return platforms.canonical(found)
