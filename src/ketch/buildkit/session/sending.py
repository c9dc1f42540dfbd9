"""The sending end of a tree of files (fsutil's protocol): it is listed, and what the client asks for is sent."""

from __future__ import annotations

import os
import stat
from collections import deque
from typing import TYPE_CHECKING

from ketch.buildkit.session import packets
from ketch.errors import InvalidArgument, Unavailable
from ketch.storage.contexts.sent import SentEntry

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ketch.storage.contexts.listing import DirectoryListing

_LISTED = 256  # entries of one batch
_PIECE = 128 << 10  # bytes of a file in one packet
_BATCH = 1 << 20  # bytes of files in one batch
_SHOWN = 2000


class ReceiverFailed(Unavailable):
    """The receiving end says that it has failed."""

    def __init__(self, text: str) -> None:
        super().__init__(f"error from receiver: {text[:_SHOWN]}")


class SendingEnd:
    """The state of one transfer: packets in, packets out; it knows no transport.  Blocking, as its listing is.

    list, and data of what is asked for meanwhile ──► FIN from the peer ──► FIN from here
    """

    def __init__(self, listing: DirectoryListing, directory: str = "", mtime_ns: int = 0) -> None:
        """``directory``: a directory of this name that all is in, with this time; empty: there is none."""
        self._listing = listing
        self._directory, self._mtime_ns = directory, mtime_ns
        self._entries: Iterator[SentEntry] | None = None
        self._count = 0
        self._files: dict[int, str] = {}  # what can be asked for still: paths in the listing
        self._wanted: deque[tuple[int, str]] = deque()
        self._fd, self._number = -1, 0  # the file that is being sent
        self._listed = False
        self.ending = False  # the peer wants nothing more
        self._prefix = f"{directory}/" if directory else ""
        self.done = False

    def close(self) -> None:
        """Close what is open."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _below(self, directory: str) -> Iterator[SentEntry]:
        """The entries of the listing in a directory, and that one itself."""
        yield SentEntry(directory, stat.S_IFDIR | 0o755, 0, self._mtime_ns)
        for one in self._listing.entries():
            link = f"{directory}/{one.link}" if one.link and stat.S_ISREG(one.mode) else one.link
            yield one._replace(path=f"{directory}/{one.path}", link=link)

    @property
    def idle(self) -> bool:
        """Whether there is nothing to send before the peer asks for more."""
        return self._listed and not self._wanted and self._fd < 0 and not (self.ending and not self.done)

    def take(self, messages: Sequence[bytes]) -> None:
        """Take packets of the peer (InvalidArgument, ReceiverFailed); also while `more` runs.

        They are as many as there are files, at most: each can be asked for once.
        """
        for message in messages:
            packet = packets.read(message)
            if packet.type == packets.REQ:
                path = self._files.pop(packet.ID, None)
                if path is None:  # or it was asked for before
                    raise InvalidArgument(
                        f"invalid file id {packet.ID}", hint="the client asks for what it was not told of"
                    )
                self._wanted.append((packet.ID, path))
            elif packet.type == packets.FIN:
                self.ending = True
            elif packet.type == packets.ERR:
                raise ReceiverFailed(packet.data[:_SHOWN].decode("utf-8", "replace"))
            else:
                raise InvalidArgument(f"the client sends a packet of type {packet.type}, which is none of a receiver")

    def more(self) -> list[bytes]:
        """The next packets; none: `idle`, or done (OSError)."""
        found = [] if self._listed else self._list()
        size = 0
        while size < _BATCH and (self._fd >= 0 or self._wanted):
            piece = self._piece()
            size += len(piece)
            found.append(packets.data(self._number, piece))
        if not found and self.ending and not self.done:
            self.done = True
            found.append(packets.FINISHED)
        return found

    def _list(self) -> list[bytes]:
        found = []
        if self._entries is None:
            self._entries = self._below(self._directory) if self._directory else self._listing.entries()
        for one in self._entries:
            if stat.S_ISREG(one.mode):
                self._files[self._count] = one.path.removeprefix(self._prefix)
            elif stat.S_ISSOCK(one.mode):
                self._files[self._count] = ""  # it is told as an empty file
            self._count += 1
            found.append(packets.told(one))
            if len(found) == _LISTED:
                return found
        self._listed = True
        found.append(packets.LAST)
        return found

    def _piece(self) -> bytes:
        """The next piece of a file; an empty one at its end."""
        if self._fd < 0:
            self._number, path = self._wanted.popleft()
            if not path:
                return b""
            self._fd = self._listing.open(path)
        piece = os.read(self._fd, _PIECE)
        if not piece:
            self.close()
        return piece
