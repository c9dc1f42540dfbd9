"""HTTP/2's frames (RFC 9113): reading them of a stream of bytes, writing them."""

from __future__ import annotations

import enum
import struct
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME = 1 << 14  # bytes of a frame's content, unless a peer allows more
LARGEST_WINDOW = (1 << 31) - 1
_HEAD = struct.Struct(">HBBBI")  # the length takes the first two fields: 16 and 8 bits
_SETTING = struct.Struct(">HI")
_HEAD_SIZE = 9


class FrameKind(enum.IntEnum):
    """Types of frames."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITY = 0x20


class H2Error(enum.IntEnum):
    """Codes of errors that end a stream or a connection."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


class H2Setting(enum.IntEnum):
    """Settings that a side tells the other."""

    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6


class ConnectionFailure(Exception):
    """The peer did what a connection does not survive."""

    def __init__(self, code: H2Error, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


class StreamFailure(Exception):
    """The peer did what a stream does not survive."""

    def __init__(self, code: H2Error, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


class Frame(NamedTuple):
    """A frame; its content is valid until the next one is read."""

    kind: int
    flags: int
    stream: int
    content: memoryview


class FrameReader:
    """Finds frames in what is received, wherever it was cut."""

    def __init__(self) -> None:
        self._rest = bytearray()  # of a frame that is not there as a whole

    def read(self, data: bytes) -> Iterator[Frame]:
        """The frames that are whole with ``data``."""
        at = 0
        if self._rest:
            at = self._complete(data)
            if (whole := self._frame(self._rest, 0)) is None:
                return
            self._rest = bytearray()
            yield whole
        size = len(data)
        with memoryview(data) as view:
            while size - at >= _HEAD_SIZE:
                high, low, kind, flags, stream = _HEAD.unpack_from(data, at)
                length = high << 8 | low
                if length > FRAME:
                    raise ConnectionFailure(H2Error.FRAME_SIZE_ERROR, f"a frame of {length} bytes")
                begin = at + _HEAD_SIZE
                if size - begin < length:
                    break
                at = begin + length
                yield Frame(kind, flags, stream & LARGEST_WINDOW, view[begin:at])
            self._rest += view[at:]

    def _complete(self, data: bytes) -> int:
        """Add to the rest what its frame lacks; how much of ``data`` that is."""
        rest = self._rest
        at = max(0, min(_HEAD_SIZE - len(rest), len(data)))
        rest += data[:at]
        if len(rest) < _HEAD_SIZE:
            return at
        high, low = rest[0] << 8 | rest[1], rest[2]
        lacking = _HEAD_SIZE + (high << 8 | low) - len(rest)
        if (high << 8 | low) > FRAME:
            raise ConnectionFailure(H2Error.FRAME_SIZE_ERROR, f"a frame of {high << 8 | low} bytes")
        rest += data[at : at + lacking]
        return at + lacking

    def _frame(self, data: bytearray, at: int) -> Frame | None:
        if len(data) < _HEAD_SIZE:
            return None
        high, low, kind, flags, stream = _HEAD.unpack_from(data, at)
        length = high << 8 | low
        if len(data) < _HEAD_SIZE + length:
            return None
        return Frame(kind, flags, stream & LARGEST_WINDOW, memoryview(data)[_HEAD_SIZE:])


def head(kind: int, flags: int, stream: int, length: int) -> bytes:
    """The header of a frame."""
    return _HEAD.pack(length >> 8, length & 0xFF, kind, flags, stream)


def frame(kind: int, flags: int, stream: int, content: bytes = b"") -> bytes:
    """A frame."""
    return head(kind, flags, stream, len(content)) + content


def header_frames(stream: int, block: bytes, *, end: bool, largest: int) -> Iterator[bytes]:
    """A block of headers in as many frames as it needs."""
    flags = END_STREAM if end else 0
    kind = FrameKind.HEADERS
    for at in range(0, max(len(block), 1), largest):
        last = END_HEADERS if at + largest >= len(block) else 0
        yield frame(kind, flags | last, stream, block[at : at + largest])
        kind, flags = FrameKind.CONTINUATION, 0


def settings(values: Mapping[H2Setting, int]) -> bytes:
    """A frame of settings."""
    return frame(FrameKind.SETTINGS, 0, 0, b"".join(_SETTING.pack(key, value) for key, value in values.items()))


def read_settings(content: memoryview) -> Iterator[tuple[int, int]]:
    """The settings of such a frame."""
    if len(content) % _SETTING.size:
        raise ConnectionFailure(H2Error.FRAME_SIZE_ERROR, f"settings of {len(content)} bytes")
    return _SETTING.iter_unpack(content)


def without_padding(received: Frame) -> memoryview:
    """The content of a frame of data or headers, without what surrounds it."""
    content = received.content
    if received.flags & PADDED:
        if not content or content[0] >= len(content):
            raise ConnectionFailure(H2Error.PROTOCOL_ERROR, "padding longer than its frame")
        content = content[1 : len(content) - content[0]]
    if received.kind == FrameKind.HEADERS and received.flags & PRIORITY:
        if len(content) < 5:
            raise ConnectionFailure(H2Error.PROTOCOL_ERROR, "a priority longer than its frame")
        content = content[5:]
    return content
