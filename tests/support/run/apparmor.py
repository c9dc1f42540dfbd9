"""AppArmor for tests: whether this kernel has it, and profiles of a test's own."""

from __future__ import annotations

import contextlib
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from ketch.runtime.security import apparmor
from tests.support.programs import need
from tests.support.waiting import patient

if TYPE_CHECKING:
    from collections.abc import Iterator

NEEDED = pytest.mark.skipif(
    not (apparmor.enabled() and apparmor.manageable()), reason="AppArmor is off, or securityfs is not mounted"
)


def load(source: str) -> None:
    """Load profiles, or replace those that are there."""
    _change("--replace", source)


def remove(source: str) -> None:
    """Remove profiles."""
    _change("--remove", source)


def _change(option: str, source: str) -> None:
    program = [need("apparmor_parser"), "--skip-cache", option]
    subprocess.run(program, input=source, check=True, text=True, timeout=patient(30), capture_output=True)


@contextlib.contextmanager
def profile(rules: str) -> Iterator[str]:
    """The name of a profile with everything but what ``rules`` deny, for a time."""
    name = f"ketch-test-{os.getpid()}"
    allowed = "capability, file, mount, network, pivot_root, ptrace, remount, signal, umount, unix,"
    source = f"profile {name} flags=(attach_disconnected, mediate_deleted) {{\n{allowed}\n{rules}\n}}\n"
    load(source)
    try:
        yield name
    finally:
        remove(source)
