"""Heaps that threads share."""

from __future__ import annotations

import subprocess
import sys

import pytest

_CODE = """
import threading
from ketch.runtime import heaps
{share}
here = threading.Barrier(9)

def work():
    kept = [bytearray(50_000) for _ in range(20)]
    here.wait()
    here.wait()

threads = [threading.Thread(target=work) for _ in range(8)]
for one in threads:
    one.start()
here.wait()
with open("/proc/self/maps") as f:
    ranges = [line.split() for line in f]
print(sum(int(one[0].split("-")[0], 16) % (64 << 20) == 0 and one[1] == "rw-p" for one in ranges))
here.wait()
"""


def arenas(share):
    command = [sys.executable, "-c", _CODE.format(share=share)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_threads_share_heaps():
    if arenas("") < 4:
        pytest.skip("this C library gives threads no heaps of their own")
    assert arenas("heaps.share_heaps()") <= 2
