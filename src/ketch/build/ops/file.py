"""Operations on files: copies, directories, files, links made and removed; each result is one new layer.

An action takes what an earlier one made as its tree, or as the source of its files.  Actions that follow each other
alone write into the same layer; what several of them use, or is a result, becomes a layer of its own.
"""

from __future__ import annotations

import errno
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from ketch.build.cache.maps import file_map
from ketch.build.ops import making
from ketch.build.ops.copying import copy
from ketch.build.ops.owners import owner_of
from ketch.build.ops.threads import in_thread
from ketch.build.tree import EMPTY, Tree
from ketch.errors import AlreadyExists, InvalidArgument, KetchError, NotFound, ResourceExhausted
from ketch.storage.drafts.draft import begun
from ketch.storage.drafts.stack import LayerStack, opened
from ketch.undo import Undo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from ketch.build.cache.contents import ContentDigests
    from ketch.build.llb import ops_pb2 as pb
    from ketch.build.llb.vertex import Vertex
    from ketch.build.operation import CacheMap, Work
    from ketch.build.providers import BuildSnapshots, LayerDraft
    from ketch.storage.content.leases import Lease
    from ketch.storage.drafts.draft import Draft

_NOTHING = -1
_MISSING = (errno.ENOENT, errno.ENOTDIR)
_FULL = (errno.ENOSPC, errno.EDQUOT)


class FileOperation:
    """An operation on files."""

    def __init__(self, vertex: Vertex, snapshots: BuildSnapshots, contents: ContentDigests) -> None:
        self._op, self._snapshots, self._contents = vertex.op, snapshots, contents

    async def cache_maps(self, work: Work) -> Sequence[CacheMap]:
        """One map, by the contents of what is copied."""
        del work
        return [file_map(self._op, self._contents)]

    async def run(self, work: Work, inputs: Sequence[Tree]) -> Sequence[Tree]:
        """Make the outputs (KetchError)."""
        lease = work.lease
        return await in_thread(lambda check: _Actions(self._op.file, self._snapshots, lease, inputs, check).run())


class _Writing:
    """A layer that actions write, one after the other."""

    def __init__(self, below: Tree, layer: LayerDraft, draft: Draft, closing: ExitStack) -> None:
        self.below, self.layer, self.draft = below, layer, draft
        self._closing = closing

    def finish(self) -> Tree:
        """Close it, and make it a layer."""
        self._closing.close()
        return Tree((*self.below.layers, self.layer.commit()))


class _Actions:
    """The actions of one operation, carried out in order."""

    def __init__(
        self,
        op: pb.FileOp,
        snapshots: BuildSnapshots,
        lease: Lease,
        inputs: Sequence[Tree],
        check: Callable[[], None],
    ) -> None:
        self._actions, self._snapshots, self._lease, self._check = op.actions, snapshots, lease, check
        self._first = len(inputs)
        self._trees: dict[int, Tree] = dict(enumerate(inputs))
        self._trees[_NOTHING] = EMPTY
        self._writing: dict[int, _Writing] = {}
        self._uses = self._counted()
        self._undo = Undo()

    def run(self) -> list[Tree]:
        """The trees of the outputs, by their numbers."""
        outputs = {action.output: index for index, action in enumerate(self._actions) if action.output != _NOTHING}
        if not outputs or sorted(outputs) != list(range(len(outputs))):
            raise InvalidArgument("no outputs specified" if not outputs else "missing or duplicate output index")
        with self._undo:
            for index, action in enumerate(self._actions):
                if index + self._first in self._uses:
                    self._carry_out(index, action)
            return [self._tree(outputs[number] + self._first) for number in range(len(outputs))]

    def _counted(self) -> dict[int, int]:
        """The number of uses of each action that is needed; a result is used twice: others go on with it."""
        uses: dict[int, int] = {}
        for index in reversed(range(len(self._actions))):
            action, number = self._actions[index], index + self._first
            if action.output != _NOTHING:
                uses[number] = uses.get(number, 0) + 2
            if number in uses:
                for used in (action.input, action.secondaryInput, action.secondaryInput, *_named_inputs(action)):
                    uses[used] = uses.get(used, 0) + 1
        return uses

    def _tree(self, number: int) -> Tree:
        """The tree of an input, or of an action that was carried out."""
        if number not in self._trees:
            if number not in self._writing:
                raise InvalidArgument(f"invalid input index {number}")
            self._trees[number] = self._writing.pop(number).finish()
        return self._trees[number]

    def _carry_out(self, index: int, action: pb.FileAction) -> None:
        kind = action.WhichOneof("action") or ""
        message = getattr(action, kind)
        with ExitStack() as trees:

            def tree(number: int) -> LayerStack:
                return trees.enter_context(self._opened(self._tree(number)))

            owner = None
            if kind != "rm" and message.HasField("owner"):
                owner = owner_of(message.owner, tree)
            source = tree(action.secondaryInput) if kind == "copy" else None
            writing = self._begin(action.input)
            with _explained(_description(kind, message)):
                match kind:
                    case "copy":
                        copy(writing.draft, source or LayerStack(()), message, owner, self._check)
                    case "mkdir":
                        making.make_directory(writing.draft, message, owner)
                    case "mkfile":
                        making.make_file(writing.draft, message, owner)
                    case "symlink":
                        making.make_link(writing.draft, message, owner)
                    case "rm":
                        making.remove(writing.draft, message)
                    case _:
                        raise InvalidArgument("invalid nil action of file op")
        self._writing[index + self._first] = writing

    def _begin(self, base: int) -> _Writing:
        """The layer for an action: that of the one before, when nobody else uses it, else a new one upon its tree."""
        if base in self._writing and self._uses[base] == 1:
            return self._writing.pop(base)
        below = self._tree(base)
        layer = self._snapshots.begin(self._lease)
        self._undo.callback(layer.abort)
        closing = self._undo.enter_context(ExitStack())
        draft = closing.enter_context(begun(layer.directory, self._directories(below)))
        return _Writing(below, layer, draft, closing)

    def _opened(self, tree: Tree) -> AbstractContextManager[LayerStack]:
        return opened(self._directories(tree))

    def _directories(self, tree: Tree) -> list[str]:
        return [self._snapshots.directory(layer) for layer in tree.layers]


def _named_inputs(action: pb.FileAction) -> list[int]:
    """The inputs whose files tell an owner's number."""
    message = getattr(action, action.WhichOneof("action") or "rm")
    if action.WhichOneof("action") in (None, "rm"):
        return []
    both = (message.owner.user, message.owner.group)
    return [one.byName.input for one in both if one.WhichOneof("user") == "byName"] * 2


def _description(kind: str, message: object) -> str:
    """An action as messages name it."""
    path = getattr(message, "path", "") or getattr(message, "dest", "") or getattr(message, "newpath", "")
    return f"{kind} {path}"


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turn the system's errors into sentences."""
    try:
        yield
    except OSError as e:
        raise _explain(what, e) from e


def _explain(what: str, error: OSError) -> KetchError:
    reason = (error.strerror or str(error)).lower()
    name = error.filename if isinstance(error.filename, str) else ""
    if error.errno in _FULL:
        return ResourceExhausted(f"{what}: no space left on device", hint="make room, for instance with: builder prune")
    message = f"{what}: {name}: {reason}" if name else f"{what}: {reason}"
    if error.errno in _MISSING:
        return NotFound(message)
    if error.errno == errno.EEXIST:
        return AlreadyExists(message)
    return KetchError(message)
