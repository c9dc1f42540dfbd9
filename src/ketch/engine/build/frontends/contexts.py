"""Contexts of the front end `dockerfile.v0`: where the Dockerfile is, what it may copy, what named contexts mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ketch import dockerignore
from ketch.build.dockerfile.convert.options import GraphContext, ImageContext, LocalContext, SourceContext
from ketch.build.dockerfile.convert.paths import listed
from ketch.build.llb import definition as definitions
from ketch.build.llb import ops_pb2 as pb
from ketch.build.llb.operations import Action, files, source
from ketch.engine.build import dockerfiles
from ketch.engine.build.dockerfiles import FoundDockerfile
from ketch.engine.build.frontends import source_facts, subrequests
from ketch.engine.build.frontends.results import CONFIG
from ketch.errors import InvalidArgument, NotFound
from ketch.oci import reference as references
from ketch.oci.config import decode as decode_config

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.build.dockerfile.convert.options import Context
    from ketch.build.llb.vertex import Edge
    from ketch.engine.build.frontends.attributes import FrontendAttributes
    from ketch.engine.build.frontends.bridge import Bridge, FrontendRequest
    from ketch.engine.build.frontends.results import Ref
    from ketch.oci.config import ImageConfig
    from ketch.oci.manifest import Platform

_CONTEXT, _DOCKERFILE, _FILE = "context", "dockerfile", "Dockerfile"
_IMAGE, _INPUT, _LAYOUT, _LOCAL = "docker-image://", "input:", "oci-layout://", "local:"
_METADATA = "input-metadata:"
_NOTHING = "scratch"


class FrontendContexts:
    """The contexts of one request: of the client, of other graphs, or from elsewhere.

    ``vertex``: the digest of the step that has read the Dockerfile; ``steps``: the names of those that look for images
    of named contexts, by reference.
    """

    def __init__(self, bridge: Bridge, request: FrontendRequest, attrs: FrontendAttributes) -> None:
        self._bridge, self._request, self._attrs = bridge, request, attrs
        self._name = attrs.text("filename", _FILE)
        self._remote: SourceContext | GraphContext | None = None
        self._context = attrs.text("contextkey", _CONTEXT)
        session = bridge.session.id
        self._session = {"local.session": session, "local.unique": session}
        self.vertex = ""
        self.steps: dict[str, str] = {}

    def main(self, file: FoundDockerfile) -> Context:
        """The context of the build itself."""
        given = self._input(_CONTEXT)
        context: Context = LocalContext(name=self._context, ignore=file.ignore, attrs=self._session)
        if given is not None:
            context = GraphContext(edge=_graph(given))
        elif self._remote is not None:
            context = self._remote
        part = self._attrs.text("contextsubdir")
        if part and (edge := _edge_of(context)) is not None:
            context = GraphContext(edge=_directory(edge, part))
        return context

    def named(self, name: str, place: str) -> Context:
        """A named context, by the way it is written (InvalidArgument)."""
        if place == _IMAGE + _NOTHING:
            return GraphContext(edge=None)
        if place.startswith(_IMAGE):
            reference = place.removeprefix(_IMAGE)
            self.steps[str(references.parse(reference))] = f"[context {name}] load metadata for {reference}"
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

    async def prepared(self, name: str, context: Context, platform: Platform) -> Context:
        """A named context with what is left out of it, or with the configuration of the image that it is."""
        if isinstance(context, LocalContext) and not context.ignore:
            return msgspec.structs.replace(context, ignore=await self._rules(context.name))
        bridge = self._bridge
        return await source_facts.with_image(
            context, name, platform, bridge.builder.sources, bridge.session, bridge.tell
        )

    async def _elsewhere(self) -> SourceContext | GraphContext | None:
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

    async def dockerfile(self) -> FoundDockerfile:
        """The Dockerfile, and the rules beside it (KetchError); it comes first."""
        self._remote = await self._elsewhere()
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
        self.vertex = ref.edge.vertex.digest if ref.edge is not None else ""
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
