"""A file system with one file, which nobody ever gets to read: who tries sleeps in the kernel until it is killed.

Spoken to the kernel as Linux, filesystems/fuse.rst and <linux/fuse.h> (7.31) say, as far as `cat` needs it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import stat
import struct
import threading
from errno import ENOSYS
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_LOOKUP, _FORGET, _GETATTR, _OPEN, _INIT, _OPENDIR, _INTERRUPT, _BATCH_FORGET = 1, 2, 3, 14, 26, 27, 36, 42
_SILENT = (_FORGET, _INTERRUPT, _BATCH_FORGET)
_ROOT, _FILE = 1, 2
_NO_FLUSH = 1 << 5  # nothing has to be answered when the file is closed
_MNT_DETACH = 2
_libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def mounted(place: Path) -> Iterator[threading.Event]:
    """Mount it at ``place``; the event is set when somebody waits for the content of ``file``."""
    with contextlib.ExitStack() as stack:
        device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        stack.callback(os.close, device)  # the end of the connection: who waits gets an error
        options = f"fd={device},rootmode=40755,user_id=0,group_id=0,allow_other"
        if _libc.mount(b"test", os.fsencode(place), b"fuse", 0, options.encode()):
            raise OSError(ctypes.get_errno(), "mount", str(place))
        stack.callback(_libc.umount2, os.fsencode(place), _MNT_DETACH)
        stop = os.eventfd(0)
        stack.callback(os.close, stop)
        waited_for = threading.Event()
        server = threading.Thread(target=_serve, args=(device, stop, waited_for))
        server.start()
        stack.callback(server.join)
        stack.callback(os.eventfd_write, stop, 1)
        yield waited_for


def _serve(device: int, stop: int, waited_for: threading.Event) -> None:
    """Answer until the file is open and something more is asked: that stays where it is, so that who asks is killable.

    (What was taken out of the kernel's queue holds its process, SIGKILL or not.)
    """
    poll = select.poll()
    poll.register(device, select.POLLIN)
    poll.register(stop, select.POLLIN)
    opened = False
    while not any(fd == stop for fd, _ in poll.poll()):
        if opened:
            waited_for.set()
            poll.unregister(device)
            continue
        request = os.read(device, 1 << 17)
        _, operation, unique, node = struct.unpack_from("=IIQQ", request)
        if operation not in _SILENT:
            error, answer = _answer(operation, node)
            os.write(device, struct.pack("=IiQ", 16 + len(answer), -error, unique) + answer)
        opened = operation == _OPEN


def _answer(operation: int, node: int) -> tuple[int, bytes]:
    if operation == _INIT:
        return 0, struct.pack("=IIIIHHIIHHI28x", 7, 31, 4096, 0, 16, 12, 4096, 1, 0, 0, 0)
    if operation == _GETATTR:
        return 0, struct.pack("=QII", 1, 0, 0) + _attributes(node)
    if operation == _LOOKUP:
        return 0, struct.pack("=QQQQII", _FILE, 0, 1, 1, 0, 0) + _attributes(_FILE)
    if operation in (_OPEN, _OPENDIR):
        return 0, struct.pack("=QII", 0, _NO_FLUSH, 0)
    return ENOSYS, b""


def _attributes(node: int) -> bytes:
    mode = stat.S_IFDIR | 0o755 if node == _ROOT else stat.S_IFREG | 0o644
    return struct.pack("=6Q10I", node, 4096, 8, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)
