"""Builds that clients ask for: by a front end, by a graph, or as a front end of their own; and what comes of them."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from ketch.build import entitlements
from ketch.build.attest import options as attests
from ketch.build.attest.addresses import without_password
from ketch.build.attest.provenance import BuildFacts
from ketch.buildkit.control import histories, workers
from ketch.buildkit.gateway.failures import told
from ketch.buildkit.gateway.policies import policies_of
from ketch.buildkit.gateway.served import GatewayBuild
from ketch.buildkit.services.control import ControlService
from ketch.buildkit.session.sink import ClientLayoutSink, ClientSink, ClientTarSink
from ketch.buildkit.wire.control import control_pb2 as pb
from ketch.engine import os_errors
from ketch.engine.build.attests.attester import Attester
from ketch.engine.build.attests.sbom import SbomMaker
from ketch.engine.build.caches import exchange
from ketch.engine.build.exports import outputs
from ketch.engine.build.exports.exporter import ExportOrder
from ketch.engine.build.exports.outputs import Output
from ketch.engine.build.frontends.bridge import Bridge, FrontendRequest
from ketch.engine.build.frontends.products import products
from ketch.engine.build.images import session_credentials
from ketch.engine.build.phases import phase
from ketch.engine.build.service import ENDING
from ketch.engine.model.building.builds import CachePlace, OutputRequest
from ketch.engine.model.building.records import BuildRecord, RecordedExporter
from ketch.errors import InvalidArgument, KetchError, NotFound, Unavailable
from ketch.oci import manifest as oci
from ketch.oci import platform as platforms
from ketch.rpc.server import unary

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from ketch.build.attest.provenance import Provenance
    from ketch.build.export.product import Product
    from ketch.build.llb.vertex import Edge
    from ketch.build.progress import SolveStatus
    from ketch.build.tree import Tree
    from ketch.buildkit.control.jobs import BuildJob, BuildJobs
    from ketch.buildkit.session.client import ClientSession
    from ketch.buildkit.session.sessions import Sessions
    from ketch.engine.build.builder import Builder
    from ketch.engine.build.exports.exporter import Exported
    from ketch.engine.build.frontends.results import FrontendResult
    from ketch.engine.engine import Engine
    from ketch.remote.credentials import Credentials
    from ketch.rpc.server import Handlers
    from ketch.storage.content.leases import Lease

_ARCHIVES = ("docker", "oci")
_CLIENTS = (*_ARCHIVES, "local", "tar")  # outputs that go to the client
_FRONTEND_METADATA = "frontend."
_BUILD = "buildkit-controlapi-buildid"
_WAIT_S = 3.0  # for a build whose front end asks before it has begun


class Solves:
    """The builds that run; from the event loop only."""

    def __init__(self, engine: Engine, sessions: Sessions, jobs: BuildJobs) -> None:
        self._engine, self._sessions, self._jobs = engine, sessions, jobs
        self._served: dict[str, GatewayBuild] = {}
        self._arrivals: dict[str, list[asyncio.Future[GatewayBuild]]] = {}

    def handlers(self) -> Handlers:
        """The handler of Solve."""
        return {ControlService.Solve.path: (ControlService.Solve, unary(self._solve))}

    async def find(self, metadata: Mapping[str, Sequence[str]]) -> GatewayBuild:
        """The build whose client is its front end, by the metadata of a call (NotFound, InvalidArgument)."""
        ref = next(iter(metadata.get(_BUILD, ())), "")
        if not ref:
            raise InvalidArgument(f"of which build? the metadata {_BUILD} is missing")
        if (build := self._served.get(ref)) is not None:
            return build
        arrival: asyncio.Future[GatewayBuild] = asyncio.get_running_loop().create_future()
        waiting = self._arrivals.setdefault(ref, [])
        waiting.append(arrival)
        try:
            return await asyncio.wait_for(arrival, _WAIT_S)
        except TimeoutError:
            raise NotFound(f"no such job {ref}") from None
        finally:
            waiting.remove(arrival)
            if not waiting and self._arrivals.get(ref) is waiting:
                del self._arrivals[ref]

    async def _solve(self, request: pb.SolveRequest, metadata: Mapping[str, Sequence[str]]) -> pb.SolveResponse:
        """Build (RpcError)."""
        del metadata
        task = asyncio.current_task()
        assert task is not None
        try:
            self._engine.builds.begin(task, request.Ref)
            if not request.Session:
                raise InvalidArgument("a build needs a session", hint="connect one, and name it in the request")
            session = await self._sessions.get(request.Session)
            async with self._jobs.begin(request.Ref) as job:
                return await self._build(_Solve(self, self._engine.builds.builder(), request, session, job), job)
        except asyncio.CancelledError as e:
            if not self._engine.builds.closing:
                raise
            raise told(Unavailable(ENDING)) from e
        except KetchError as e:
            raise told(e) from e
        except OSError as e:
            raise told(os_errors.explained(e, "build")) from e

    async def _build(self, build: _Solve, job: BuildJob) -> pb.SolveResponse:
        """Build, and keep in the history how it went, unless the client only wants to know what there is."""
        if build.internal:
            return await build.run()
        record, history = build.record, self._engine.builds.history
        async with histories.recorded(history, job, record):
            answer = await build.run()
            await asyncio.to_thread(histories.note_provenance, history, record, build.provenances)
            record.response = dict(answer.ExporterResponse)
            return answer

    async def served(self, request: pb.SolveRequest, bridge: Bridge, session: ClientSession) -> FrontendResult:
        """The result that a client gives as the front end of its build (KetchError; Unavailable: it is gone)."""
        ref = request.Ref
        executor = self._engine.builds.executor
        build = GatewayBuild(bridge, executor, dict(request.FrontendInputs), [workers.worker(self._engine)])
        self._served[ref] = build
        for arrival in self._arrivals.get(ref, ()):
            if not arrival.done():
                arrival.set_result(build)
        ends: list[asyncio.Future[Any]] = [build.returned, session.channel.closed]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if not build.returned.done():
                raise Unavailable(f"the client is the front end of this build, and has gone: {session.channel.why}")
            return build.returned.result()
        finally:
            del self._served[ref]
            build.returned.cancel()
            await build.close()


class _Solve:
    """One build; `run` it once."""

    def __init__(
        self, solves: Solves, builder: Builder, request: pb.SolveRequest, session: ClientSession, job: BuildJob
    ) -> None:
        self._solves, self._builder, self._request, self._session, self._job = solves, builder, request, session, job
        self._attrs = dict(request.FrontendAttrs)
        self._outputs = [self._output(number, one) for number, one in enumerate(_asked_outputs(request))]
        self._caches = [CachePlace(kind=one.Type, attrs=dict(one.Attrs)) for one in request.Cache.Exports]
        self._states: dict[str, bool] = {}  # steps by their digests: whether they have ended
        self.internal = request.Internal
        self.provenances: list[Provenance] = []
        self.record = self._new_record()

    async def run(self) -> pb.SolveResponse:
        """Build (KetchError)."""
        request, builder = self._request, self._builder
        wanted = attests.read(self._attrs)
        outputs.check([one.request for one in self._outputs], many=True)
        exchange.check([], [one for one in self._caches if one.kind != "local"])
        async with AsyncExitStack() as stack:
            lease = await builder.lease(stack)
            allowed = entitlements.granted(request.Entitlements, builder.denied)
            bridge = Bridge(builder, self._session, lease, self._status, allowed=allowed)
            stack.push_async_callback(bridge.close)
            bridge.policies += policies_of([request.SourcePolicy]) if request.HasField("SourcePolicy") else []
            result = await self._result(bridge)
            if request.EnableSessionExporter:
                await self._choose_outputs(result)
            facts = BuildFacts(
                ref=request.Ref,
                started=self.record.created,
                machine=platforms.host(),
                frontend=request.Frontend or "dockerfile.v0",
                attrs=self._attrs,
            )
            noted = None if self.internal else self.provenances
            attester = Attester(options=wanted, facts=facts, sboms=self._sboms(bridge), noted=noted)
            if not self._outputs and not self._caches:
                await asyncio.gather(*(ref.tree() for ref in result.refs.values()))
                await builder.solver.settled()
                return _response({}, result)
            inline = exchange.inline_asked(self._caches)
            made = await products(bridge, result, attester, inline_cache=inline)
            exported = await self._export(made, lease)
            cached = await self._export_caches(made, lease)
            await builder.solver.settled()
        return _response({**exported, **cached}, result)

    async def _result(self, bridge: Bridge) -> FrontendResult:
        """The result of the front end that is asked for, of a graph, or of the client as the front end."""
        request = self._request
        given = request.HasField("Definition") and len(getattr(request.Definition, "def")) > 0
        imports = [CachePlace(kind=one.Type, attrs=dict(one.Attrs)) for one in request.Cache.Imports]
        if not request.Frontend and not given:
            await bridge.use_caches(imports)
            return await self._solves.served(request, bridge, self._session)
        return await bridge.solve(
            FrontendRequest(
                frontend=request.Frontend,
                attrs=self._attrs,
                definition=request.Definition if given else None,
                inputs=dict(request.FrontendInputs),
                caches=imports,
            )
        )

    def _sboms(self, bridge: Bridge) -> SbomMaker:
        """The maker of lists of packages."""

        async def solve(edge: Edge) -> Tree:
            return await bridge.ref(edge).tree()

        return SbomMaker(
            images=self._builder.images,
            snapshots=self._builder.snapshots,
            session=self._session,
            solve=solve,
            tell=self._status,
        )

    # -- results ---------------------------------------------------------------------------------

    async def _export(self, made: Sequence[Product], lease: Lease) -> dict[str, str]:
        """Make all outputs; what clients are told of them (KetchError)."""
        if not self._outputs:
            return {}

        async def credentials(domain: str) -> Credentials | None:
            return await session_credentials(domain, self._session)

        order = ExportOrder(outputs=self._outputs, names=(), credentials=credentials, tell=self._status)
        exported: Exported = await self._builder.exporter.export(order, made, lease)
        self.record.image = exported.image
        if exported.image and exported.top is not None:
            histories.note_result(self.record, exported.top)
        return exported.metadata

    async def _choose_outputs(self, result: FrontendResult) -> None:
        """Add the outputs that the client chooses now that it can know the result (KetchError)."""
        refs = [one.id for one in result.refs.values()]
        chosen = await self._session.exporters(result.metadata, refs)
        for one in chosen:
            output = OutputRequest(kind=one.Type, attrs=dict(one.Attrs))
            outputs.check([output], many=True)
            self._outputs.append(self._output(len(self._outputs), output))
            self.record.exporters.append(RecordedExporter(kind=output.kind, attributes=output.attrs))

    def _output(self, number: int, output: OutputRequest) -> Output:
        """An output, with the client as the one who takes it, or the image store."""
        if output.kind not in _CLIENTS:
            return Output(output)
        kind: type[ClientSink] = ClientTarSink if output.kind == "tar" else ClientSink
        attrs = dict(output.attrs)
        if output.kind in _ARCHIVES and attrs.pop("tar", "true") in ("false", "0"):
            kind = ClientLayoutSink
        sink = kind(self._session, self._builder.snapshots, self._builder.tasks, number)
        return Output(OutputRequest(kind=output.kind, attrs=attrs), sink)

    async def _export_caches(self, made: Sequence[Product], lease: Lease) -> dict[str, str]:
        """Write the caches that are asked for; what clients are told of them (KetchError)."""
        results = [(one.keys, one.tree.layers) for one in made]
        answers: dict[str, str] = {}
        for place in self._caches:
            if place.kind == "inline":
                continue
            with phase(f"exporting cache to {exchange.shown(place)}", self._status) as step:
                manifest = await self._builder.exchange.export(place, results, self._session, lease, step.part)
            if manifest is not None:
                answers["cache.manifest"] = oci.encode(manifest).decode()
        return answers

    def _status(self, status: SolveStatus) -> None:
        """Pass a change on, and count the steps."""
        record = self.record
        for one in status.vertexes:
            if one.digest not in self._states:
                record.total_steps += 1
                self._states[one.digest] = False
            if one.completed and not one.error and not self._states[one.digest]:
                self._states[one.digest] = True
                record.completed_steps += 1
                record.cached_steps += one.cached
        record.warnings += len(status.warnings)
        self._job.status(status)

    def _new_record(self) -> BuildRecord:
        names = next((one.request.attrs["name"] for one in self._outputs if one.request.attrs.get("name")), "")
        attrs = {name: without_password(value) for name, value in self._attrs.items()}
        return BuildRecord(
            ref=self._request.Ref,
            name=names.partition(",")[0] or attrs.get("target", "") or attrs.get("filename", ""),
            created=time.time_ns(),
            target=attrs.get("target", ""),
            platforms=[one for one in attrs.get("platform", "").split(",") if one],
            dockerfile=attrs.get("filename", ""),
            context=attrs.get("context", ""),
            frontend=self._request.Frontend or "dockerfile.v0",
            attributes=attrs,
            exporters=[RecordedExporter(kind=one.request.kind, attributes=one.request.attrs) for one in self._outputs],
        )


def _asked_outputs(request: pb.SolveRequest) -> list[OutputRequest]:
    """The outputs of a request; older clients can name one alone."""
    found = [OutputRequest(kind=one.Type, attrs=dict(one.Attrs)) for one in request.Exporters]
    if not found and request.ExporterDeprecated:
        found.append(OutputRequest(kind=request.ExporterDeprecated, attrs=dict(request.ExporterAttrsDeprecated)))
    return found


def _response(answers: Mapping[str, str], result: FrontendResult) -> pb.SolveResponse:
    """The answer: what exporters tell, and what a front end lets through."""
    found = dict(answers)
    for name, value in result.metadata.items():
        if name.startswith(_FRONTEND_METADATA):
            found[name] = value.decode("utf-8", "replace")
    return pb.SolveResponse(ExporterResponse=found)
