"""Digests of parts of trees by their content, equal to BuildKit's, by which results are found again.

Each is computed when it is asked for, by one thread for all who ask at once, and kept for the tree, which never
changes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

from ketch.build.cache import filtered
from ketch.build.cache.selections import Selection
from ketch.errors import NotFound
from ketch.oci import digest
from ketch.storage.tree_digests import NOTHING, FileTable, TreeDigests

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from ketch.build.providers import BuildSnapshots
    from ketch.build.tree import Tree

_MOST_RESULTS = 4096
_MOST_CLIENTS = 1024
_MOST_READERS = 4
_MOST_TREES = 32  # of whose directories the digests are kept
_MOST_DIRECTORIES = 1 << 16  # in all of them together: some 15 MB


class FormerTree(NamedTuple):
    """An older tree of the same directory, and the paths in it that are not the same, with all that lead to them."""

    tree: Tree
    changed: Collection[str]


class _Question(NamedTuple):
    tree: Tree
    selections: tuple[Selection, ...]
    of_client: bool


class _Answer:
    """A digest that is being computed, as long as anybody waits for it."""

    def __init__(self, question: _Question) -> None:
        self.question = question
        self.waiting = 0
        self.stop = threading.Event()
        self.task: asyncio.Task[str]

    def check(self) -> None:
        """End the work when nobody waits any more.  From the threads."""
        if self.stop.is_set():
            raise _GivenUp


class _GivenUp(Exception):
    pass


class ContentDigests:
    """Digests of what is in trees.  From the event loop."""

    def __init__(self, snapshots: BuildSnapshots) -> None:
        self._snapshots = snapshots
        self._table = FileTable()
        self._known: OrderedDict[_Question, str] = OrderedDict()
        self._answers: dict[_Question, _Answer] = {}
        self._clients: OrderedDict[Tree, None] = OrderedDict()
        self._directories: OrderedDict[Tree, dict[str, str]] = OrderedDict()  # of clients: digests by paths
        self._readers = ThreadPoolExecutor(min(os.cpu_count() or 1, _MOST_READERS), "build-hash")

    def from_client(self, tree: Tree, former: FormerTree | None = None) -> None:
        """Note that a tree is a client's directory: its root's own mode and owner do not count, as with BuildKit.

        What is known of a ``former`` one's directories is known of this one's, as far as nothing in them has changed.
        """
        self._clients[tree] = None
        if len(self._clients) > _MOST_CLIENTS:
            self._clients.popitem(last=False)
        if tree in self._directories:
            return
        known = self._directories.pop(former.tree, {}) if former is not None else {}
        changed = former.changed if former is not None else ()
        self._directories[tree] = {path: found for path, found in known.copy().items() if path not in changed}
        self._drop_directories()

    def _drop_directories(self) -> None:
        """Forget what is known of the oldest trees' directories, as far as there are too many."""
        known = self._directories
        while len(known) > _MOST_TREES or sum(map(len, known.values())) > _MOST_DIRECTORIES:
            known.popitem(last=False)

    async def digest(self, tree: Tree, selections: Sequence[Selection] = ()) -> str:
        """The digest of parts of a tree; without parts, of all of it (NotFound: a path is not there; DataLoss)."""
        question = _Question(tree, tuple(selections) or (Selection(),), tree in self._clients)
        known = self._known.get(question)
        if known is not None:
            self._known.move_to_end(question)
            return known
        answer = self._answers.get(question)
        if answer is None:
            answer = self._answers[question] = _Answer(question)
            answer.task = asyncio.create_task(self._answered(answer))
            answer.task.add_done_callback(asyncio.Task.exception)  # perhaps nobody waits for it
        answer.waiting += 1
        try:
            await asyncio.wait([answer.task])
            return answer.task.result()
        finally:
            answer.waiting -= 1
            if not answer.waiting and not answer.task.done():
                self._forget(answer)
                answer.stop.set()
                await asyncio.wait([answer.task])

    async def _answered(self, answer: _Answer) -> str:
        try:
            found = await asyncio.to_thread(self._computed, answer)
        finally:
            self._forget(answer)
            self._drop_directories()
        self._known[answer.question] = found
        if len(self._known) > _MOST_RESULTS:
            self._known.popitem(last=False)
        return found

    def _forget(self, answer: _Answer) -> None:
        if self._answers.get(answer.question) is answer:
            del self._answers[answer.question]

    def _computed(self, answer: _Answer) -> str:
        tree, selections, of_client = answer.question
        with contextlib.ExitStack() as stack:
            files = None
            if tree.layers:
                root_fd = stack.enter_context(self._snapshots.opened(tree))
                header = NOTHING if of_client else None
                directories = self._directories.get(tree)
                files = TreeDigests(root_fd, self._table, self._readers, answer.check, header, directories)
            found = [_selected(files, one) for one in selections]
        return digest.of(b"\0".join(one.encode() for one in found))


def _selected(files: TreeDigests | None, selection: Selection) -> str:
    path = filtered.cleaned(selection.path)
    if files is None:  # an empty directory, which has not even a root of its own
        if path == "/":
            return NOTHING
        raise NotFound(f"{path}: no such file or directory")
    if selection.filtered:
        return filtered.digest(files, path, selection)
    return filtered.of_path(files, path, follow=selection.follow)
