"""A machine on which something that a user's engine wants is missing: it says what, and does the rest."""

from __future__ import annotations

import json

import pytest

from tests.support.run import unprivileged

pytestmark = pytest.mark.ketch_only


def warnings(engine) -> str:
    return "\n".join(json.loads(engine.docker("info", "--format", "{{json .Warnings}}").out) or [])


def test_no_programs(own_users_engine):
    """Without newuidmap there is one user; without pasta and slirp4netns no way outside."""
    engine = own_users_engine
    engine.stop()
    engine.settings["PATH"] = "/nonexistent"
    engine.start()
    said = warnings(engine)
    assert "one user, root: newuidmap and newgidmap not found (package uidmap)" in said
    assert "reach nothing outside of this machine: pasta is not installed; slirp4netns is not installed" in said
    mapped = engine.docker("run", "--rm", "busybox", "cat", "/proc/self/uid_map").out
    assert mapped.split() == ["0", str(unprivileged.UID), "1"]
    assert engine.docker("run", "--rm", "busybox", "id", "-u").out == "0\n"


def test_user_namespaces_that_are_forbidden(own_users_engine):
    """As in a chroot, where the kernel makes none: one sentence and what to do."""
    engine = own_users_engine
    engine.stop()
    engine.prefix = ["unshare", "-m", "sh", "-c", 'mount --rbind / /mnt && exec chroot /mnt "$@"', "sh"]
    engine.launch()
    assert engine.process.wait(30) == 1
    said = engine.log()
    assert "ketchd: make a user namespace: operation not permitted\n" in said
    assert "user namespaces" in said.splitlines()[-1]
    assert "Traceback" not in said
    engine.process = None
