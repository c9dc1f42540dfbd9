"""Help on commands and flags, and the manual pages that are made of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from ketch.cli import catalog, main
from ketch.cli.guide import help_texts

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
COMMANDS = {
    **catalog.COMMANDS,
    **{f"{group} {name}": target for group, names in catalog.GROUPS.items() for name, target in names.items()},
}


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_and_flag_is_explained(name):
    assert len(help_texts.summary(COMMANDS[name])) > 6
    for flag in help_texts.flags_of(COMMANDS[name]) or ():
        assert len(flag.help) > 3, flag.name


def test_help_lists_every_command_with_its_line(capsys):
    assert main.run(["--help"]) == 0
    shown = capsys.readouterr().out
    for name, target in catalog.COMMANDS.items():
        assert f"  {name} " in shown
        assert help_texts.summary(target) in shown
    for name in catalog.GROUPS:
        assert f"  {name} " in shown


@pytest.mark.parametrize(
    ("words", "same_as"),
    [
        ("help", "--help"),
        ("help run", "run --help"),
        ("help network create", "network create --help"),
        ("network --help", "help network"),
        ("daemon -h", "help daemon"),
        ("help registry gc", "registry gc --help"),
    ],
)
def test_ways_to_ask(capsys, words, same_as):
    assert main.run(words.split()) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("Usage:  ketch ")
    assert main.run(same_as.split()) == 0
    assert capsys.readouterr().out == shown


def test_an_unfinished_command_is_explained(capsys):
    assert main.run(["network"]) == 0
    assert "  connect " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        ("nope", 1, "`nope` is not a ketch command"),
        ("help nope", 1, "`nope` is not a ketch command"),
        ("network nope", 1, "`network nope` is not a ketch command"),
        ("network nope --help", 1, "`network nope` is not a ketch command"),
        ("help network nope", 1, "`network nope` is not a ketch command"),
        ("network --nope", 125, "unknown flag: --nope"),
    ],
)
def test_what_is_no_command(capsys, words, code, sentence):
    """A script that takes standard output for an answer gets none."""
    assert main.run(words.split()) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert sentence in shown.err


def test_manual_pages(tmp_path):
    script = os.path.join(ROOT, "scripts", "man")
    subprocess.run([sys.executable, script, str(tmp_path)], check=True)
    pages = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert {"ketch.1", "ketchd.8", "ketch-runtime.8", "ketch-run.1", "ketch-network-create.1"} <= set(pages)
    assert len(pages) == len(COMMANDS) + 3
    assert "\\fB\\-\\-network\\fR \\fIlist\\fR\nconnect it to a network" in pages["ketch-run.1"]
    assert "\\fB\\-\\-data\\-root\\fR \\fIDIR\\fR" in pages["ketchd.8"]
    if shutil.which("groff"):
        done = subprocess.run(
            ["groff", "-K", "utf8", "-man", "-Tutf8", "-ww", "-z", *map(str, sorted(tmp_path.iterdir()))],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stderr == ""
