"""One build, from the request to its products: context, Dockerfile, graph, solution, export."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import msgspec

from ketch.build import entitlements
from ketch.build.attest.options import AttestOptions
from ketch.build.dockerfile import parser, stages
from ketch.build.dockerfile.convert.converter import convert
from ketch.build.dockerfile.convert.options import ConvertOptions, LocalContext
from ketch.build.errors import SolveError
from ketch.build.export.product import Product
from ketch.build.llb import ops_pb2 as pb
from ketch.build.llb.operations import source
from ketch.build.tree import EMPTY
from ketch.engine.build import calls, dockerfiles
from ketch.engine.build.attests import facts
from ketch.engine.build.attests.attester import Attester, ResultGraph
from ketch.engine.build.attests.sbom import SbomMaker
from ketch.engine.build.builder import SolveExtras
from ketch.engine.build.caches import exchange
from ketch.engine.build.exports import outputs
from ketch.engine.build.exports.exporter import ExportOrder
from ketch.engine.build.exports.outputs import Output
from ketch.engine.build.exports.sinks import DescriptorSink, StreamSink
from ketch.engine.build.frontends import source_facts, syntax
from ketch.engine.build.frontends.bridge import Bridge
from ketch.engine.build.frontends.products import products
from ketch.engine.build.phases import phase
from ketch.engine.build.run import contexts, naming
from ketch.engine.build.run.contexts import MAIN
from ketch.engine.build.run.failures import Failures
from ketch.engine.build.run.foreign import ForeignBuild
from ketch.engine.build.run.resolver import SessionResolver
from ketch.engine.build.run.session import RequestSession, given_credentials
from ketch.engine.model.building.builds import BuildExplanation, BuildExplanations, BuildResult
from ketch.errors import PermissionDenied
from ketch.failpoints import failpoint
from ketch.oci import platform as platforms

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Sequence

    from ketch.build.cache.sources import CacheSource
    from ketch.build.dockerfile.convert.conversion import Conversion
    from ketch.build.dockerfile.convert.options import Context
    from ketch.build.llb.vertex import Edge
    from ketch.build.progress import SolveStatus
    from ketch.build.solver.job import Explanation
    from ketch.build.tree import Tree
    from ketch.engine.build.builder import Builder
    from ketch.engine.build.dockerfiles import FoundDockerfile
    from ketch.engine.build.exports.exporter import Exported
    from ketch.engine.build.run.listener import BuildListener
    from ketch.engine.model.building.builds import BuildFailure, ImageBuild, OutputRequest
    from ketch.engine.model.building.records import BuildRecord
    from ketch.errors import KetchError
    from ketch.oci.manifest import Platform
    from ketch.remote.credentials import Credentials
    from ketch.storage.content.leases import Lease

# Arguments that are there without a declaration: dockerd does not say that nothing used them.
_PREDEFINED = frozenset(
    name for one in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY") for name in (one, one.lower())
) | {"SOURCE_DATE_EPOCH"}


class BuildRun:
    """One build; `run` it once."""

    def __init__(self, builder: Builder, request: ImageBuild, listener: BuildListener, record: BuildRecord) -> None:
        self._builder, self._request, self._listener, self._record = builder, request, listener, record
        self._session = RequestSession(request)
        self._conversions: list[Conversion] = []
        self._states: dict[str, tuple[bool, bool]] = {}  # by vertex: (completed, cached)
        self._failures = Failures(request, self._conversions)
        self._imports: list[CacheSource] = []

    async def run(self, body: AsyncIterator[bytes]) -> BuildResult:
        """Build (KetchError); ``body`` is what is left of the request's."""
        names = outputs.tags(self._request.tags)
        wanted = naming.platforms_of(self._request)
        self._allowed()
        attests = facts.asked(self._request)
        outputs.check(self._request.outputs, many=len(wanted) > 1 or attests != AttestOptions())
        exchange.check(self._request.cache_from, self._request.cache_to)
        builder = self._builder
        async with AsyncExitStack() as stack:
            lease = await builder.lease(stack)
            await contexts.bring(self._request, self._session, body, builder.root, stack)
            dockerfile, context = await self._read(lease)
            failpoint("build.read")
            self._failures.dockerfile = dockerfile
            self._record.dockerfile = dockerfile.name
            self._listener.read(dockerfile)
            told = facts.of_request(self._request, self._record.ref, dockerfile.name)
            attester = Attester(options=attests, facts=told, sboms=self._sboms(lease))
            # The old API's builder knows one front end alone: there the first line is a comment.
            given = self._request.args.get(syntax.ARGUMENT) or ""
            other = None if self._request.classic else syntax.foreign(dockerfile, given)
            if other is not None:
                work = ForeignBuild(self._request, dockerfile, other)
                bridge = Bridge(builder, self._session, lease, self._status, allowed=self._allowed())
                stack.push_async_callback(bridge.close)
                result = await work.solve(bridge, self._session, builder.root, stack)
                if self._request.call != "build":
                    return work.answer(result)
                inline = exchange.inline_asked(self._request.cache_to)
                made = await products(bridge, result, attester, inline_cache=inline)
            elif self._request.call != "build":
                return calls.answer(self._request, dockerfile)
            else:
                made = await self._converted(dockerfile, context, wanted, lease, attester)
            failpoint("build.solved")
            exported = await self._export(names, made, lease)
            failpoint("build.exported")
            await self._export_caches(made, lease)
            failpoint("build.caches-exported")
            await builder.solver.settled()  # begun long ago: who is told of a build finds its steps after any crash
        return BuildResult(
            image=exported.image,
            names=exported.names,
            ref=self._record.ref,
            metadata=dict(exported.metadata),
            unused=[] if other is not None else self._unused(dockerfile),
        )

    # -- reading ---------------------------------------------------------------------------------

    def _allowed(self) -> set[str]:
        """The entitlements that the client has given (PermissionDenied: the request itself asks for more).

        Docker's old API has none; who asks for the host's network by it allows it.
        """
        allowed = entitlements.granted(self._request.entitlements, self._builder.denied)
        mode, name = naming.network(self._request.network)
        if name:
            allowed.add(entitlements.of_network(name))
        if mode == pb.HOST:
            if self._request.classic:
                allowed.add(entitlements.NETWORK_HOST)
            elif entitlements.NETWORK_HOST not in allowed:
                raise PermissionDenied("network.host is not allowed", hint="give --allow network.host")
        return allowed

    async def _read(self, lease: Lease) -> tuple[FoundDockerfile, Context]:
        """The Dockerfile and the main context (KetchError)."""
        given, request = self._request.dockerfile, self._request
        shown = given.name if given else request.dockerfile_path
        with phase(f"[internal] load build definition from {shown}", self._status):
            if request.remote and dockerfiles.is_git(request.remote):
                context = dockerfiles.git(request.remote)
                edge = source(context.identifier, context.attrs, None, pb.OpMetadata())
                tree = await self._builder.solve(edge, self._session, lease, self._status)
                if given is not None:
                    return contexts.given(given), context
                return await asyncio.to_thread(self._found, tree), context
            fd = await contexts.directory(self._session)
            if given is None:
                found = await asyncio.to_thread(contexts.find, fd, request)
                if request.classic:
                    found = found._replace(ignore=contexts.own_files(found))
            else:
                found = contexts.given(given)
        attrs = {"local.session": self._session.id, "local.unique": self._session.id}
        return found, LocalContext(name=MAIN, ignore=found.ignore, attrs=attrs)

    def _found(self, tree: Tree) -> FoundDockerfile:
        """The Dockerfile in a tree (InvalidArgument).  Blocking."""
        with self._builder.snapshots.opened(tree) as fd:
            return contexts.find(fd, self._request)

    def _options(self, dockerfile: FoundDockerfile, context: Context, *, many: bool) -> ConvertOptions:
        request = self._request
        stages_of = None if not (request.no_cache or request.no_cache_filter) else list(request.no_cache_filter)
        network, network_name = naming.network(request.network)
        return ConvertOptions(
            target=request.target,
            args={name: value for name, value in request.args.items() if value is not None},
            labels=request.labels,
            many_platforms=many,
            context=context,
            contexts=naming.named_contexts(request, request.directories),
            prepare=self._prepared,
            resolve_mode="pull" if request.pull else "local",
            no_cache=[] if request.no_cache else stages_of,
            merges=True,
            network=network,
            network_name=network_name,
            hosts=naming.hosts(request.hosts),
            shm_size=request.shm_size,
            ulimits=naming.ulimits(request.ulimits),
            cgroup_parent=request.cgroup_parent,
            resources=naming.resources(request.resources),
        )

    async def _prepared(self, name: str, context: Context, platform: Platform) -> Context:
        """A named context with the configuration of the image that it is."""
        sources = self._builder.sources
        return await source_facts.with_image(context, name, platform, sources, self._session, self._status)

    # -- building --------------------------------------------------------------------------------

    async def _converted(
        self,
        dockerfile: FoundDockerfile,
        context: Context,
        wanted: Sequence[Platform | None],
        lease: Lease,
        attester: Attester,
    ) -> list[Product]:
        """The products for all platforms by the engine's own front end (KetchError)."""
        self._imports = await self._imported()
        options = self._options(dockerfile, context, many=len(wanted) > 1)
        try:
            return await _all([self._product(dockerfile, options, one, lease, attester) for one in wanted])
        except SolveError as e:
            await self._failures.keep(self._builder.store, e, lease)
            raise

    async def _product(
        self,
        dockerfile: FoundDockerfile,
        options: ConvertOptions,
        platform: Platform | None,
        lease: Lease,
        attester: Attester,
    ) -> Product:
        options = msgspec.structs.replace(options, platform=platform)
        mode, named = options.resolve_mode, self._request.classic
        resolver = SessionResolver(self._builder, self._session, mode, self._listener, named=named)
        conversion = await convert(dockerfile.text, options, resolver)
        self._conversions.append(conversion)
        self._record.total_steps += len(dict(conversion.places.all()))
        bases = {stage: resolver.id_of(name) for stage, name in conversion.stages.items()}
        self._listener.converted(conversion, bases)
        tree = EMPTY
        extras = SolveExtras(imports=self._imports)
        if conversion.edge is not None:
            entitlements.check(conversion.edge, self._allowed())
            found: list[Explanation] = []
            extras.explanations = found if self._request.explain else None
            try:
                tree = await self._builder.solve(conversion.edge, self._session, lease, self._status, extras)
            finally:
                self._explain(found)
        cache = None
        if exchange.inline_asked(self._request.cache_to):
            cache = self._builder.exchange.inline(extras.keys, tree.layers)
        product = Product(
            platform=platform or platforms.host(),
            config=conversion.image,
            tree=tree,
            epoch=conversion.epoch,
            keys=extras.keys,
            cache=cache,
        )
        lines = None
        if conversion.edge is not None and attester.tells_steps:
            text = dockerfile.text.encode("utf-8", "surrogateescape")
            lines = conversion.places.message(conversion.edge, dockerfile.name, text)
        graph = ResultGraph(result=conversion.edge, pins=extras.pins, source=lines, scans=conversion.scans)
        return await attester.attested(product, graph)

    def _sboms(self, lease: Lease) -> SbomMaker:
        """The maker of lists of packages."""
        builder, session = self._builder, self._session

        async def solve(edge: Edge) -> Tree:
            entitlements.check(edge, self._allowed())
            return await builder.solve(edge, session, lease, self._status)

        return SbomMaker(
            images=builder.images, snapshots=builder.snapshots, session=session, solve=solve, tell=self._status
        )

    # -- results ---------------------------------------------------------------------------------

    async def _export(self, names: Sequence[str], products: Sequence[Product], lease: Lease) -> Exported:
        """Make what is asked for of the products (KetchError)."""

        async def credentials(domain: str) -> Credentials | None:
            return given_credentials(self._request.credentials, domain)

        wanted = [Output(one, self._sink(number, one)) for number, one in enumerate(self._request.outputs)]
        order = ExportOrder(outputs=wanted, names=names, credentials=credentials, tell=self._status)
        return await self._builder.exporter.export(order, products, lease)

    def _sink(self, number: int, output: OutputRequest) -> DescriptorSink | StreamSink | None:
        """The one who takes an output; None: the image store."""
        snapshots = self._builder.snapshots
        if output.streamed:
            return StreamSink(snapshots, self._builder.tasks, self._listener, number)
        if output.fd >= 0 or output.kind in outputs.FILES:
            return DescriptorSink(snapshots, output)
        return None

    # -- caches of other machines ----------------------------------------------------------------

    async def _imported(self) -> list[CacheSource]:
        """The caches that are looked up in, beside this machine's own."""
        found: list[CacheSource] = []
        for place in self._request.cache_from:
            if self._request.classic:  # by Docker's API they are names of images that are here
                found += await self._builder.exchange.of_image(place.attrs["ref"])
                continue
            with phase(f"importing cache manifest from {exchange.shown(place)}", self._status) as step:
                found += await self._builder.exchange.imports(place, self._session, step.part)
        return found

    async def _export_caches(self, products: Sequence[Product], lease: Lease) -> None:
        """Write the caches that are asked for (KetchError)."""
        results = [(one.keys, one.tree.layers) for one in products]
        for place in self._request.cache_to:
            if place.kind != "inline":
                with phase(f"exporting cache to {exchange.shown(place)}", self._status) as step:
                    await self._builder.exchange.export(place, results, self._session, lease, step.part)

    def _explain(self, found: Sequence[Explanation]) -> None:
        """Tell why steps were not found in the cache."""
        rows = [
            BuildExplanation(vertex=one.vertex, name=one.name, reason=one.reason, details=list(one.details))
            for one in found
        ]
        if rows:
            self._listener.explained(BuildExplanations(rows))

    def _status(self, status: SolveStatus) -> None:
        """Pass a change on, and count the steps that have ended."""
        for state in status.vertexes:
            if state.completed and not state.error:
                self._states[state.digest] = (True, state.cached)
        self._listener.status(status)

    # -- what is told at the end -----------------------------------------------------------------

    def count(self) -> None:
        """Write into the record how many steps there were."""
        digests = {digest for one in self._conversions for digest, _ in one.places.all()}
        if not self._conversions:  # another front end knows which they are
            digests = set(self._states)
            self._record.total_steps = len(digests)
        found = [self._states[digest] for digest in digests if digest in self._states]
        self._record.completed_steps = len(found)
        self._record.cached_steps = sum(cached for _, cached in found)

    def _unused(self, dockerfile: FoundDockerfile) -> list[str]:
        """The arguments that were given and nothing declares."""
        found = stages.read(parser.parse(dockerfile.text))
        declared = set(_PREDEFINED)
        for one in (*found.args, *(i for stage in found.stages for i in stage.instructions)):
            declared |= {arg.name for arg in getattr(one, "args", ()) if hasattr(arg, "name")}
        return sorted(set(self._request.args) - declared)

    def failure(self, error: KetchError) -> BuildFailure:
        """The error as clients are told it, with the lines of the Dockerfile."""
        return self._failures.told(error)


async def _all(work: Sequence[Coroutine[Any, Any, Product]]) -> list[Product]:
    """The products, made at once; the first error ends the others."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
