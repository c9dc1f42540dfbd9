"""A build as a front end elsewhere sees it: its results by id, its inputs, and what it returns at the end."""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING, NamedTuple

from ketch import threads
from ketch.buildkit.wire.gateway import gateway_pb2 as pb
from ketch.engine.build.frontends.containers import FrontendContainers
from ketch.engine.build.frontends.results import SINGLE, FrontendAttestation, FrontendResult
from ketch.errors import InvalidArgument, KetchError, NotFound

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ketch.build.errors import MountStates
    from ketch.build.llb import ops_pb2
    from ketch.build.tree import Tree
    from ketch.buildkit.wire.control.worker_pb2 import WorkerRecord
    from ketch.engine.build.executor import BuildExecutor
    from ketch.engine.build.frontends.bridge import Bridge
    from ketch.engine.build.frontends.results import Ref

_MOST_REFS = 10_000  # results of one front end
_LARGEST = 64 << 20  # bytes of metadata that one returns


class ReturnedError(KetchError):
    """An error that a front end has returned, with gRPC's status of it."""

    def __init__(self, code: int, message: str, details: Sequence[object]) -> None:
        super().__init__(message)
        self.code, self.details = code, tuple(details)


class LeftMounts(NamedTuple):
    """The ids of what a failed command's mounts had in them before it and behind it, by the numbers of the mounts."""

    before: Sequence[str] = ()
    after: Sequence[str] = ()


class GatewayBuild:
    """One; ``returned`` is what the front end gives at its end (a KetchError: what it failed with)."""

    def __init__(
        self,
        bridge: Bridge,
        executor: BuildExecutor,
        inputs: Mapping[str, ops_pb2.Definition],
        workers: Sequence[WorkerRecord],
    ) -> None:
        self.bridge, self.inputs, self.workers = bridge, inputs, workers
        self.containers = FrontendContainers(bridge, executor)
        self.returned: asyncio.Future[FrontendResult] = asyncio.get_running_loop().create_future()
        self._refs: dict[str, Ref] = {}
        self._left: dict[str, Tree] = {}

    async def close(self) -> None:
        """End its containers, however often this is cancelled."""
        await threads.to_the_end(self.containers.close())

    def keep(self, ref: Ref) -> str:
        """The id by which the front end knows a result (InvalidArgument: it has too many)."""
        if len(self._refs) >= _MOST_REFS:
            raise InvalidArgument(f"a front end has at most {_MOST_REFS} results")
        self._refs[ref.id] = ref
        return ref.id

    def ref(self, id: str) -> Ref | None:
        """A result by its id; None: an empty directory (NotFound)."""
        if not id:
            return None
        found = self._refs.get(id)
        if found is None:
            raise NotFound(f"no such ref: {id}")
        return found

    # -- what failed commands left -----------------------------------------------------------------

    async def keep_left(self, states: Sequence[MountStates]) -> LeftMounts:
        """Keep what the mounts of a failed command have in them, as long as the build; none of it when it is gone."""
        trees = [tree for one in states for tree in one if tree is not None]
        if len(self._left) + len(trees) > _MOST_REFS or not all([await self.bridge.held(tree) for tree in trees]):
            return LeftMounts()

        def kept(tree: Tree | None) -> str:
            if tree is None:
                return ""
            id = secrets.token_hex(12)
            self._left[id] = tree
            return id

        return LeftMounts([kept(one.before) for one in states], [kept(one.after) for one in states])

    def left(self, id: str) -> Tree | None:
        """The files of a failed command's mount, by their id; None: there are none of that id."""
        return self._left.get(id)

    # -- its result --------------------------------------------------------------------------------

    def returns(self, request: pb.ReturnRequest) -> None:
        """Take what the front end gives at its end (InvalidArgument, NotFound)."""
        if self.returned.done():
            raise InvalidArgument("return called twice")
        if request.HasField("error") and request.error.code:
            error = request.error
            self.returned.set_exception(ReturnedError(error.code, error.message, error.details))
            self.returned.exception()  # retrieved: whoever waits for it may be gone
            return
        self.returned.set_result(self.result_of(request.result))

    def result_of(self, message: pb.Result) -> FrontendResult:
        """A result that a front end names (NotFound: one of its parts is unknown)."""
        if sum(map(len, message.metadata.values())) > _LARGEST:
            raise InvalidArgument(f"a front end's metadata has more than {_LARGEST} bytes")
        found = FrontendResult(metadata=dict(message.metadata))
        match message.WhichOneof("result"):
            case "refDeprecated":
                ids = {SINGLE: message.refDeprecated}
            case "refsDeprecated":
                ids = dict(message.refsDeprecated.refs)
            case "ref":
                ids = {SINGLE: message.ref.id}
            case "refs":
                ids = {name: one.id for name, one in message.refs.refs.items()}
            case _:
                ids = {}
        for name, id in ids.items():
            found.refs[name] = self.ref(id) or self.bridge.ref(None)
        for name, several in message.attestations.items():
            found.attestations[name] = [self._attestation(one) for one in several.attestation]
        return found

    def _attestation(self, message: pb.Attestation) -> FrontendAttestation:
        return FrontendAttestation(
            kind=message.kind,
            ref=self.ref(message.ref.id),
            path=message.path,
            predicate=message.inTotoPredicateType,
            metadata=dict(message.metadata),
            subjects=[(one.kind, one.name, list(one.digest)) for one in message.inTotoSubjects],
        )

    def message_of(self, result: FrontendResult) -> pb.Result:
        """A result as a front end is told it."""
        found = pb.Result(metadata=result.metadata)
        if SINGLE in result.refs:
            found.ref.CopyFrom(self._told(result.refs[SINGLE]))
        elif result.refs:
            for name, ref in result.refs.items():
                found.refs.refs[name].CopyFrom(self._told(ref))
        for name, several in result.attestations.items():
            rows = found.attestations[name].attestation
            for one in several:
                row = rows.add(
                    kind=one.kind,
                    metadata=one.metadata,
                    path=one.path,
                    inTotoPredicateType=one.predicate,
                    inTotoSubjects=[
                        pb.InTotoSubject(kind=kind, name=name, digest=digests)  # type: ignore[arg-type]
                        for kind, name, digests in one.subjects
                    ],
                )
                if one.ref is not None:
                    row.ref.CopyFrom(self._told(one.ref))
        return found

    def _told(self, ref: Ref) -> pb.Ref:
        if ref.edge is None:
            return pb.Ref()
        definition = ref.definition()
        return pb.Ref(id=self.keep(ref), **({"def": definition} if definition is not None else {}))

    def vanished(self, error: KetchError) -> None:
        """Take the end of a front end that has returned nothing."""
        if not self.returned.done():
            self.returned.set_exception(error)
            self.returned.exception()
