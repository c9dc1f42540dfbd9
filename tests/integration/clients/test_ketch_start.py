"""The start of the `ketch` command: what the commands that people and scripts call most often import."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support.engines import KETCH

pytestmark = pytest.mark.ketch_only

# Each takes longer to import than the rest of such a command, or imports one that does.
HEAVY = {"argparse", "asyncio", "contextlib", "dataclasses", "enum", "functools", "inspect", "json", "platform", "re"}
HEAVY |= {"signal", "site", "socket", "subprocess", "tempfile", "threading", "typing", "msgspec", "urllib.parse"}
COMMANDS = {
    "version": ["version"],
    "ps": ["ps", "-a"],
    "run": ["run", "--rm", "-e", "A=b", "-v", "/:/host:ro", "busybox", "true"],
    "exec": ["exec", "begun", "true"],
    "logs": ["logs", "begun"],
    "images": ["images"],
    "start and stop": ["stop", "-t", "0", "begun"],
    "no such container": ["rm", "nobody"],
}


def imported(engine, command: list[str]) -> set[str]:
    """The modules that a command imports, by an account of the interpreter's own; ketch's may come from its cache."""
    line = [sys.executable, "-IS", "-X", "importtime", KETCH, *command]
    done = subprocess.run(line, env=engine.environment(), capture_output=True, text=True, check=False)
    assert done.returncode == (1 if "nobody" in command else 0), done.stderr
    return {row.rpartition("|")[2].strip() for row in done.stderr.splitlines() if row.startswith("import time:")}


def test_short_commands_import_little(engine):
    engine.ketch("run", "-d", "--name", "begun", "busybox", "sleep", "1000")
    try:
        found = {name: imported(engine, command) & HEAVY for name, command in COMMANDS.items()}
    finally:
        engine.ketch("rm", "-f", "begun")
    assert found == dict.fromkeys(COMMANDS, set())


def test_modules_come_from_the_cache(engine):
    """What the first call has left: the second one runs no import for a module of ketch's, and prints the same."""
    first = engine.ketch("ps", "-a", "--no-trunc").out
    modules = imported(engine, ["ps", "-a", "--no-trunc"])
    assert engine.ketch("ps", "-a", "--no-trunc").out == first
    assert {name for name in modules if name.startswith("ketch.cli.")} == set()


def test_output_that_nobody_reads(engine):
    """The process ends itself without the interpreter's help: all has been written, and what cannot be is told."""
    done = subprocess.run([KETCH, "help"], env=engine.environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("\n")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [KETCH, "help"], env=engine.environment(), stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert (done.returncode, done.stderr) == (1, b"ketch: write error: No space left on device\n")
    for stream in "stdout", "stderr":
        reader, writer = os.pipe()
        os.close(reader)
        with open(writer, "wb") as pipe:
            command = [KETCH, "help"] if stream == "stdout" else [KETCH, "inspect", "nobody"]
            done = subprocess.run(command, env=engine.environment(), check=False, **{stream: pipe})
        assert done.returncode == (141 if stream == "stdout" else 1)
