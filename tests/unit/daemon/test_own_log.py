"""The log of a daemon that the command line has started, which is kept small."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

_BEGIN = """
import logging, os, sys
from ketch import places
from ketch.daemon.own_log import file
places.LARGEST_LOG = 1000
logging.basicConfig(level="INFO", format="%(message)s", handlers=[file.handler()])
assert places.LOG_VARIABLE not in os.environ
"""
_LINES = "for n in range(100): logging.info('line %04d of a log', n)\n"


def write(path: Path, script: str = _LINES, variable: str = "KETCH_LOG") -> None:
    """Have a process log to a file, as ``ketch daemon start`` has ketchd."""
    with open(path, "ab") as log:
        command = [sys.executable, "-c", _BEGIN + script]
        subprocess.run(command, stderr=log, env={**os.environ, variable: str(path)}, check=True)


def numbers(path: Path) -> list[int]:
    return [int(line.split()[1]) for line in path.read_text(encoding="ascii").splitlines() if line]


def test_it_is_put_aside_when_it_is_large(tmp_path: Path):
    write(tmp_path / "log")
    assert sorted(os.listdir(tmp_path)) == ["log", "log.1"]
    old, new = numbers(tmp_path / "log.1"), numbers(tmp_path / "log")
    assert [*old, *new] == list(range(old[0], 100))
    assert len(new) < len(old) == 1000 // len("line 0000 of a log\n") + 1


def test_those_who_have_it_open_go_on_in_it(tmp_path: Path):
    """The launcher's words come where the daemon's are, however often it was cut."""
    with open(tmp_path / "log", "ab") as other:
        write(tmp_path / "log")
        other.write(b"line 1234\n")
    assert numbers(tmp_path / "log")[-1] == 1234


def test_another_log_is_left_alone(tmp_path: Path):
    """Somebody else may rotate it, or want all of it."""
    write(tmp_path / "log", variable="OTHER")
    assert (os.listdir(tmp_path), numbers(tmp_path / "log")) == (["log"], list(range(100)))


@pytest.mark.parametrize(
    "change", ["os.mkdir('{}.1')", "os.rename('{0}', '{0}.away')", "os.unlink('{}')"], ids=["taken", "moved", "gone"]
)
def test_where_it_cannot_be_put_aside(tmp_path: Path, change: str):
    """It grows, and nothing is lost; it is tried again."""
    path = tmp_path / "log"
    script = f"reader = open({str(path)!r}); {change.format(path)}\n" + _LINES + "print(reader.read(), end='')"
    with open(tmp_path / "seen", "wb") as seen, open(path, "ab") as log:
        command = [sys.executable, "-c", _BEGIN + script]
        subprocess.run(command, stdout=seen, stderr=log, env={**os.environ, "KETCH_LOG": str(path)}, check=True)
    assert numbers(tmp_path / "seen") == list(range(100))
    assert [name for name in os.listdir(tmp_path) if name.startswith("log.1.")] == []
