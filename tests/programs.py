"""Programs of the machine that tests use; ``scripts/setup`` installs them, where a package mirror has them.

What needs one that is not here is skipped, and the end of the run says so in one line.
"""

from __future__ import annotations

import os
import shutil

import pytest

MISSING: set[str] = set()
_PATH = os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin:/sbin:/usr/lib/systemd:/lib/systemd"


def need(name: str) -> str:
    """The absolute path of a program; the test that runs is skipped when there is none."""
    path = shutil.which(name, path=_PATH)
    if path is None:
        MISSING.add(name)
        pytest.skip(f"there is no {name} here")
    return path


def missing() -> str:
    """One line for the summary; empty when nothing was missing."""
    return f"skipped for want of a program: {', '.join(sorted(MISSING))}" if MISSING else ""
