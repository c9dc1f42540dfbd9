"""The base image of programs that tests build: the root filesystem that ``scripts/bases`` makes.

Where there is none, what needs it is skipped, and the end of the run says so in one line.
"""

from __future__ import annotations

import functools
import os
import subprocess

import pytest

SCRIPT = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../../scripts/bases"))
SKIPPED = "bases: no "  # how a reason begins


@functools.cache
def _found() -> tuple[str, str]:
    done = subprocess.run([SCRIPT, "path"], capture_output=True, text=True, check=False)
    return done.stdout.strip(), done.stderr.strip()


def path() -> str:
    """The archive; the test that runs is skipped where there is none."""
    found, why = _found()
    if not found:
        pytest.skip(why)
    return found
