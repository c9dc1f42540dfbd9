"""A client of BuildKit's protocol, written for tests: what it serves, what it was asked, and how many bytes it sent."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import stat
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from ketch.buildkit.services.content import ContentService
from ketch.buildkit.services.credentials import AuthService, SecretsService, SSHService
from ketch.buildkit.services.files import ExporterService, FileSendService, FileSyncService, UploadService
from ketch.buildkit.wire.credentials import auth_pb2, secrets_pb2, ssh_pb2
from ketch.buildkit.wire.files import content_pb2, exporter_pb2
from ketch.buildkit.wire.files.filesync_pb2 import BytesMessage
from ketch.buildkit.wire.files.packet_pb2 import Packet
from ketch.buildkit.wire.files.stat_pb2 import Stat, Xattr
from ketch.rpc import health
from ketch.rpc.bytestream import over_socket
from ketch.rpc.method import Method
from ketch.rpc.server import serve, unary
from ketch.rpc.status import Code, RpcError
from tests.support.building.sending import listed
from tests.support.waiting import patient

SEND_PACKETS = Method(FileSendService.DiffCopy.path, Packet, Packet)
_GO = {stat.S_IFREG: 0, stat.S_IFDIR: 1 << 31, stat.S_IFLNK: 1 << 27, stat.S_IFIFO: 1 << 25, stat.S_IFCHR: 0x4200000}


def go_mode(mode):
    special = (mode & stat.S_ISUID and 1 << 23) | (mode & stat.S_ISGID and 1 << 22) | (mode & stat.S_ISVTX and 1 << 20)
    return _GO[stat.S_IFMT(mode)] | special | mode & 0o777


def told(one):
    """The packet of an entry."""
    attributes = [Xattr(key=name.encode(), value=value) for name, value in one.attributes]
    return Packet(
        stat=Stat(
            path=os.fsencode(one.path),
            mode=go_mode(one.mode),
            uid=one.uid,
            gid=one.gid,
            size=one.size,
            modTime=one.mtime_ns,
            linkname=os.fsencode(one.link),
            devmajor=os.major(one.device),
            devminor=os.minor(one.device),
            xattrs=attributes,
        )
    )


class SessionClient:
    """One client; what is not given to it, it does not serve."""

    def __init__(
        self, *, directories=None, secrets=None, logins=None, agents=None, uploads=None, blobs=None, exports=False
    ):
        self.directories = directories or {}
        self.secrets, self.logins, self.agents, self.uploads = secrets, logins, agents, uploads
        self.chosen = None  # kinds and attributes of exporters that it chooses
        self.script = None  # what is done with a call of filesync instead
        self.asked = []  # metadata of calls
        self.requested = []  # paths that were asked for
        self.sent = 0  # bytes of files
        self.archives = {}  # by (exporter, metadata)
        self.handlers = dict(health.handlers())
        self._add(FileSyncService.DiffCopy, self._sync, bool(self.directories) or directories == {})
        self._add(SecretsService.GetSecret, unary(self._secret), secrets is not None)
        self._add(AuthService.Credentials, unary(self._credentials), logins is not None)
        self._add(SSHService.CheckAgent, unary(self._check_agent), agents is not None)
        self._add(SSHService.ForwardAgent, self._forward, agents is not None)
        self._add(UploadService.Pull, self._pull, uploads is not None)
        self.blobs = blobs  # of each store, by digest
        self._add(ContentService.Info, unary(self._info), blobs is not None)
        self._add(ContentService.Read, self._read, blobs is not None)
        self._add(ContentService.Write, self._write, blobs is not None)
        self._add(FileSendService.DiffCopy, self._receive, exports is True)
        self._add(SEND_PACKETS, self._receive_tree, exports == "trees")

    def _add(self, method, handler, given):
        if given:
            self.handlers[method.path] = (method, handler)

    def headers(self, id="client-1", key="key-1"):
        return {
            "x-docker-expose-session-uuid": [id],
            "x-docker-expose-session-name": ["buildx"],
            "x-docker-expose-session-sharedkey": [key],
            "x-docker-expose-session-grpc-method": list(self.handlers),
        }

    @asynccontextmanager
    async def connected(self, sessions, id="client-1", key="key-1"):
        """Connected to sessions, as their `ClientSession`."""
        near, far = socket.socketpair()
        serving = asyncio.create_task(sessions.serve(await over_socket(near), self.headers(id, key)))
        self.connection = await over_socket(far)
        answering = asyncio.create_task(serve(self.connection, self.handlers))
        try:
            yield await sessions.get(id)
        finally:
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)
            await self.connection.close()
            await asyncio.wait_for(serving, patient(10))

    # -- what it serves ------------------------------------------------------------------------------

    async def _sync(self, call):
        self.asked.append(call.metadata)
        if self.script is not None:
            await self.script(call)
            return
        name = call.metadata["dir-name"][0]
        if name not in self.directories:
            raise RpcError(Code.NOT_FOUND, f'no access allowed to dir "{name}"')
        await self.sync(call, self.directories[name])

    async def sync(self, call, top):
        """Send a directory as it should be sent."""
        entries = listed(top)

        async def tell():
            for one in entries:
                await call.send(told(one))
            await call.send(Packet())

        telling = asyncio.create_task(tell())
        try:
            while True:
                packet = await call.receive()
                if packet is None or packet.type == Packet.PACKET_ERR:
                    raise RpcError(Code.UNKNOWN, f"error from receiver: {packet and packet.data.decode()}")
                if packet.type == Packet.PACKET_FIN:
                    await call.send(Packet(type=Packet.PACKET_FIN))
                    return
                self.requested.append(entries[packet.ID].path)
                content = Path(top, entries[packet.ID].path).read_bytes()
                self.sent += len(content)
                for at in range(0, len(content), 32 << 10):
                    piece = content[at : at + (32 << 10)]
                    await call.send(Packet(type=Packet.PACKET_DATA, ID=packet.ID, data=piece))
                await call.send(Packet(type=Packet.PACKET_DATA, ID=packet.ID))
        finally:
            telling.cancel()

    async def _secret(self, request, _metadata):
        if request.ID not in self.secrets:
            raise RpcError(Code.NOT_FOUND, f"secret {request.ID} not found")
        return secrets_pb2.GetSecretResponse(data=self.secrets[request.ID])

    async def _credentials(self, request, _metadata):
        self.asked.append(request.Host)
        user, secret = self.logins.get(request.Host, ("", ""))
        return auth_pb2.CredentialsResponse(Username=user, Secret=secret)

    async def _check_agent(self, request, _metadata):
        if request.ID not in self.agents:
            raise RpcError(Code.UNKNOWN, f"unset ssh forward key {request.ID}")
        return ssh_pb2.CheckAgentResponse()

    async def _forward(self, call):
        """An agent that says again what it is told, with its name, and leaves when it is told nothing more."""
        name = call.metadata["buildkit.ssh.id"][0]
        while (message := await call.receive()) is not None:
            await call.send(ssh_pb2.BytesMessage(data=name.encode() + message.data))

    async def _pull(self, call):
        path = call.metadata["urlpath"][0].rpartition("/")[2]
        if path not in self.uploads:
            raise RpcError(Code.UNKNOWN, f"no http response from session for {path}")
        for piece in self.uploads.pop(path):
            await call.send(BytesMessage(data=piece))

    def _store(self, metadata, digest=""):
        store = metadata["buildkit-attachable-store-id"][0]
        if store not in self.blobs or (digest and digest not in self.blobs[store]):
            raise RpcError(Code.NOT_FOUND, f"content {digest} of {store}: not found")
        return self.blobs[store]

    async def _info(self, request, metadata):
        size = len(self._store(metadata, request.digest)[request.digest])
        return content_pb2.InfoResponse(info=content_pb2.Info(digest=request.digest, size=size))

    async def _read(self, call):
        request = await call.receive()
        data = self._store(call.metadata, request.digest)[request.digest]
        end = request.offset + request.size if request.size else len(data)
        for at in range(request.offset, end, 1 << 20):
            piece = data[at : min(at + (1 << 20), end)]
            await call.send(content_pb2.ReadContentResponse(offset=at, data=piece))

    async def _write(self, call):
        """Write a blob, as containerd's server does: each request is answered, and the last one commits."""
        store, written = self._store(call.metadata), b""
        async for request in call:
            if request.action == content_pb2.STAT and request.expected in store:
                raise RpcError(Code.ALREADY_EXISTS, f"content {request.expected}: already exists")
            assert request.action == content_pb2.STAT or request.offset == len(written)
            written += request.data
            if request.action == content_pb2.COMMIT:
                digest = "sha256:" + hashlib.sha256(written).hexdigest()
                if digest != request.expected or len(written) != request.total:
                    raise RpcError(Code.FAILED_PRECONDITION, f"unexpected commit digest {digest}")
                store[digest] = written
            await call.send(content_pb2.WriteContentResponse(action=request.action, offset=len(written)))
            if request.action == content_pb2.COMMIT:
                return

    def choose(self, *exporters):
        """Choose exporters, by kind and attributes, when the result is known."""
        self.chosen = exporters
        self._add(ExporterService.FindExporters, unary(self._find_exporters), True)

    async def _find_exporters(self, request, _metadata):
        self.asked.append(request)
        found = [exporter_pb2.ExporterRequest(Type=kind, Attrs=attrs) for kind, attrs in self.chosen]
        return exporter_pb2.FindExportersResponse(exporters=found)

    async def _receive(self, call):
        found = b""
        async for message in call:
            assert len(message.data) <= 3 << 20
            found += message.data
        metadata = {k: v[0] for k, v in call.metadata.items() if k.startswith("exporter-md-")}
        self.archives[call.metadata["buildkit-attachable-exporter-id"][0]] = (metadata, found)

    async def _receive_tree(self, call):
        """Receive entries and the content of all files, as Go's receiver asks for them: while the list comes."""
        entries, content, listing, open_files = [], {}, True, 0
        while listing or open_files:
            packet = await call.receive()
            assert packet is not None
            if packet.type == Packet.PACKET_STAT and packet.HasField("stat"):
                one = packet.stat
                if not one.mode & ~0o777 & ~0xF00000 and not one.linkname:
                    content[len(entries)] = b""
                    open_files += 1
                    await call.send(Packet(type=Packet.PACKET_REQ, ID=len(entries)))
                entries.append(one)
            elif packet.type == Packet.PACKET_STAT:
                listing = False
            elif packet.type == Packet.PACKET_DATA and packet.data:
                content[packet.ID] += packet.data
            elif packet.type == Packet.PACKET_DATA:
                open_files -= 1
            else:
                raise RpcError(Code.UNKNOWN, f"packet {packet}")
        await call.send(Packet(type=Packet.PACKET_FIN))
        packet = await call.receive()
        assert packet.type == Packet.PACKET_FIN
        exporter = call.metadata["buildkit-attachable-exporter-id"][0]
        self.archives[exporter] = [(one, content.get(number)) for number, one in enumerate(entries)]


def playing(*messages, then=None):
    """A script that sends packets, and then does something: by default it waits for the other side to end."""

    async def script(call):
        with suppress(RpcError, ConnectionError):
            for message in messages:
                await call.send(message)
            if then is not None:
                await then(call)
            while await call.receive() is not None:
                pass

    return script
