"""The receiving end of a tree of files (fsutil's protocol): the client lists it, and sends what is asked for."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from ketch.buildkit.session import packets
from ketch.errors import InvalidArgument, Unavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.build.providers import DirectoryReceiver
    from ketch.buildkit.wire.files.packet_pb2 import Packet

_ASKED = 512  # files that are asked for at once: requests for them never fill the peer's window
_SHOWN = 2000


class ReceivingEnd:
    """The state of one transfer: packets in, packets out; it knows no transport.  Blocking, as its receiver is.

    list ──► requests, at most so many at once ──► data ──► FIN from here, FIN from the peer
    """

    def __init__(self, receiver: DirectoryReceiver) -> None:
        self._receiver = receiver
        self._count = 0  # entries that have come; the number of an entry is its place among them
        self._waiting: deque[int] = deque()  # files that are to be asked for
        self._asked: set[int] = set()
        self._listed = self._finished = False
        self.done = False

    def take(self, messages: Sequence[bytes]) -> list[bytes]:
        """Take packets in their order, and return those to be sent (KetchError)."""
        size = 0
        for message in messages:
            size += len(message)
            found = packets.content(message)
            if found is None:
                self._other(message)
            else:
                self._data(*found)
        self._receiver.count(size)
        return self._answers()

    def _other(self, message: bytes) -> None:
        packet = packets.read(message)
        if self.done:
            raise InvalidArgument("the client sends files after the end")
        if packet.type == packets.STAT:
            self._entry(packet)
        elif packet.type == packets.DATA:
            self._data(packet.ID, memoryview(packet.data))
        elif packet.type == packets.FIN:
            if not self._finished:
                raise InvalidArgument("the client ends before all files that were asked for have come")
            self.done = True
        elif packet.type == packets.ERR:
            text = packet.data[:_SHOWN].decode("utf-8", "replace")
            raise Unavailable(f"error from sender: {text}")
        else:
            raise InvalidArgument(f"the client sends a packet of type {packet.type}, which is none of a sender")

    def _entry(self, packet: Packet) -> None:
        if self._listed:
            raise InvalidArgument("the client lists files after the end of its list")
        if not packet.HasField("stat"):
            self._listed = True
            return
        if self._receiver.entry(packets.entry(packet.stat)):
            self._waiting.append(self._count)
        self._count += 1

    def _data(self, number: int, piece: memoryview) -> None:
        if number not in self._asked:
            raise InvalidArgument(f"the client sends a file that was not asked for: number {number}")
        if piece:
            self._receiver.data(number, piece)
        else:
            self._asked.discard(number)
            self._receiver.end(number)

    def _answers(self) -> list[bytes]:
        found = []
        while self._waiting and len(self._asked) < _ASKED:
            number = self._waiting.popleft()
            self._asked.add(number)
            found.append(packets.request(number))
        if self._listed and not self._asked and not self._finished:
            self._finished = True
            found.append(packets.FINISHED)
        return found
