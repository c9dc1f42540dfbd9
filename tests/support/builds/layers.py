"""Layers for tests of operations: plain directories, and what is in a tree of them."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import stat
from contextlib import contextmanager

from ketch.build.tree import EMPTY, Tree
from ketch.runtime.rootfs.overlay import open_overlay
from ketch.storage.drafts.stack import opened
from ketch.storage.tree_copy import xattrs


class PlainDraft:
    """A layer in the making."""

    def __init__(self, snapshots, name):
        self._snapshots, self._name = snapshots, name
        self.directory = str(snapshots.root / f"draft-{name}")
        self.committed = False
        os.mkdir(self.directory, 0o755)

    def commit(self):
        self.committed = True
        os.rename(self.directory, self._snapshots.directory(self._name))
        return self._name

    def abort(self):
        if not self.committed:
            shutil.rmtree(self.directory)


class PlainSnapshots:
    """Layers that are directories below ``root`` and stay there."""

    def __init__(self, root):
        self.root = root
        self._numbers = itertools.count()

    def begin(self, lease):
        del lease
        return PlainDraft(self, f"built-{next(self._numbers)}")

    def directory(self, layer):
        return str(self.root / layer)

    def add(self, fill):
        """A layer with what a function puts into its directory; its tree."""
        draft = self.begin(None)
        fill(draft.directory)
        return Tree((draft.commit(),))

    @contextmanager
    def opened(self, tree):
        """The tree as overlay shows it."""
        if not tree.layers:
            (self.root / "empty").mkdir(exist_ok=True)
        lowers = [self.directory(layer) for layer in reversed(tree.layers)] or [str(self.root / "empty")]
        mount_fd = open_overlay([f"lowerdir={':'.join(lowers)}", "ro"])
        fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=mount_fd)
        os.close(mount_fd)
        try:
            yield fd
        finally:
            os.close(fd)


class PlainWork:
    """One vertex at work."""

    lease = None
    sessions = ()
    log = None


def run(operation, *inputs):
    """The outputs of an operation."""
    return asyncio.run(operation.run(PlainWork(), inputs))


def listed(snapshots, tree):
    """Every entry of a tree: (path, lstat, content or target, xattrs, first name of a hard link), in order."""
    found = []
    first = {}
    with opened([snapshots.directory(layer) for layer in tree.layers]) as stack, stack.walk() as at:
        levels = [iter(at.entries())] if tree != EMPTY else []
        path = []
        while levels:
            name, layer = next(levels[-1], ("", 0))
            if not name:
                levels.pop()
                if path:
                    path.pop()
                    at.leave()
                continue
            entry = at.find(name)
            if entry is None:
                continue
            whole = "/".join((*path, name))
            status = entry.status
            content, link = b"", ""
            if stat.S_ISREG(status.st_mode):
                with open(os.open(name, os.O_RDONLY, dir_fd=entry.dir_fd), "rb") as file:
                    content = file.read()
            elif stat.S_ISLNK(status.st_mode):
                content = os.readlink(name, dir_fd=entry.dir_fd).encode()
            if not stat.S_ISDIR(status.st_mode):
                link = first.setdefault((layer, status.st_ino), whole)
            attributes = xattrs(f"/proc/self/fd/{entry.dir_fd}/{name}")
            found.append((whole, status, content, attributes, link if link != whole else ""))
            if stat.S_ISDIR(status.st_mode):
                at.enter(name)
                path.append(name)
                levels.append(iter(at.entries()))
    return found
