"""Attestations of one build: its products with what is to be said of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from ketch.build.attest.capture import capture
from ketch.build.attest.options import MAX, ProvenanceOptions
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
    """The attestations that one build is asked for.

    ``noted`` gets the provenance of each product, also of those that are asked for none: for the history.
    """

    options: AttestOptions
    facts: BuildFacts
    sboms: SbomMaker
    noted: list[Provenance] | None = None

    @property
    def tells_steps(self) -> bool:
        """Whether the steps of a graph are told, and the lines that they come from."""
        told = self._told
        return told is not None and told.mode == MAX

    @property
    def _told(self) -> ProvenanceOptions | None:
        """The options of the provenance that is made; None: nobody wants any."""
        return self.options.provenance or (ProvenanceOptions() if self.noted is not None else None)

    async def attested(self, product: Product, graph: ResultGraph) -> Product:
        """A product with what is to be said of it (KetchError: its packages cannot be listed)."""
        wanted = self.options
        provenance = None
        if (told := self._told) is not None:
            provenance = Provenance(
                options=told,
                facts=msgspec.structs.replace(self.facts, directories=[*self.facts.directories, *graph.directories]),
                captured=capture(graph.result, graph.pins),
                result=graph.result,
                source=graph.source,
            )
            if self.noted is not None:
                self.noted.append(provenance)
        found = [*product.attestations]
        if wanted.sbom is not None and not graph.lists_packages:
            found += await self.sboms.made(wanted.sbom, product, graph.result, graph.scans)
        asked = provenance if wanted.provenance is not None else None
        return msgspec.structs.replace(product, provenance=asked, attestations=found)
