"""The surroundings of source operations in tests: a client, layers that are plain directories, a log that is kept."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
from pathlib import Path

from ketch.build.llb.operations import source
from ketch.build.providers import LocalDirectory
from ketch.build.sources.kept.stores import SourceStores
from ketch.build.sources.sources import Sources
from ketch.errors import NotFound
from ketch.storage.content.layout_directory import LayoutDirectory
from ketch.storage.contexts.copies import ContextCopies


class FolderDraft:
    """A layer in the making."""

    def __init__(self, folders, layer=None):
        self._folders = folders
        self.directory = str(folders.root / f"draft-{next(folders.numbers)}")
        if layer is None:
            os.mkdir(self.directory, 0o755)
        else:
            os.rename(folders.directory(layer), self.directory)

    @property
    def work(self):
        path = f"{self.directory}-work"
        os.makedirs(path, exist_ok=True)
        return path

    def commit(self):
        name = f"built-{next(self._folders.numbers)}"
        os.rename(self.directory, self._folders.directory(name))
        self._remove_work()
        return name

    def _remove_work(self):
        shutil.rmtree(f"{self.directory}-work", ignore_errors=True)

    def abort(self):
        if os.path.exists(self.directory):
            shutil.rmtree(self.directory)
            self._remove_work()


class LayerFolders:
    """Layers that are directories below ``root`` and stay there."""

    def __init__(self, root):
        self.root = root
        self.numbers = itertools.count()
        self.resumes = False  # whether they may be written again
        self.leased = set()
        root.mkdir()

    def begin(self, lease):
        del lease
        return FolderDraft(self)

    def held(self, layer):
        return layer in self.leased

    def resume(self, layer, lease):
        del lease
        return FolderDraft(self, layer) if self.resumes else None

    def exists(self, layer):
        return os.path.isdir(self.directory(layer))

    def directory(self, layer):
        return str(self.root / layer)


class SourceClient:
    """A client of a build: descriptors of its directories, its secrets, an agent's socket."""

    def __init__(self, name="client-1"):
        self.id = name
        self.directories, self.secrets, self.agents, self.passwords, self.uploads = {}, {}, {}, {}, {}

    async def directory(self, name):
        if name not in self.directories:
            raise NotFound(f"no local directory {name}")
        return self.directories[name]

    async def layout(self, name):
        return LayoutDirectory((await self.directory(name)).fd)

    async def secret(self, name):
        return self.secrets.get(name)

    async def ssh_agent(self, name):
        return self.agents.get(name)

    def keeper(self, _host):
        return None

    async def credentials(self, host):
        return self.passwords.get(host)

    async def uploaded(self, host, path):
        if path not in self.uploads:
            raise NotFound(f"nothing at http://{host}{path}")
        for piece in self.uploads.pop(path):
            yield piece


class HoldingLease:
    """A lease that notes what it holds."""

    def __init__(self):
        self.names = set()

    def hold(self, *names):
        self.names.update(names)


class SourceWork:
    """A vertex at work, and the log of it."""

    def __init__(self, *sessions):
        self.sessions, self.lease, self.log, self.followed = sessions, HoldingLease(), self, False
        self.statuses, self.output, self.pinned = [], b"", ""

    def pin(self, found):
        self.pinned = found

    def write(self, stream, data):
        del stream
        self.output += data

    def status(self, name, current, total=0, *, done=False):
        self.statuses.append((name, current, total, done))

    def warn(self, text):
        raise AssertionError(text)


class SourceBox:
    """Sources with places of their own below a directory; ``run`` gives the directory of the layer that was made."""

    def __init__(self, root, images=None, layouts=None):
        self.layers = LayerFolders(root / "layers")
        self.contexts = ContextCopies(str(root / "contexts"))
        self.seen, self.formers = [], []
        self.client = SourceClient()
        self.kept = SourceStores(str(root / "sources"), lambda remove: remove())
        self.sources = Sources(
            snapshots=self.layers,
            images=images,
            layouts=layouts,
            contexts=self.contexts,
            kept=self.kept,
            from_client=self._made,
        )

    def _made(self, tree, former):
        self.seen.append(tree)
        self.formers.append(former)

    def give(self, name, path, *, private=False):
        """Let the client give a directory."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        self.client.directories[name] = LocalDirectory(fd=fd, private=private)

    def close(self):
        for directory in self.client.directories.values():
            os.close(directory.fd)

    def operation(self, identifier, platform=None, **attrs):
        """The operation of a source; in attributes' names an underscore stands for a dot."""
        named = {name.replace("_", "."): value for name, value in attrs.items()}
        return self.sources.operation(source(identifier, named, platform).vertex)

    async def both(self, operation, work=None):
        """The maps of an operation, and what it makes."""
        work = work or SourceWork(self.client)
        maps = await operation.cache_maps(work)
        return maps, await operation.run(work, ())

    def run(self, identifier, work=None, **attrs):
        """The maps of a source, and the directory of its layer."""
        maps, (tree,) = asyncio.run(self.both(self.operation(identifier, **attrs), work))
        return maps, Path(self.layers.directory(tree.layers[0]))
