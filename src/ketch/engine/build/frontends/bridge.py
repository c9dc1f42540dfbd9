"""The bridge between front ends and the solver: what a front end may ask for, within one build.

A front end describes graphs, and looks at their files when it must; nothing is made before somebody needs it.  Front
ends of the engine call this; those elsewhere (the client, a container) call it through BuildKit's LLBBridge.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from msgspec import Struct, field

from ketch.build import entitlements, policy
from ketch.build.errors import SolveError, UnresolvedImage
from ketch.build.llb import definition as definitions
from ketch.build.llb import ops_pb2 as pb
from ketch.build.llb.vertex import in_order
from ketch.build.progress import SolveStatus, VertexWarning
from ketch.build.solver.job import Job
from ketch.engine.build.caches import exchange
from ketch.engine.build.frontends import files
from ketch.engine.build.frontends.errors import PlacedError, SourcePlace
from ketch.engine.build.frontends.results import SINGLE, FrontendResult, Ref
from ketch.engine.build.phases import phase
from ketch.errors import InvalidArgument, KetchError
from ketch.oci import reference as references

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

    from ketch.build.cache.sources import CacheSource
    from ketch.build.llb.vertex import Edge
    from ketch.build.policy import SourcePolicy
    from ketch.build.providers import BuildSession, FoundImage
    from ketch.build.tree import Tree
    from ketch.engine.build.builder import Builder
    from ketch.engine.model.building.builds import CachePlace
    from ketch.oci.manifest import Platform
    from ketch.storage.content.leases import Lease

    Places = Callable[[str], Sequence[SourcePlace]]

_T = TypeVar("_T")
_IMAGE, _LOCAL = "docker-image://", "local://"


class FrontendRequest(Struct, frozen=True, kw_only=True, eq=False):
    """A request to a front end; without a name, for the result of a definition.

    ``inputs``: graphs that the front end may build on, by name; ``evaluate``: the result is to be made at once.
    """

    frontend: str = ""
    attrs: Mapping[str, str] = field(default_factory=dict)
    definition: pb.Definition | None = None
    inputs: Mapping[str, pb.Definition] = field(default_factory=dict)
    evaluate: bool = False
    caches: Sequence[CachePlace] = ()


if TYPE_CHECKING:
    Frontend = Callable[["Bridge", FrontendRequest], Awaitable[FrontendResult]]


class Bridge:
    """One build, as its front ends see it; from the event loop only.

    ``allowed``: the entitlements that its client has given; ``tell`` hears of the progress.
    """

    def __init__(
        self,
        builder: Builder,
        session: BuildSession,
        lease: Lease,
        tell: Callable[[SolveStatus], None],
        *,
        allowed: Collection[str] = (),
    ) -> None:
        self.builder, self.session, self.lease, self.tell = builder, session, lease, tell
        self._allowed = allowed
        self._imports: list[CacheSource] = []
        self._imported: dict[str, asyncio.Task[None]] = {}
        self._job = Job(session, lease, tell, imports=self._imports)
        self._places: list[Places] = []
        self._refs: list[Ref] = []
        self.warnings = 0
        self.programs = 0  # front ends that run as images, one for another
        self.policies: list[SourcePolicy] = []
        self.directories: set[str] = set()  # of the client, that front ends have looked into themselves

    async def close(self) -> None:
        """Break off what still runs."""
        for ref in self._refs:
            await ref.close()
        for task in self._imported.values():
            task.cancel()
        if self._imported:
            await asyncio.wait(self._imported.values())

    # -- solving -----------------------------------------------------------------------------------

    async def solve(self, request: FrontendRequest) -> FrontendResult:
        """The result of a front end, or of a definition (KetchError)."""
        await self.use_caches(request.caches)
        if request.frontend and request.definition is not None:
            raise InvalidArgument("cannot solve with both Definition and Frontend specified")
        if request.frontend:
            frontend = self.builder.frontends.get(request.frontend)
            if frontend is None:
                raise InvalidArgument(
                    f"invalid frontend: {request.frontend}", hint="there are dockerfile.v0, gateway.v0"
                )
            result: FrontendResult = await frontend(self, request)
        else:
            result = FrontendResult()
            if request.definition is not None and getattr(request.definition, "def"):
                result.refs[SINGLE] = self.defined(request.definition)
        if request.evaluate:
            await asyncio.gather(*(ref.tree() for ref in result.refs.values()))
        return result

    def defined(self, definition: pb.Definition) -> Ref:
        """The result that a definition describes (InvalidArgument, PermissionDenied, SolveError)."""
        return self.ref(definitions.load(definition), _places_in(definition), lambda _edge: definition.Source)

    def ref(
        self, edge: Edge | None, places: Places | None = None, source: Callable[[Edge], pb.Source] | None = None
    ) -> Ref:
        """A result of this build (SolveError: it asks for more than is allowed).

        ``places`` knows the lines from which vertices come, ``source`` makes the message with all of them.
        """
        if edge is not None and edge.vertex.op.source.identifier.startswith(_LOCAL):
            self.directories.add(edge.vertex.op.source.identifier.removeprefix(_LOCAL))
        if edge is not None and self.policies:
            before = edge
            edge, renamed = policy.applied(edge, self.policies)
            places, source = _renamed(before, places, source, renamed)
        if places is not None:
            self._places.append(places)
        if edge is not None:
            try:
                entitlements.check(edge, self._allowed)
            except SolveError as e:
                raise self._placed(e, edge) from e
        found = Ref(edge, self._solved, source)
        self._refs.append(found)
        return found

    async def _solved(self, edge: Edge) -> Tree:
        try:
            return await self.builder.solver.solve(edge, self._job)
        except SolveError as e:
            raise self._placed(e, edge) from e

    def _placed(self, error: SolveError, edge: Edge) -> PlacedError:
        """A vertex's error with its operation, and with the lines that it comes from."""
        found = next(filter(None, (places(error.vertex) for places in self._places)), ())
        vertices = in_order([edge.vertex])
        return PlacedError(error, found, next((one.op for one in vertices if one.digest == error.vertex), None))

    def require(self, entitlement: str) -> None:
        """Refuse what the client has not allowed (PermissionDenied)."""
        entitlements.require(entitlement, self._allowed)

    @property
    def pins(self) -> Mapping[str, str]:
        """The commits, files and images that sources stood for, by their digests."""
        return self._job.pins

    def keys(self, ref: Ref) -> Sequence[str]:
        """The cache keys of a result that has been solved."""
        return self._job.keys.get(ref.edge, ()) if ref.edge is not None else ()

    async def use_caches(self, places: Sequence[CachePlace]) -> None:
        """Look up in these caches, too, from now on; one that cannot be read is told, and not used."""
        for place in places:
            key = repr((place.kind, sorted(place.attrs.items())))
            if key not in self._imported:
                self._imported[key] = asyncio.ensure_future(self._import(place))
        # A call that is given up gives up its waiting alone: other calls wait for the same caches.
        await asyncio.gather(*(asyncio.shield(one) for one in self._imported.values()))

    async def _import(self, place: CachePlace) -> None:
        with phase(f"importing cache manifest from {exchange.shown(place)}", self.tell) as step:
            self._imports += await self.builder.exchange.imports(place, self.session, step.part)

    # -- images ------------------------------------------------------------------------------------

    async def image(self, reference: str, platform: Platform, mode: str, name: str = "") -> FoundImage:
        """An image's configuration, as one step of the build with that name (UnresolvedImage, PermissionDenied)."""
        if self.policies:
            source = policy.judged(pb.SourceOp(identifier=f"{_IMAGE}{reference}"), self.policies)
            if not source.identifier.startswith(_IMAGE):
                raise InvalidArgument(f"resolver: {reference} is replaced by {source.identifier}, which is no image")
            reference = str(references.parse(source.identifier.removeprefix(_IMAGE)))
        try:
            with phase(name or f"[internal] load metadata for {reference}", self.tell):
                return await self.builder.images.find(reference, platform, mode or "default", self.session)
        except KetchError as e:
            raise UnresolvedImage(reference, e) from e

    async def config_of(self, found: FoundImage) -> bytes:
        """The configuration of an image, byte for byte."""
        return found.data or await asyncio.to_thread(self.builder.store.content.read, found.id)

    # -- files -------------------------------------------------------------------------------------

    async def read_file(self, ref: Ref, path: str, offset: int = 0, length: int = 0) -> bytes:
        """Bytes of a file (NotFound, InvalidArgument, ResourceExhausted; SolveError)."""
        return await self.looked(ref, lambda root: files.read(root, path, offset, length))

    async def read_directory(self, ref: Ref, path: str, pattern: str = "") -> list[files.TreeFile]:
        """The entries of a directory (NotFound, InvalidArgument; SolveError)."""
        return await self.looked(ref, lambda root: files.directory(root, path, pattern))

    async def status(self, ref: Ref, path: str) -> files.TreeFile:
        """A file's status (NotFound, InvalidArgument; SolveError)."""
        return await self.looked(ref, lambda root: files.status(root, path))

    async def looked(self, ref: Ref, look: Callable[[int], _T]) -> _T:
        """The answer of ``look`` to the open root of a result (SolveError)."""
        tree = await ref.tree()

        def look_at() -> _T:
            with self.builder.snapshots.opened(tree) as root:
                return look(root)

        return await asyncio.to_thread(look_at)

    async def held(self, tree: Tree) -> bool:
        """Whether a tree is here, and is from now on as long as this build."""

        def hold() -> bool:
            self.lease.hold(*tree.layers)
            return all(self.builder.snapshots.exists(layer) for layer in tree.layers)

        return await asyncio.to_thread(hold)

    # -- telling -----------------------------------------------------------------------------------

    def warn(self, warning: VertexWarning) -> None:
        """Tell of a warning."""
        self.warnings += 1
        self.tell(SolveStatus(warnings=[warning]))


def _places_in(definition: pb.Definition) -> Places:
    """The lines that a definition names itself."""
    source = definition.Source

    def places(digest: str) -> list[SourcePlace]:
        if digest not in source.locations:
            return []
        known = range(len(source.infos))
        found = source.locations[digest].locations
        return [
            SourcePlace(source.infos[one.sourceIndex], list(one.ranges)) for one in found if one.sourceIndex in known
        ]

    return places


def _renamed(
    edge: Edge, places: Places | None, source: Callable[[Edge], pb.Source] | None, renamed: Mapping[str, str]
) -> tuple[Places | None, Callable[[Edge], pb.Source] | None]:
    """Lines of a graph whose vertices were replaced, by the new digests."""
    if not renamed:
        return places, source
    before = {new: old for old, new in renamed.items()}

    def old_places(digest: str) -> Sequence[SourcePlace]:
        return places(before.get(digest, digest)) if places is not None else ()

    def new_source(_edge: Edge) -> pb.Source:
        found = pb.Source()
        if source is not None:
            found.CopyFrom(source(edge))
        for old, new in renamed.items():
            if old in found.locations:
                found.locations[new].CopyFrom(found.locations[old])
                del found.locations[old]
        return found

    return old_places, new_source
