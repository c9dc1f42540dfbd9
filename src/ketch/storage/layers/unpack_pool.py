"""The pool of worker processes that unpack layers in parallel.

A thread of the pool starts its process at its first job and talks to it; one that has had nothing to do for a while
ends it.  A blob may still be on its way while its layer is unpacked, for as long as a slow client or registry
likes: such jobs do not count towards the limit, so that they hold up no one.
"""

from __future__ import annotations

import json
import os
import queue
import socket
import subprocess
import threading
from concurrent.futures import Future
from contextlib import ExitStack
from typing import NamedTuple

from ketch import errors, programs
from ketch.linux import fdpass
from ketch.storage.archive.follow_file import UnpackProgress

_IDLE_S = 30.0
_LAST_S = 5.0
_MOST = 32
_MODULE = "ketch.storage.archive.worker"
# The errors that a process may answer with; any other is a failure of no kind.
_ERRORS = {
    kind.__name__: kind
    for kind in (
        errors.InvalidArgument,
        errors.PermissionDenied,
        errors.ResourceExhausted,
        errors.Unavailable,
        errors.DataLoss,
    )
}


class Unpacked(NamedTuple):
    """The digests of a layer's blob and of its tar, and the bytes of its files."""

    digest: str
    diff_id: str
    size: int


class Unpacking:
    """The unpacking of one layer into a directory; `finish` or `abort` it."""

    def __init__(self, blob_fd: int, directory_fd: int, digest: str) -> None:
        self.fds, self.digest = (blob_fd, directory_fd), digest
        self.progress = UnpackProgress.make()
        self.future: Future[Unpacked] = Future()
        self._lock = threading.Lock()
        self._closed = False
        self.whole = False

    def grown(self, size: int) -> None:
        """Report the bytes of the blob that are written."""
        with self._lock:
            if not self._closed:
                self.progress.grown(size)

    def finish(self, size: int) -> None:
        """Report that the blob is complete."""
        with self._lock:
            self.whole = True
            if not self._closed:
                self.progress.whole(size)

    def give_up(self) -> None:
        """Stop: the blob remains incomplete."""
        with self._lock:
            if not self._closed:
                self.progress.give_up()

    def abort(self) -> None:
        """Stop, and wait until nothing is written to the directory any more."""
        self.give_up()
        self.future.exception()

    @property
    def consumed(self) -> int:
        """The number of bytes of the blob that have been unpacked."""
        with self._lock:
            return 0 if self._closed else self.progress.consumed

    def complete(self, result: Unpacked | errors.KetchError) -> None:
        """Set the result (by the pool)."""
        with self._lock:
            self._closed = True
            self.progress.close()
            for fd in self.fds:
                os.close(fd)
        if isinstance(result, Unpacked):
            self.future.set_result(result)
        else:
            self.future.set_exception(result)


class UnpackPool:
    """The pool: at most ``limit`` processes for complete blobs, and more for growing ones; thread-safe."""

    def __init__(self, limit: int = 0) -> None:
        self._limit = limit or min(max(os.cpu_count() or 1, 3), 8)
        self._jobs: queue.SimpleQueue[Unpacking | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._running: set[Unpacking] = set()
        self._queued = self._idle = 0

    def begin(self, blob_path: str, directory: str, digest: str = "", size: int | None = None) -> Unpacking:
        """Begin to unpack a (growing) blob's file into a directory with no other user.

        ``digest`` is the blob's, when the caller makes sure of it; otherwise it is found out.  ``size`` in bytes says
        that all of it is there.
        """
        with ExitStack() as undo:
            blob_fd = os.open(blob_path, os.O_RDONLY | os.O_CLOEXEC)
            undo.callback(os.close, blob_fd)
            directory_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            undo.callback(os.close, directory_fd)
            job = Unpacking(blob_fd, directory_fd, digest)
            undo.pop_all()
        if size is not None:
            job.finish(size)
        with self._lock:
            self._queued += 1
            self._jobs.put(job)
            self._staff()
        return job

    def _staff(self) -> None:
        """Start another thread for a waiting job, within the limit; under the lock."""
        whole = sum(job.whole for job in self._running)
        if self._queued > self._idle and whole + self._idle < self._limit and len(self._threads) < _MOST:
            thread = threading.Thread(target=self._serve, name="unpack", daemon=True)
            self._threads.append(thread)
            self._idle += 1
            thread.start()

    def close(self) -> None:
        """End the workers, which must be idle, and wait for them; nothing may be begun afterwards."""
        with self._lock:
            threads = list(self._threads)
            for _ in threads:
                self._jobs.put(None)
        for thread in threads:
            thread.join(_LAST_S)

    def _serve(self) -> None:
        """The thread's loop: job after job, with one worker as long as it lives."""
        worker: _Worker | None = None
        while True:
            try:
                job = self._jobs.get(timeout=_IDLE_S)
            except queue.Empty:
                with self._lock:
                    if self._jobs.empty():
                        self._threads.remove(threading.current_thread())
                        self._idle -= 1
                        break
                continue
            if job is None:
                break
            with self._lock:
                self._idle -= 1
                self._queued -= 1
                self._running.add(job)
                self._staff()
            worker = _alive(worker, job)
            if worker is not None:
                worker.carry_out(job)
            with self._lock:
                self._idle += 1
                self._running.discard(job)
        if worker is not None:
            worker.close()


def _alive(worker: _Worker | None, job: Unpacking) -> _Worker | None:
    """The worker, or a new one for an ended one; if none can be started, the job fails."""
    if worker is not None:
        if worker.process.poll() is None:
            return worker
        worker.close()
    try:
        return _Worker()
    except OSError as e:
        job.complete(errors.ResourceExhausted(f"unpack layer: start a process: {e.strerror}"))
        return None


class _Worker:
    """One worker process."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                self.process = subprocess.Popen(
                    programs.python(_MODULE, str(theirs.fileno()), str(os.getpid())),
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    env=programs.environment(),
                )
        except OSError:
            self._socket.close()
            raise

    def carry_out(self, job: Unpacking) -> None:
        """Send a job to the worker and wait for its end; the future always gets a result."""
        try:
            fds = (*job.fds, job.progress.memory_fd, job.progress.event_fd)
            fdpass.send(self._socket.fileno(), json.dumps({"digest": job.digest}).encode(), fds)
            payload, _ = fdpass.recv(self._socket.fileno())
        except OSError:
            payload = b""
        if not payload:
            self.process.kill()
            status = self.process.wait()
            how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
            job.complete(
                errors.ResourceExhausted(
                    f"unpack layer: the process that unpacks it {how}",
                    hint="the kernel may have run out of memory; try again",
                )
            )
            return
        answer = json.loads(payload)
        if "error" in answer:
            kind = _ERRORS.get(answer["error"], errors.KetchError)
            job.complete(kind(answer["message"], hint=answer["hint"]))
        else:
            job.complete(Unpacked(**answer))

    def close(self) -> None:
        """End the process."""
        self._socket.close()
        self.process.wait()
