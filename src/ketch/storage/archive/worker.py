"""The worker process that unpacks layers: jobs with descriptors arrive over a socket, results go back.

    job      JSON, with descriptors: the blob's file, the directory to unpack into, memory and event of `follow_file`;
             {"digest": …} is the blob's when somebody else sees to that, empty when it is to be found out
    answer   JSON: {"digest": …, "diff_id": …, "size": …} or {"error": class, "message": …, "hint": …}

The blob may still be growing.  Decompressing and hashing run in a thread beside the one that makes files: both let go
of the interpreter while they work.  The process ends with the engine's, and when the socket does.
It imports no more than it needs: it is started while somebody waits.
"""

from __future__ import annotations

import hashlib
import json
import os
import queue
import signal
import sys
import threading
from typing import TypedDict

from ketch import errors
from ketch.linux import fdpass, prctl
from ketch.storage.archive import compression, limits, tar
from ketch.storage.archive.extract import Extractor
from ketch.storage.archive.follow_file import FollowedFile, GivenUp, UnpackProgress

_CHUNK = 1 << 18
_AHEAD = 8


class _Hashed:
    """A stream that hashes the bytes read."""

    def __init__(self, source: FollowedFile) -> None:
        self._source = source
        self.hash = hashlib.sha256()

    def read(self, size: int = -1, /) -> bytes:
        data = self._source.read(size)
        self.hash.update(data)
        return data


class Decompressed:
    """A stream that a thread reads ahead, decompresses and hashes."""

    def __init__(self, source: FollowedFile, digest: str) -> None:
        self._source = source
        self.digest = digest
        self.diff_id = ""
        self._queue: queue.Queue[bytes | BaseException] = queue.Queue(_AHEAD)
        self._stopped = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._hash_and_forward()
        except BaseException as e:  # it is raised where the data are read
            self._queue.put(e)

    def _hash_and_forward(self) -> None:
        """Hash and pass on the data, each byte once: of a plain tar both digests are the same."""
        source = compression.Peekable(_Hashed(self._source) if not self.digest else self._source)
        plain_tar = compression.kind(source.peek(6)) == "none"
        hashed = hashlib.sha256()
        with compression.reader(source, "layer") as plain:
            while data := plain.read(_CHUNK):
                if self._stopped:
                    return
                self._queue.put(data)
                if not plain_tar:
                    hashed.update(data)
        if isinstance(source.source, _Hashed):
            while source.source.read(_CHUNK):
                pass  # what stands behind the compressed stream belongs to the blob
            self.digest = "sha256:" + source.source.hash.hexdigest()
        self.diff_id = self.digest if plain_tar else "sha256:" + hashed.hexdigest()
        self._queue.put(b"")

    def read(self, _size: int = -1, /) -> bytes:
        """The next piece, of whatever length; empty at the end."""
        item = self._queue.get()
        if isinstance(item, BaseException):
            self._queue.put(item)
            raise item
        if not item:
            self._queue.put(b"")
        return item

    def close(self) -> None:
        """End the thread, and drop its pending data."""
        self._stopped = True
        self._source.stop()
        while self._thread.is_alive():
            try:
                self._queue.get(timeout=0.01)
            except queue.Empty:
                continue


class JobDone(TypedDict):
    """The answer of a job that was carried out: the blob's digest, that of its content, the bytes of its files."""

    digest: str
    diff_id: str
    size: int


class JobFailed(TypedDict):
    """The answer of a job that failed: the class of `ketch.errors` and its arguments."""

    error: str
    message: str
    hint: str | None


def unpack(blob_fd: int, directory_fd: int, progress: UnpackProgress, digest: str) -> JobDone:
    """Carry out one job."""
    stream = Decompressed(FollowedFile(blob_fd, progress), digest)
    try:
        guard = limits.Guard(stream, directory_fd)
        size = Extractor(directory_fd, layer=True).run(tar.TarReader(guard))
        while stream.read():
            pass  # a tar has padding behind its last member
        return {"digest": stream.digest, "diff_id": stream.diff_id, "size": size}
    finally:
        stream.close()


def _answer(payload: bytes, fds: list[int]) -> JobDone | JobFailed:
    progress = UnpackProgress(fds[2], fds[3])
    try:
        return unpack(fds[0], fds[1], progress, json.loads(payload)["digest"])
    except errors.KetchError as e:
        return {"error": type(e).__name__, "message": e.message, "hint": e.hint}
    except GivenUp:
        return {"error": "Unavailable", "message": "unpack layer: its download was given up", "hint": None}
    except Exception as e:
        return {"error": "KetchError", "message": f"unpack layer: {type(e).__name__}: {e}", "hint": None}
    finally:
        progress.close()
        os.close(fds[0])
        os.close(fds[1])


def main(socket_fd: int, parent: int) -> None:
    """Serve until the socket ends, or the process ``parent`` does."""
    prctl.set_parent_death_signal(signal.SIGKILL)
    if os.getppid() != parent:
        return  # it died before the signal was asked for
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        payload, fds = fdpass.recv(socket_fd)
        if not payload:
            return
        fdpass.send(socket_fd, json.dumps(_answer(payload, fds)).encode())


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
