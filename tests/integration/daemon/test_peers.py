"""Roots made of Debian's packages, and what is said where they cannot be made.

``scripts/peers``: of the engines that Ketch is compared with; ``scripts/bases``: the base image of whole programs.
"""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from tests.support import peers
from tests.support.projects import base
from tests.support.waiting import patient

SCRIPT = peers.SCRIPT
pytestmark = [
    pytest.mark.ketch_only,
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root"),
]


def run(*command: str, cache: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **({"KETCH_PEERS": cache, "KETCH_BASES": cache} if cache else {})}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=patient(50))


@pytest.mark.parametrize(
    "words", [(SCRIPT, "dir"), (SCRIPT, "run", "dockerd"), (SCRIPT, "run", "--network", "true"), (base.SCRIPT, "path")]
)
def test_a_missing_root_is_reported(tmp_path, words):
    done = run(*words, cache=str(tmp_path))
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.count("\n") == 1 and "what needs it is skipped: " in done.stderr
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "words",
    [(SCRIPT,), (SCRIPT, "frobnicate"), (SCRIPT, "run"), (SCRIPT, "run", "--network"), (base.SCRIPT, "path", "x")],
)
def test_usage(words):
    assert run(*words).returncode == 2


@pytest.mark.skipif(not shutil.which("apt-get") or not shutil.which("mmdebstrap"), reason="needs apt and mmdebstrap")
@pytest.mark.parametrize("script", [SCRIPT, base.SCRIPT])
def test_without_an_archive_one_line_says_why_and_nothing_is_left(tmp_path, script):
    hidden = "mount -t tmpfs none /etc/apt && mount -t tmpfs none /var/lib/apt && mkdir -p /var/lib/apt/lists/partial"
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", f'{hidden} && exec "$@"', "sh"]
    done = run(*command, script, "setup", cache=str(tmp_path))
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.count("\n") == 1 and "no Debian archive" in done.stderr
    assert os.listdir(tmp_path) == ["lock"]


def test_a_program_sees_its_root_and_little_of_the_machine(tmp_path):
    peers.need()
    (tmp_path / "here").write_text("shared\n", encoding="utf-8")
    script = f"cat {tmp_path}/here; touch /usr/x 2>/dev/null || echo fixed; ls /sys/class/net; ls /machine | wc -l"
    done = run(*peers.command("sh", "-c", script, network=True))
    assert done.stdout.split() == ["shared", "fixed", "lo", "0"], done.stderr
    assert "Docker version 28." in run(peers.docker(), "--version").stdout
    assert run(*peers.command("sh", "-c", "exit 7")).returncode == 7
    assert run(SCRIPT, "setup").stdout == ""


def test_nothing_of_a_program_s_mounts_is_seen_outside():
    peers.need()
    with open("/proc/self/mountinfo", encoding="utf-8") as f:
        before = f.read()
    run(*peers.command("mount", "-t", "tmpfs", "none", "/tmp"))
    with open("/proc/self/mountinfo", encoding="utf-8") as f:
        assert f.read() == before
