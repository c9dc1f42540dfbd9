"""Attestations of one build: its products with what is to be said of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from ketch.build.attest.capture import capture
from ketch.build.attest.options import MAX
from ketch.build.attest.provenance import Provenance
from ketch.build.dockerfile.convert.scans import Scans

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from ketch.build.attest.options import AttestOptions
    from ketch.build.attest.provenance import BuildFacts
    from ketch.build.export.product import Product
    from ketch.build.llb import ops_pb2 as pb
    from ketch.build.llb.vertex import Edge
    from ketch.engine.build.attests.sbom import SbomMaker


class ResultGraph(Struct, frozen=True, kw_only=True, eq=False):
    """The graph of a result: what it is of, what its sources stood for, the lines of its vertices.

    ``scans``: further trees whose packages are to be listed; ``lists_packages``: the front end has listed them itself;
    ``directories``: those of the client that were read to find out what it is.
    """

    result: Edge | None
    pins: Mapping[str, str]
    source: pb.Source | None = None
    scans: Scans = Scans()
    lists_packages: bool = False
    directories: Collection[str] = ()


class Attester(Struct, frozen=True, kw_only=True, eq=False):
    """The attestations that one build is asked for."""

    options: AttestOptions
    facts: BuildFacts
    sboms: SbomMaker

    @property
    def tells_steps(self) -> bool:
        """Whether the steps of a graph are told, and the lines that they come from."""
        return self.options.provenance is not None and self.options.provenance.mode == MAX

    async def attested(self, product: Product, graph: ResultGraph) -> Product:
        """A product with what is to be said of it (KetchError: its packages cannot be listed)."""
        wanted = self.options
        provenance = None
        if wanted.provenance is not None:
            provenance = Provenance(
                options=wanted.provenance,
                facts=msgspec.structs.replace(self.facts, directories=[*self.facts.directories, *graph.directories]),
                captured=capture(graph.result, graph.pins),
                result=graph.result,
                source=graph.source,
            )
        found = [*product.attestations]
        if wanted.sbom is not None and not graph.lists_packages:
            found += await self.sboms.made(wanted.sbom, product, graph.result, graph.scans)
        return msgspec.structs.replace(product, provenance=provenance, attestations=found)
