"""Programs and kernel features that tests use; ``scripts/setup`` installs programs, where a package mirror has them.

What needs one that is not here is skipped, and the end of the run says so in one line.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable

_MISSING = re.compile(r"there is no (\S+) here")
_PATH = os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin:/sbin:/usr/lib/systemd:/lib/systemd"


def need(name: str) -> str:
    """The absolute path of a program; the test that runs is skipped when there is none."""
    path = shutil.which(name, path=_PATH)
    if path is None:
        pytest.skip(f"there is no {name} here")
    return path


def need_links(kind: str) -> None:
    """Skip the test when this kernel makes no links of a kind (``macvlan``), tried in a namespace of its own."""
    script = f"{need('ip')} link add p0 type veth peer p1 && {need('ip')} link add link p0 x0 type {kind}"
    made = subprocess.run([need("unshare"), "-n", "sh", "-c", script], capture_output=True, check=False)
    if made.returncode:
        pytest.skip(f"this kernel has no {kind}")


def missing(reasons: Iterable[str]) -> list[str]:
    """The names of the programs for want of which tests were skipped, from the reasons for skipping."""
    return sorted({match[1] for match in map(_MISSING.search, reasons) if match})
