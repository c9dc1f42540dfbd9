"""Operations of vertices: one for each kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ketch.build.ops.diff import DiffOperation
from ketch.build.ops.exec import ExecOperation
from ketch.build.ops.file import FileOperation
from ketch.build.ops.merge import MergeOperation
from ketch.errors import InvalidArgument, Unimplemented

if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.build.cache.contents import ContentDigests
    from ketch.build.llb.vertex import Vertex
    from ketch.build.operation import Operation
    from ketch.build.providers import BuildSnapshots, Executor


class OperationRegistry:
    """The maker of operations; ``source`` makes those of sources, which are of several kinds themselves."""

    def __init__(
        self,
        snapshots: BuildSnapshots,
        executor: Executor,
        contents: ContentDigests,
        source: Callable[[Vertex], Operation],
    ) -> None:
        self._makers: dict[str, Callable[[Vertex], Operation]] = {
            "source": source,
            "exec": lambda vertex: ExecOperation(vertex, executor, contents),
            "file": lambda vertex: FileOperation(vertex, snapshots, contents),
            "merge": lambda vertex: MergeOperation(vertex, snapshots),
            "diff": lambda vertex: DiffOperation(vertex, snapshots),
        }

    def __call__(self, vertex: Vertex) -> Operation:
        """The operation of a vertex (InvalidArgument, Unimplemented: there is none of its kind)."""
        maker = self._makers.get(vertex.kind)
        if maker is not None:
            return maker(vertex)
        if vertex.kind == "build":
            raise Unimplemented(f"build a graph within a graph ({vertex.name}): this version of Ketch does not")
        raise InvalidArgument(f"an operation of the kind `{vertex.kind or 'none'}` is not known")
