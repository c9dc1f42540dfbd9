"""Generated requests for every endpoint: no internal error, no hang, no leftovers.

A longer run by hand, with other seeds: ``KETCH_FUZZ_EXAMPLES=200 KETCH_FUZZ_SEED=7 pytest …/test_fuzz.py``.
"""

from __future__ import annotations

import contextlib
import os

import pytest

from tests.support.fuzzing.contract import load_description
from tests.support.fuzzing.fuzz import Fuzzer
from tests.support.fuzzing.world import World, descriptors, resident

pytestmark = [
    pytest.mark.ketch_only,
]
EXAMPLES = int(os.environ.get("KETCH_FUZZ_EXAMPLES", "3"))
SEED = int(os.environ.get("KETCH_FUZZ_SEED", "1"))
GROWTH = 60 << 20  # of the daemon's memory, by all that it was asked


@pytest.mark.timeout(3600)
def test_made_up_requests(own_engine):
    own_engine.start()
    own_engine.add_busybox()
    with contextlib.closing(own_engine.py()) as client:
        world = World(client)
        fuzzer = Fuzzer(own_engine, load_description(), world.restore)
        with contextlib.closing(fuzzer):
            world.restore()
            pid = own_engine.process.pid
            memory, open_now = resident(pid), descriptors(pid)
            for operation in fuzzer.operations:
                fuzzer.drive(operation, EXAMPLES, SEED)
                assert own_engine.process.poll() is None, own_engine.log()
        assert not fuzzer.failures, "\n\n".join(f"{why}\n    {what}" for why, what in fuzzer.failures.items())
        assert {200, 201, 204, 400, 404, 409} <= set(fuzzer.statuses), fuzzer.statuses
        world.restore()
        assert descriptors(pid) < open_now + 20
        assert resident(pid) < memory + GROWTH
        print(fuzzer.statuses)
        for volume in client.volumes.list():
            volume.remove(force=True)
    # (and the fixture: no process, mount, link, cgroup or table is left)
