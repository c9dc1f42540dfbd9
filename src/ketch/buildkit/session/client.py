"""A client that is connected: its directories, secrets, agents, credentials and uploads, and the way back to it."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, TypeVar

from ketch.buildkit.services.content import ContentService
from ketch.buildkit.services.credentials import AuthService, SecretsService, SSHService
from ketch.buildkit.services.files import ExporterService, FileSendService, FileSyncService, UploadService
from ketch.buildkit.session import transfers
from ketch.buildkit.session.agents import ForwardedAgent
from ketch.buildkit.session.content import ClientLayout
from ketch.buildkit.session.sending import SendingEnd
from ketch.buildkit.session.tokens import ClientCredentials
from ketch.buildkit.wire.credentials import auth_pb2, secrets_pb2, ssh_pb2
from ketch.buildkit.wire.files import exporter_pb2
from ketch.errors import NotFound, Unavailable
from ketch.rpc.status import Code, RpcError
from ketch.storage.contexts.listing import DirectoryListing
from ketch.undo import AsyncUndo

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence, Set
    from typing import Any

    from ketch.build.providers import DirectoryReceiver
    from ketch.buildkit.wire.files.exporter_pb2 import ExporterRequest
    from ketch.remote.credentials import CredentialKeeper
    from ketch.rpc.client import Channel
    from ketch.rpc.method import Message, Method

Q = TypeVar("Q", bound="Message")
A = TypeVar("A", bound="Message")
_ANSWER_S = 60.0  # an ask for a password may be answered by a person
_HUB = ("docker.io", "index.docker.io", "registry-1.docker.io")
_HUB_ASKED = "registry-1.docker.io"  # as clients know Docker Hub
_CACHES, _LAYOUTS = "local:", "oci:"  # before the names of what the client keeps
_DEFAULT_AGENT = "default"
_NONE = (Code.NOT_FOUND, Code.UNIMPLEMENTED)


class ClientSession:
    """A `BuildSession` whose client is at the other end of a connection; used in the event loop.

    ``methods`` are those that the client serves, in lower case; `close` removes what was made for it.
    """

    def __init__(
        self, channel: Channel, *, id: str, name: str, shared_key: str, methods: Set[str], directory: str
    ) -> None:
        """``directory``: a place for sockets."""
        self.channel, self.id, self.name, self.shared_key, self.methods = channel, id, name, shared_key, methods
        self._place = directory
        self._agents: dict[str, ForwardedAgent] = {}
        self._keepers: dict[str, ClientCredentials] = {}
        self._undo = AsyncUndo()

    async def close(self) -> None:
        """Close what was opened for builds; the connection stays the caller's."""
        await self._undo.aclose()

    def serves(self, method: Method[Any, Any]) -> bool:
        """Whether the client has said that it serves a method."""
        return method.path.lower() in self.methods

    # -- what builds ask for -----------------------------------------------------------------------

    async def directory(self, name: str) -> ClientDirectory:
        """A directory that the client sends (NotFound: it sends none)."""
        if not self.serves(FileSyncService.DiffCopy):
            raise NotFound("no local sources enabled", hint=f"the client was asked for the directory `{name}`")
        return ClientDirectory(self.channel, name, self.shared_key)

    async def layout(self, name: str) -> ClientLayout:
        """An OCI layout that the client reads and writes (NotFound: it keeps none); ``local:PATH`` for caches."""
        if not name.startswith(_CACHES):
            name = _LAYOUTS + name.partition(":")[0]  # without the tag, whose digest the client has found
        return self.store(name)

    def store(self, name: str) -> ClientLayout:
        """A layout by the client's own name of it (NotFound: it keeps none)."""
        if not self.serves(ContentService.Info):
            raise NotFound(f"the client keeps no layouts, and none named `{name}`")
        return ClientLayout(self.channel, name)

    async def secret(self, name: str) -> bytes | None:
        """A secret; None: the client has none of that name."""
        if not self.serves(SecretsService.GetSecret):
            return None
        try:
            answer = await self.asked(SecretsService.GetSecret, secrets_pb2.GetSecretRequest(ID=name))
        except RpcError as e:
            if e.code in _NONE:
                return None
            raise
        return answer.data

    async def ssh_agent(self, name: str) -> str | None:
        """The path of a socket of one of the client's agents; None: it gives none of that name."""
        name = name or _DEFAULT_AGENT
        if not self.serves(SSHService.ForwardAgent):
            return None
        try:
            await self.asked(SSHService.CheckAgent, ssh_pb2.CheckAgentRequest(ID=name))
        except RpcError as e:
            if e.code in (*_NONE, Code.UNKNOWN):
                return None
            raise
        if name not in self._agents:
            agent = self._agents[name] = ForwardedAgent(self.channel, name, self._place)
            self._undo.push_async_callback(agent.close)
            await agent.listen()
        return self._agents[name].path

    async def credentials(self, host: str) -> tuple[str, str] | None:
        """User and password, or an empty user and a token, for a registry and for no other."""
        if not self.serves(AuthService.Credentials):
            return None
        asked = auth_pb2.CredentialsRequest(Host=_asked_for(host))
        try:
            answer = await self.asked(AuthService.Credentials, asked)
        except RpcError as e:
            if e.code in _NONE:
                return None
            raise
        return (answer.Username, answer.Secret) if answer.Secret else None

    def keeper(self, host: str) -> CredentialKeeper | None:
        """The client as the keeper of its credentials for a registry; None: it gets no tokens with them."""
        if not (self.serves(AuthService.FetchToken) and self.serves(AuthService.GetTokenAuthority)):
            return None
        if host not in self._keepers:
            reveal = functools.partial(self.credentials, host)
            self._keepers[host] = ClientCredentials(self.asked, _asked_for(host), reveal)
        return self._keepers[host]

    async def uploaded(self, host: str, path: str) -> AsyncIterator[bytes]:
        """The bytes that the client keeps at a path, which it gives once (NotFound: it keeps none)."""
        if not self.serves(UploadService.Pull):
            raise NotFound(f"the client keeps nothing at http://{host}{path}")
        async with self.channel.stream(UploadService.Pull, {"urlpath": [path], "urlhost": [host]}) as call:
            while messages := await call.receive_many():
                yield b"".join([one.data for one in messages])

    async def exporters(self, metadata: Mapping[str, bytes], refs: Sequence[str]) -> Sequence[ExporterRequest]:
        """The exporters that the client chooses when it knows a result (RpcError); none, if it does not choose."""
        if not self.serves(ExporterService.FindExporters):
            return ()
        request = exporter_pb2.FindExportersRequest(metadata=metadata, refs=refs)
        try:
            return (await self.asked(ExporterService.FindExporters, request)).exporters
        except RpcError as e:
            if e.code in (Code.UNAVAILABLE, Code.UNIMPLEMENTED):
                return ()
            raise

    # -- what builds give ----------------------------------------------------------------------------

    async def send_file(self, exporter: int, metadata: Mapping[str, str], pieces: AsyncIterator[bytes]) -> None:
        """Send an archive for one of the client's exporters (KetchError); ``metadata`` tells what it is of."""
        self._takes_files()
        await transfers.send_bytes(self.channel, exporter, metadata, pieces)

    async def send_directory(self, exporter: int, fd: int, name: str = "", mtime_ns: int | None = None) -> None:
        """Send a directory for one of the client's exporters, below the directory ``name`` (KetchError).

        ``mtime_ns``: a time for all files instead of their own.  The descriptor stays the caller's.
        """
        self._takes_files()
        head_ns = os.fstat(fd).st_mtime_ns if mtime_ns is None else mtime_ns
        end = SendingEnd(DirectoryListing(fd, mtime_ns), name, head_ns)
        await transfers.send_directory(self.channel, exporter, end)

    def _takes_files(self) -> None:
        if not self.serves(FileSendService.DiffCopy):
            raise NotFound(f"method {FileSendService.DiffCopy.path} not supported by the client")

    async def asked(self, method: Method[Q, A], request: Q) -> A:
        return await self.channel.unary(method, request, timeout=_ANSWER_S)


class ClientDirectory:
    """A directory that a client sends: a `SentDirectory`."""

    def __init__(self, channel: Channel, name: str, shared_key: str) -> None:
        self.key = shared_key
        self._channel, self._name = channel, name

    async def send(
        self, include: Sequence[str], exclude: Sequence[str], follow: Sequence[str], receiver: DirectoryReceiver
    ) -> None:
        """Let the client send it (KetchError)."""
        patterns = {"include-patterns": include, "exclude-patterns": exclude, "followpaths": follow}
        given = {key: values for key, values in patterns.items() if values}
        try:
            await transfers.receive_directory(self._channel, self._name, given, receiver)
        except RpcError as e:
            if e.code == Code.NOT_FOUND:
                raise NotFound(e.message) from e
            raise Unavailable(f"the client sends `{self._name}`: {e.message}", hint=e.hint) from e


def _asked_for(host: str) -> str:
    """A registry as clients know it."""
    return _HUB_ASKED if host in _HUB else host
