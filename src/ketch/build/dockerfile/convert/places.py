"""The lines of a Dockerfile from which each vertex of a graph comes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ketch.build.llb import ops_pb2 as pb
from ketch.build.llb.vertex import in_order

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ketch.build.dockerfile.errors import Span
    from ketch.build.llb.vertex import Edge, Vertex


class Places:
    """The lines of vertices; a vertex that several instructions make has those of all."""

    def __init__(self) -> None:
        self._spans: dict[str, list[Span]] = {}

    def add(self, vertex: Vertex, span: Span) -> None:
        """Note an instruction that makes a vertex."""
        spans = self._spans.setdefault(vertex.digest, [])
        if span not in spans:
            spans.append(span)

    def of(self, digest: str) -> list[Span]:
        """The lines that a vertex comes from."""
        return self._spans.get(digest, [])

    def all(self) -> Iterable[tuple[str, list[Span]]]:
        """All vertices that come from lines, with these."""
        return self._spans.items()

    def message(self, result: Edge, name: str, data: bytes) -> pb.Source:
        """The lines of a graph's vertices, for its definition; with the file."""
        found = pb.Source(infos=[pb.SourceInfo(filename=name, data=data, language="Dockerfile")])
        for one in in_order([result.vertex]):
            found.locations[one.digest].SetInParent()
            for span in self.of(one.digest):
                lines = [pb.Position(line=number) for number in range(span.start, span.end + 1)]
                ranges = [pb.Range(start=line, end=line) for line in lines]
                found.locations[one.digest].locations.append(pb.Location(ranges=ranges))
        return found
