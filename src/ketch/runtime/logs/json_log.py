"""The log as Docker's ``json-file`` driver writes it: one JSON object a line, rotated by size.

    <id>-json.log, .1 … .N (.gz)      N = max_files - 1, the highest number is the oldest
    {"log":"a line\\n","stream":"stdout","attrs":{"tag":"x"},"time":"2024-01-02T03:04:05.123456789Z"}

A piece of a line that is longer than 16 KiB has no newline in ``log``; all its pieces have the first one's time.
What is no UTF-8 becomes U+FFFD, one for each byte, as Go writes it.  There is no work for each single line: a
block of lines is decoded, escaped and cut by a few calls that run in C.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import codecs
import os
import re
from json.encoder import encode_basestring
from time import time_ns

from ketch.contexts import suppress
from ketch.notation import times
from ketch.runtime.logs.log_lines import Splitter

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
_STREAMS = {1: "stdout", 2: "stderr"}
_CHUNK = 1 << 16
_MARK, _MARK_BYTES = "\udc00", b"\xed\xb0\x80"  # where a line ends: no decoder of UTF-8 makes this character
_ASCII_MARK = b"\x7f"  # the same where this one does not occur: ASCII alone is four times as fast


def _each_byte(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    following = _NO_BEGINNING.match(error.object, error.end)
    end = following.end() if following else error.end
    return "\ufffd" * (end - error.start), end


_NO_BEGINNING = re.compile(rb"[\x80-\xc1\xf5-\xff]+")  # of a character: it need not be looked at one by one
codecs.register_error("ketch.each_byte", _each_byte)


def escape(data: bytes, newline: bytes = b"\\n") -> bytes:
    """Bytes as the inside of a JSON string, with ``newline`` for each of their newlines."""
    if data.isascii() and _ASCII_MARK not in data:
        text = encode_basestring(data.replace(b"\n", _ASCII_MARK).decode("ascii"))
        return text.encode("ascii")[1:-1].replace(_ASCII_MARK, newline)
    text = encode_basestring(data.decode("utf-8", "ketch.each_byte").replace("\n", _MARK))
    return text.encode("utf-8", "surrogatepass")[1:-1].replace(_MARK_BYTES, newline)


def names(path: str) -> list[str]:
    """The log's files that exist and are not compressed, oldest first."""
    directory, base = os.path.split(path)
    numbered = []
    for entry in os.listdir(directory):
        number = entry[len(base) + 1 :]
        if entry == base or (entry.startswith(base + ".") and number.isdecimal()):
            numbered.append((-int(number or 0), entry))
    return [os.path.join(directory, entry) for _, entry in sorted(numbered)]


class JsonLogWriter:
    """Appends messages; ``inode`` and ``offset`` are the position behind the last one."""

    full = False
    pending = False

    def __init__(self, path: str, max_size: int, max_files: int, *, compress: bool = False, attrs: str = "") -> None:
        """``attrs``: a JSON object that each message carries, or nothing."""
        self._path = path
        self._max_size = max_size
        self._max_files = max(max_files, 1)
        self._compress = compress and self._max_files > 1
        self._compressing = -1
        self._attrs = f'"attrs":{attrs},' if attrs else ""
        self._splitters = {number: Splitter() for number in _STREAMS}
        self._partial: dict[int, str] = {}  # the time of the line that is being logged in pieces
        self._clock = times.Clock()
        self._open()

    def _open(self) -> None:
        fd = os.open(self._path, _FLAGS, 0o640)
        try:
            status = os.fstat(fd)
            self.offset = _whole_size(fd, status.st_size)
            if status.st_size != self.offset:  # a crash cut the last line short
                os.ftruncate(fd, self.offset)
        except BaseException:
            os.close(fd)
            raise
        self.fd, self.inode = fd, status.st_ino

    def files(self) -> list[str]:
        """The files that can be read again, oldest first."""
        return names(self._path)

    def held(self, stream: int) -> bytes:
        """The output that is not in the file yet."""
        return self._splitters[stream].held

    def write(self, stream: int, data: bytes) -> None:
        """Log output; what the disk does not take is lost."""
        now = self._clock.rfc3339(time_ns())
        for block, partial in self._splitters[stream].take(data):
            self._append(self._encode(stream, block, partial, now))

    def finish(self) -> None:
        """Log the rest of an unfinished line at the end of the output."""
        for stream, splitter in self._splitters.items():
            if rest := splitter.rest():
                self._append(self._encode(stream, rest, True, self._clock.rfc3339(time_ns())))

    def stop_backpressure(self) -> None:
        """Nothing to do: a file causes no backpressure."""

    def _encode(self, stream: int, block: bytes, partial: bool, now: str) -> bytes:
        tail = f'","stream":"{_STREAMS[stream]}",{self._attrs}"time":"'
        begun = self._partial.get(stream)
        if partial:
            self._partial[stream] = begun or now
            return b'{"log":"%s%s"}\n' % (escape(block), f"{tail}{begun or now}".encode())
        first = b""
        if begun is not None:
            del self._partial[stream]
            end, _, block = block.partition(b"\n")
            first = b'{"log":"%s\\n%s"}\n' % (escape(end), f"{tail}{begun}".encode())
            if not block:
                return first
        head = b'{"log":"'
        lines = escape(block, b'\\n%s"}\n%s' % (f"{tail}{now}".encode(), head))
        return first + head + lines[: -len(head)]

    # -- the files -------------------------------------------------------------------------------

    def _append(self, out: bytes) -> None:
        with suppress(OSError):  # a full disk must not stop the container
            while out:
                size = len(out)
                if self._max_size and self.offset + size > self._max_size:
                    size = out.rfind(b"\n", 0, max(self._max_size - self.offset, 0)) + 1
                    if not size and self.offset and self._rotate():
                        continue
                    size = size or out.find(b"\n") + 1  # one that is longer than a file may be, or it cannot rotate
                written = os.write(self.fd, out[:size])
                if written != size:
                    os.ftruncate(self.fd, self.offset)
                    return
                self.offset += size
                out = out[size:]

    def _rotate(self) -> bool:
        """Begin a new file; False while the last one is still being compressed."""
        if self._busy():
            return False
        for suffix in ("", ".gz"):
            with suppress(FileNotFoundError):
                os.unlink(f"{self._path}.{max(self._max_files - 1, 1)}{suffix}")
        for number in range(self._max_files - 1, 0, -1):
            for suffix in ("", ".gz"):
                newer = f"{self._path}.{number - 1}{suffix}" if number > 1 else self._path
                if os.path.exists(newer) and (number > 1 or not suffix):
                    os.rename(newer, f"{self._path}.{number}{suffix}")
        if self._max_files == 1:
            os.unlink(self._path)
        old = self.fd
        self._open()
        os.close(old)
        if self._compress:
            self._pack(f"{self._path}.1")
        return True

    def _busy(self) -> bool:
        if self._compressing < 0:
            return False
        try:
            os.read(self._compressing, 1)
        except BlockingIOError:
            return True
        os.close(self._compressing)
        self._compressing = -1
        return False

    def _pack(self, path: str) -> None:
        """Compress a file in a process of its own, which holds the pipe open until it ends."""
        self._compressing, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            pid = os.fork()
        except OSError:  # it stays as it is
            pid = -1
        if pid:
            os.close(writer)
            return
        try:
            _signal.set_wakeup_fd(-1)
            gzip(path)
        except (OSError, ImportError):
            with suppress(OSError):
                os.unlink(path + ".gz.new")
        finally:
            os._exit(0)


def gzip(path: str) -> None:
    """Replace a file by ``path.gz`` (OSError)."""
    import zlib  # not in the memory of each monitor

    packer = zlib.compressobj(wbits=31)
    source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    target = os.open(path + ".gz.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
    while data := os.read(source, _CHUNK):
        _write_all(target, packer.compress(data))
    _write_all(target, packer.flush())
    os.close(source)
    os.close(target)
    os.rename(path + ".gz.new", path + ".gz")
    os.unlink(path)


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def _whole_size(fd: int, size: int) -> int:
    """Bytes up to and with the last newline."""
    end = size
    while end > 0:
        start = max(end - _CHUNK, 0)
        at = os.pread(fd, end - start, start).rfind(b"\n")
        if at >= 0:
            return start + at + 1
        end = start
    return 0
