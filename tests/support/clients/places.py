"""Clients that run as programs of their own, in the environments that ``scripts/clients`` makes.

Where one could not be made, what needs it is skipped, and the end of the run says so in one line.
"""

from __future__ import annotations

import functools
import os
import subprocess

import pytest

_SCRIPT = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../../scripts/clients"))
SKIPPED = "clients: no "  # how a reason begins


@functools.cache
def _found(name: str) -> tuple[str, str]:
    done = subprocess.run([_SCRIPT, "dir", name], capture_output=True, text=True, check=False)
    return done.stdout.strip(), done.stderr.strip()


def place(name: str) -> str:
    """The directory of a client; the test that runs is skipped where there is none."""
    found, why = _found(name)
    if not found:
        pytest.skip(why)
    return found
