"""The launcher's heap once it is frozen: shared pages that reading does not write to, and a heap that works on."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support.source.project import ROOT

SOURCES = os.path.join(ROOT, "src")
PRELUDE = f"""
import sys
sys.path.append({os.path.abspath(SOURCES)!r})
from ketch.runtime.process import preload
preload.prepare()
import gc
from ketch.runtime.process import launcher, messages, monitor
preload.freeze()
"""


def in_a_launcher(code: str) -> list[str]:
    """The lines that a program prints whose heap was frozen as the launcher's."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", PRELUDE + code], capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="before Python 3.12 every reference is counted")
def test_frozen_objects_are_immortal():
    code = """
for one in (messages.send, messages.send.__code__, messages.__dict__, monitor.Monitor, messages.__doc__):
    before = sys.getrefcount(one)
    more = [one] * 1000
    print(sys.getrefcount(one) - before)
"""
    assert in_a_launcher(code) == ["0"] * 5


def test_later_objects_are_counted_and_collected():
    code = """
class Thing:
    def __del__(self):
        print(self.name, "is gone")

one = Thing()
one.name = "a thing"
print(sys.getrefcount(one))
del one
one = Thing()
one.name, one.itself = "a cycle", one
gc.enable()
del one
frozen = gc.get_freeze_count()
gc.collect()
print(gc.get_freeze_count() == frozen > 1000)
"""
    assert in_a_launcher(code) == ["2", "a thing is gone", "a cycle is gone", "True"]
