"""Packets in which trees of files are sent (fsutil's), and entries as they stand in them."""

from __future__ import annotations

import os
import stat

from google.protobuf.message import DecodeError

from ketch.buildkit.wire.files.packet_pb2 import Packet
from ketch.buildkit.wire.files.stat_pb2 import Stat, Xattr
from ketch.errors import InvalidArgument
from ketch.storage.contexts.sent import SentEntry

STAT, REQ, DATA = Packet.PACKET_STAT, Packet.PACKET_REQ, Packet.PACKET_DATA
FIN, ERR = Packet.PACKET_FIN, Packet.PACKET_ERR
FINISHED = Packet(type=FIN).SerializeToString()
LAST = Packet(type=STAT).SerializeToString()  # the end of a list
_DATA_TYPE = b"\x08\x02"  # how a packet of data begins
_ID, _CONTENT = 0x18, 0x22  # the tags of its fields

# Modes are those of Go's os.FileMode.
_DIRECTORY, _LINK, _DEVICE, _PIPE, _SOCKET = 1 << 31, 1 << 27, 1 << 26, 1 << 25, 1 << 24
_SETUID, _SETGID, _CHARACTER, _STICKY, _IRREGULAR = 1 << 23, 1 << 22, 1 << 21, 1 << 20, 1 << 19
_KIND = _DIRECTORY | _LINK | _DEVICE | _PIPE | _SOCKET | _CHARACTER | _IRREGULAR
_KINDS = {
    0: stat.S_IFREG,
    _DIRECTORY: stat.S_IFDIR,
    _LINK: stat.S_IFLNK,
    _PIPE: stat.S_IFIFO,
    _DEVICE: stat.S_IFBLK,
    _DEVICE | _CHARACTER: stat.S_IFCHR,
}
_GO_KINDS = {kind: go for go, kind in _KINDS.items()} | {stat.S_IFSOCK: 0}  # a socket is sent as an empty file
_NUMBERS = range(1 << 32)


def read(data: bytes) -> Packet:
    """A packet of its bytes (InvalidArgument)."""
    try:
        return Packet.FromString(data)
    except DecodeError as e:
        raise InvalidArgument(f"what was received is no packet of files: {e}") from e


def content(data: bytes) -> tuple[int, memoryview] | None:
    """The number and the bytes of a packet of data, without copying them; None for another packet.

    One that is written in another way than Go's writers do is None, too: `read` can read it.
    """
    if data[:2] != _DATA_TYPE:
        return None
    number, at, size = 0, 2, len(data)
    if at < size and data[at] == _ID:
        number, at = _varint(data, at + 1)
    if at == size:
        return number, memoryview(b"")
    if at < 0 or data[at] != _CONTENT:
        return None
    length, at = _varint(data, at + 1)
    return (number, memoryview(data)[at:]) if at > 0 and at + length == size else None


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number, and where it ends; -1: it does not."""
    value = shift = 0
    while at < len(data) and shift < 35:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    return 0, -1


def request(number: int) -> bytes:
    """A packet that asks for a file."""
    return Packet(type=REQ, ID=number).SerializeToString()


def data(number: int, piece: bytes) -> bytes:
    """A packet with a piece of a file; an empty one is its end."""
    return Packet(type=DATA, ID=number, data=piece).SerializeToString()


def failure(message: str) -> bytes:
    """A packet that tells why the transfer ends."""
    return Packet(type=ERR, data=message.encode("utf-8", "replace")).SerializeToString()


def entry(told: Stat) -> SentEntry:
    """An entry as it was told; what it may be is judged where it is made (InvalidArgument: it is nothing at all)."""
    mode = _mode(told.mode)
    device = 0
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        if told.devmajor not in _NUMBERS or told.devminor not in _NUMBERS:
            raise InvalidArgument(
                f"a device of the build context cannot have the number {told.devmajor}:{told.devminor}"
            )
        device = os.makedev(told.devmajor, told.devminor)
    attributes: tuple[tuple[str, bytes], ...] = ()
    if told.xattrs:
        attributes = tuple(sorted((os.fsdecode(one.key), one.value) for one in told.xattrs))
    return SentEntry(
        os.fsdecode(told.path),
        mode,
        told.size,
        told.modTime,
        told.uid,
        told.gid,
        os.fsdecode(told.linkname),
        device,
        attributes,
    )


def _mode(go: int) -> int:
    """The mode of stat(2) for one of Go's; of a kind that is unknown, without a kind."""
    mode = _KINDS.get(go & _KIND, 0) | go & 0o777
    if go & (_SETUID | _SETGID | _STICKY):
        mode |= (stat.S_ISUID if go & _SETUID else 0) | (stat.S_ISGID if go & _SETGID else 0)
        mode |= stat.S_ISVTX if go & _STICKY else 0
    return mode


def told(one: SentEntry) -> bytes:
    """The packet that tells of an entry."""
    return Packet(type=STAT, stat=stat_of(one)).SerializeToString()


def stat_of(one: SentEntry) -> Stat:
    """The message of an entry."""
    mode = one.mode
    go = _GO_KINDS[stat.S_IFMT(mode)] | mode & 0o777
    go |= (_SETUID if mode & stat.S_ISUID else 0) | (_SETGID if mode & stat.S_ISGID else 0)
    go |= _STICKY if mode & stat.S_ISVTX else 0
    return Stat(
        path=os.fsencode(one.path),
        mode=go,
        uid=one.uid,
        gid=one.gid,
        size=one.size,
        modTime=one.mtime_ns,
        linkname=os.fsencode(one.link),
        devmajor=os.major(one.device),
        devminor=os.minor(one.device),
        xattrs=[Xattr(key=os.fsencode(name), value=value) for name, value in one.attributes],
    )
