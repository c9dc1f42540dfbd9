"""Descriptors of processes."""

from __future__ import annotations

import os
import threading

import pytest

from ketch import pidfd


def test_no_process():
    """Neither a process that has ended nor a number that belongs to a thread by now is taken for a process."""
    child = os.fork()
    if child == 0:
        os._exit(0)
    fd = pidfd.open_process(child)
    os.waitpid(child, 0)
    os.close(fd)
    with pytest.raises(ProcessLookupError):
        pidfd.open_process(child)
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()
    try:
        assert thread.native_id is not None
        with pytest.raises(ProcessLookupError):
            pidfd.open_process(thread.native_id)
    finally:
        over.set()
        thread.join()
