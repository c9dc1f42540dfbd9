"""Processes that are reaped while they are looked at."""

from __future__ import annotations

import os
import threading

import pytest

from ketch.engine.live import shared_pids
from ketch.engine.monitors import process
from tests.support.programs import need

PROCESSES = 500


def test_a_living_process_has_a_namespace():
    assert shared_pids._namespace(os.getpid()) == os.stat("/proc/self/ns/pid").st_ino


@pytest.mark.parametrize(
    "look", [shared_pids._namespace, lambda pid: process._executable(pid)[1]], ids=["namespace", "executable"]
)
def test_a_reaped_process_has_no_facts(look):
    """Looked at again and again until it is gone: no moment of its end is an error."""
    program = need("true")
    for _ in range(PROCESSES):
        pid = os.posix_spawn(program, [program], {})  # a fork copies the tables of this process's memory
        reaper = threading.Thread(target=os.waitpid, args=(pid, 0))
        reaper.start()
        try:
            while look(pid):
                pass
        finally:
            reaper.join()
    assert look(0) == 0
