"""Protocols of those who serve a build: with layers, containers, images, the client's directories and secrets.

The builder knows neither engine nor API; this is all that it asks of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

from ketch.build.tree import EMPTY, Tree

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from ketch.oci.config import ImageConfig
    from ketch.oci.manifest import Descriptor, Platform
    from ketch.remote.credentials import CredentialKeeper
    from ketch.storage.content.leases import Lease
    from ketch.storage.contexts.sent import SentEntry


# -- layers --------------------------------------------------------------------------------------


class LayerDraft(Protocol):
    """A layer that is being written.  Blocking."""

    @property
    def directory(self) -> str:
        """The directory for its files, in the form of an overlay's upper directory; on one file system with layers."""
        ...

    @property
    def work(self) -> str:
        """A directory beside that one for an overlay's work; it goes with ``commit``."""
        ...

    def commit(self) -> str:
        """Make it a layer, which never changes again, and return its id, which the lease holds."""
        ...

    def abort(self) -> None:
        """Remove it; of one that was committed nothing happens."""
        ...


class BuildSnapshots(Protocol):
    """The keeper of layers.  Blocking, from any thread."""

    def lease(self) -> AbstractContextManager[Lease]:
        """A lease; at its end what nothing else needs is removed."""
        ...

    def begin(self, lease: Lease) -> LayerDraft:
        """A new, empty layer."""
        ...

    def held(self, layer: str) -> bool:
        """Whether a lease holds a layer."""
        ...

    def resume(self, layer: str, lease: Lease) -> LayerDraft | None:
        """A layer that was made here as one that is being written; None: somebody else than the lease needs it."""
        ...

    def exists(self, layer: str) -> bool:
        """Whether a layer is here and whole."""
        ...

    def directory(self, layer: str) -> str:
        """The directory of a layer's own files (DataLoss: it is gone)."""
        ...

    def opened(self, tree: Tree) -> AbstractContextManager[int]:
        """A descriptor of the whole tree, read-only; nothing is mounted where others see it (DataLoss)."""
        ...

    def size(self, layer: str) -> int:
        """The bytes of a layer's files; a hard link that it shares with another layer counts."""
        ...

    def sync(self, layers: Collection[str]) -> None:
        """Bring leased layers to the disk, in one call for many (DataLoss: they may not have reached it)."""
        ...


# -- commands ------------------------------------------------------------------------------------


class CommandMount(msgspec.Struct, frozen=True, kw_only=True):
    """A directory or a file that a command sees at ``dest``, beside its root.

    ``kind``: ``bind`` (of ``tree``, its part ``selector``), ``cache`` (the directory ``cache_id``, shared with other
    builds as ``sharing`` says: ``shared``, ``private`` or ``locked``; ``tree`` is what it begins with), ``tmpfs``
    (``size`` in bytes, 0: no limit), ``secret`` (a file with the bytes ``data``), ``ssh`` (the agent's socket,
    ``socket_path`` on this machine).  What is written to a bind mount with ``kept`` becomes a layer of its own upon
    ``tree``; what is written to one without is lost.
    """

    dest: str
    kind: str = "bind"
    tree: Tree = EMPTY
    selector: str = ""
    readonly: bool = False
    kept: bool = False
    cache_id: str = ""
    sharing: str = "shared"
    size: int = 0
    data: bytes = b""
    socket_path: str = ""
    uid: int = 0
    gid: int = 0
    mode: int = 0


class BuildCommand(msgspec.Struct, frozen=True, kw_only=True):
    """A command in a root of its own: ``root`` is written to and becomes a layer, unless it is ``root_readonly``.

    ``network``: ``default``, ``host``, ``none``, ``container:NAME``, or a network's name; ``user`` as in a Dockerfile's
    USER; ``limits`` are (name, soft, hard); ``hosts`` are (name, address); ``secret_env`` is never shown and never
    kept; ``resources`` have the names of LLB's LinuxResources; ``tty``: it has a terminal, for those who hold its
    streams.
    """

    args: Sequence[str]
    env: Sequence[str] = ()
    secret_env: Mapping[str, str] = {}
    cwd: str = "/"
    user: str = ""
    root: Tree = EMPTY
    root_selector: str = ""
    root_readonly: bool = False
    root_kept: bool = True
    mounts: Sequence[CommandMount] = ()
    network: str = "default"
    insecure: bool = False
    devices: Sequence[str] = ()
    hostname: str = ""
    hosts: Sequence[tuple[str, str]] = ()
    shm_size: int = 0
    limits: Sequence[tuple[str, int, int]] = ()
    cgroup_parent: str = ""
    resources: Mapping[str, int | str] = {}
    valid_exit_codes: Sequence[int] = ()
    proxy_env: Sequence[str] = ()
    platform: Platform | None = None
    tty: bool = False


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """The trees that a command left: its root, and the mounts that are kept, by their places."""

    root: Tree
    mounts: Mapping[str, Tree] = {}


class Executor(Protocol):
    """One who runs commands in containers."""

    async def run(self, command: BuildCommand, lease: Lease, output: Callable[[int, bytes], None]) -> Written:
        """Run a command to its end; ``output`` gets what it writes (1: output, 2: errors), in the event loop.

        CommandFailed: it ended with another exit code than it may; what it left is there.  Cancelled, it ends the
        command and leaves nothing.
        """
        ...


class KeptRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A thing that is kept for the next builds: its ``name`` in the store, what it is for, times in ns since 1970.

    ``kind`` is BuildKit's (`build.cache.pruning.usage.UsageRow`).
    """

    name: str
    kind: str
    description: str
    created: int
    last_used: int
    usage_count: int
    in_use: bool


class KeptStore(Protocol):
    """The keeper of such things: of cache mounts, of repositories.  In the event loop, but for `size`."""

    def records(self) -> Sequence[KeptRecord]:
        """All that is kept."""
        ...

    def size(self, name: str) -> int:
        """The bytes of a thing, 0 when it is gone; blocking, from any thread."""
        ...

    async def remove(self, name: str) -> int:
        """Remove a thing and return the bytes that it had; -1 when it is in use, or gone."""
        ...


# -- images and other things from elsewhere ------------------------------------------------------


class FoundImage(msgspec.Struct, frozen=True, kw_only=True):
    """An image: its reference (with the digest of its manifest where it has a name), configuration and manifest.

    ``id`` is the digest of the configuration, ``data`` its bytes where these are not here.
    """

    reference: str
    manifest: str
    config: ImageConfig
    id: str
    data: bytes = b""
    chain_ids: Sequence[str] = ()
    """The layers, lowest first, where they are here."""


class BuildImages(Protocol):
    """One who finds images, here and in registries, and brings them here."""

    async def find(self, reference: str, platform: Platform, mode: str, session: BuildSession) -> FoundImage:
        """An image's configuration; ``mode``: ``default``, ``local`` (here first), ``pull`` (KetchError)."""
        ...

    async def fetch(
        self,
        found: FoundImage,
        platform: Platform,
        lease: Lease,
        session: BuildSession,
        progress: Callable[[str, int, int], None],
    ) -> Tree:
        """Bring an image's layers here; ``progress`` gets a layer's name, its bytes that are here, all of them."""
        ...


class BuildLayout(Protocol):
    """An OCI image-layout of a client's.  Blocking, in threads (KetchError)."""

    def described(self, digest: str) -> Descriptor:
        """A descriptor of a blob by what is there; its media type is not known (NotFound)."""
        ...

    def named(self, tag: str, digest: str) -> Descriptor:
        """The descriptor of a manifest by its name, or by its digest where that is given (NotFound)."""
        ...

    def has(self, descriptor: Descriptor) -> bool:
        """Whether a blob of that name and size is there."""
        ...

    def read(self, descriptor: Descriptor, limit: int) -> bytes:
        """A small blob, verified."""
        ...

    def copy(self, descriptor: Descriptor, write: Callable[[bytes], object]) -> None:
        """Write a blob to somebody who verifies it."""
        ...

    def put(self, descriptor: Descriptor, pieces: Iterable[bytes]) -> None:
        """Write a blob, unless it is there."""
        ...

    def name(self, manifest: Descriptor, tag: str) -> None:
        """Give a manifest that is there a name."""
        ...


class BuildLayouts(Protocol):
    """One who finds images in OCI layouts of clients."""

    async def find(self, layout: BuildLayout, digest: str, platform: Platform) -> FoundImage:
        """An image by the digest of its manifest or of an index (KetchError)."""
        ...

    async def fetch(self, layout: BuildLayout, digest: str, platform: Platform, lease: Lease) -> Tree:
        """Bring its layers here (KetchError)."""
        ...


class LocalDirectory(msgspec.Struct, frozen=True, kw_only=True):
    """A directory that the client gives: open (``fd``, the session's), and whether nobody else can change it."""

    fd: int
    private: bool


class DirectoryReceiver(Protocol):
    """One who takes a directory that a client sends.  Blocking; one call at a time."""

    def open(self) -> None:
        """Make ready; before all else, when the client has begun."""
        ...

    def entry(self, one: SentEntry) -> bool:
        """Take the next entry; True: its content is asked for (KetchError)."""
        ...

    def data(self, number: int, piece: bytes | memoryview) -> None:
        """Take the next piece of a file, by the number of its entry (KetchError)."""
        ...

    def end(self, number: int) -> None:
        """End a file (KetchError)."""
        ...

    def count(self, size: int) -> None:
        """Count bytes that have come (Unavailable: the build was cancelled)."""
        ...


class SentDirectory(Protocol):
    """A directory that a client sends, because it cannot be opened here.

    ``key`` tells it from others of the same name, for the next build too; empty: the client gives it no key.
    """

    key: str

    async def send(
        self, include: Sequence[str], exclude: Sequence[str], follow: Sequence[str], receiver: DirectoryReceiver
    ) -> None:
        """Send what patterns take in and do not leave out, and what links of the followed paths lead to (KetchError).

        The receiver is called in a thread, which has ended when this returns.
        """
        ...


class BuildSession(Protocol):
    """The client of a build, as long as it is there."""

    @property
    def id(self) -> str:
        """A name of the session, different from all others'."""
        ...

    async def directory(self, name: str) -> LocalDirectory | SentDirectory:
        """A directory by the name that sources give it (NotFound)."""
        ...

    async def layout(self, name: str) -> BuildLayout:
        """An OCI layout by the name that sources and caches give it (NotFound)."""
        ...

    async def secret(self, name: str) -> bytes | None:
        """A secret; None: the client has none of that name."""
        ...

    async def ssh_agent(self, name: str) -> str | None:
        """The path of a socket of the client's agent; None: it gives none of that name."""
        ...

    async def credentials(self, host: str) -> tuple[str, str] | None:
        """User and password, or an empty user and a token, for a registry and for no other."""
        ...

    def keeper(self, host: str) -> CredentialKeeper | None:
        """The client as the keeper of its credentials for a registry; None: `credentials` tells them."""
        ...

    def uploaded(self, host: str, path: str) -> AsyncIterator[bytes]:
        """The bytes that the client keeps at a path of a host of its own, once (NotFound)."""
        ...
