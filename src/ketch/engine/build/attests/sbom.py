"""Lists of the packages in a build's results: by Ketch itself, or by an image that is made for it.

Such an image (a generator) gets each tree read-only and writes statements into a directory (BuildKit's
docs/attestations/sbom-protocol.md):

    BUILDKIT_SCAN_SOURCE         /run/src/core/sbom        the result
    BUILDKIT_SCAN_SOURCE_EXTRAS  /run/src/extras           further trees, sbom-NAME each, if there are any
    BUILDKIT_SCAN_DESTINATION    /run/out                  NAME.spdx.json for each
"""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING

from msgspec import Struct

from ketch.build.attest.sbom import spdx
from ketch.build.attest.sbom.scan import scan
from ketch.build.attest.statement import PROVENANCE, SPDX, Attestation
from ketch.build.llb import ops_pb2 as pb
from ketch.build.llb.operations import MountInput, execute, output_at, source
from ketch.build.sources.image import platform_message
from ketch.build.tree import EMPTY
from ketch.engine.build.attests import written
from ketch.engine.build.phases import phase
from ketch.errors import InvalidArgument
from ketch.notation import times
from ketch.oci import platform as platforms
from ketch.oci import reference

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from ketch.build.attest.options import SbomOptions
    from ketch.build.dockerfile.convert.scans import Scans
    from ketch.build.export.product import Product
    from ketch.build.llb.vertex import Edge
    from ketch.build.progress import SolveStatus
    from ketch.build.providers import BuildImages, BuildSession, BuildSnapshots, FoundImage
    from ketch.build.tree import Tree

_NAME = "sbom"
_SOURCE, _EXTRAS, _OUT = "/run/src/core", "/run/src/extras", "/run/out"


class SbomMaker(Struct, frozen=True, kw_only=True, eq=False):
    """The maker of lists for one build; ``solve`` gives the tree of an edge, ``tell`` hears of the progress."""

    images: BuildImages
    snapshots: BuildSnapshots
    session: BuildSession
    solve: Callable[[Edge], Awaitable[Tree]]
    tell: Callable[[SolveStatus], None]

    async def made(self, wanted: SbomOptions, product: Product, result: Edge | None, scans: Scans) -> list[Attestation]:
        """The lists of a product's packages, and of further results by their names (KetchError)."""
        shown = platforms.text(product.platform)
        if wanted.generator:
            if result is None:
                raise InvalidArgument("sbom: the result has no files", hint="leave the generator out")
            return await self._by_image(wanted, shown, result, scans)
        trees = {_NAME: product.tree}
        for name, edge in scans.trees.items():
            trees[f"{_NAME}-{name}"] = EMPTY if edge is None else await self.solve(edge)
        moment = times.rfc3339(time.time_ns() if product.epoch is None else product.epoch * 10**9)
        with phase(f"[{shown}] listing packages", self.tell):
            return [await self._listed(name, tree, moment) for name, tree in trees.items()]

    async def _listed(self, name: str, tree: Tree, moment: str) -> Attestation:
        """The list of a tree, made in a thread that ends soon after this is cancelled."""
        stop = threading.Event()

        def check() -> None:
            if stop.is_set():
                raise asyncio.CancelledError

        def work() -> bytes:
            if tree == EMPTY:
                return spdx.document(name, [], moment)
            with self.snapshots.opened(tree) as fd:
                return spdx.document(name, scan(fd, check), moment)

        task = asyncio.create_task(asyncio.to_thread(work))
        try:
            data = await asyncio.shield(task)
        except asyncio.CancelledError:
            stop.set()
            await asyncio.wait([task])
            raise
        return Attestation(predicate_type=SPDX, predicate=data, path=f"{name}.spdx.json")

    # -- by an image -----------------------------------------------------------------------------

    async def _by_image(self, wanted: SbomOptions, shown: str, result: Edge, scans: Scans) -> list[Attestation]:
        name = str(reference.parse(wanted.generator))
        found = await self.images.find(name, platforms.host(), "default", self.session)
        edge = _command(found, f"[{shown}] generating sbom using {found.reference}", result, scans, wanted.params)
        tree = await self.solve(edge)
        lists = await asyncio.to_thread(written.statements, self.snapshots, tree, "/", "sbom")
        if any(one.predicate_type.startswith(PROVENANCE) for one in lists):
            raise InvalidArgument(f"sbom: {name} wrote a provenance", hint="a generator may only list packages")
        return sorted(lists, key=lambda one: one.path.partition(".")[0] != _NAME)


def _command(found: FoundImage, shown: str, result: Edge, scans: Scans, params: Mapping[str, str]) -> Edge:
    """The generator's run over trees; the edge is what it writes (InvalidArgument: it has no command)."""
    config = found.config.config
    args = [*((config.entrypoint if config else None) or ()), *((config.cmd if config else None) or ())]
    if not args:
        raise InvalidArgument(f"scanner {found.reference} does not have cmd", hint="name an image that lists packages")
    env = {"BUILDKIT_SCAN_DESTINATION": f"{_OUT}/", "BUILDKIT_SCAN_SOURCE": f"{_SOURCE}/{_NAME}"}
    if scans.trees:
        env["BUILDKIT_SCAN_SOURCE_EXTRAS"] = f"{_EXTRAS}/"
    env |= {f"BUILDKIT_SCAN_{name}": value for name, value in params.items()}
    platform = platform_message(platforms.canonical(platforms.host()))
    image = source(f"docker-image://{found.reference}", {"image.resolvemode": "default"}, platform)
    mounts = [
        MountInput(pb.Mount(dest="/"), image),
        MountInput(pb.Mount(dest="/tmp", mountType=pb.TMPFS)),
        MountInput(pb.Mount(dest=f"{_SOURCE}/{_NAME}", readonly=True), result),
        *(
            MountInput(pb.Mount(dest=f"{_EXTRAS}/{_NAME}-{name}", readonly=True), edge)
            for name, edge in sorted(scans.trees.items())
        ),
        MountInput(pb.Mount(dest=_OUT)),
    ]
    given = list((config.env if config else None) or ())
    meta = pb.Meta(
        args=args,
        env=[*given, *(f"{name}={value}" for name, value in env.items())],
        cwd=(config.working_dir if config else None) or "/",
        user=(config.user if config else None) or "",
    )
    metadata = pb.OpMetadata(description={"llb.customname": shown}, ignore_cache=scans.ignore_cache)
    return output_at(execute(pb.ExecOp(meta=meta), mounts, platform, metadata), _OUT)
