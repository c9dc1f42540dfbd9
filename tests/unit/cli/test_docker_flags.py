"""Docker's commands and flags are there: what is not is listed in docs/cli.md, with the reason.

``tests/data/docker-commands.json`` has the flags of each command of Docker's client 28.5, by its ``--help``.
"""

from __future__ import annotations

import json
import os
import re

from ketch.cli import catalog
from ketch.cli.guide import help_texts
from tests.support.source.project import ROOT

with open(os.path.join(ROOT, "tests/data/docker-commands.json"), encoding="utf-8") as f:
    DOCKER: dict[str, str] = json.load(f)


def listed() -> set[str]:
    """The first column of the table: commands, and commands with flags."""
    with open(os.path.join(ROOT, "docs/cli.md"), encoding="utf-8") as f:
        section = f.read().partition("\n## What Docker has besides\n")[2].partition("\n## ")[0]
    cells = [re.findall(r"`([^`]+)`", line.split("|")[1]) for line in section.splitlines() if line.startswith("| `")]
    assert cells
    flags = {(names[0], name) for names in cells for name in names if name.startswith("-")}
    commands = {(name, "") for names in cells for name in names if not names[-1].startswith("-")}
    return {f"{name} {flag}".rstrip() for name, flag in flags | commands}


def lacking(command: str, flags: str) -> set[str]:
    words = command.split()
    if words[0] not in catalog.COMMANDS and words[0] not in catalog.GROUPS:
        return {words[0]}
    if len(words) > 1 and words[1] not in catalog.GROUPS[words[0]]:
        return {command}
    target, name, _ = catalog.find(words)
    if len(words) > 1 and target in catalog.COMMANDS.values():
        return set()  # what is said of the command without the group
    ours = {f"--{flag.name}" for flag in help_texts.flags_of(target)}
    return {f"{command} {flag}" for flag in flags.split() if flag not in ours}


def test_what_is_missing_is_listed():
    missing: set[str] = set().union(*(lacking(command, flags) for command, flags in DOCKER.items()))
    assert missing == listed()


def test_they_are_all_of_dockers():
    assert len(DOCKER) > 150
    assert "--publish" in DOCKER["run"].split()


def test_each_command_is_named_in_its_page():
    """`docs/cli.md` has all of Ketch's."""
    with open(os.path.join(ROOT, "docs/cli.md"), encoding="utf-8") as f:
        words = set(re.findall(r"[a-z][a-z-]*", f.read()))
    names = {*catalog.COMMANDS, *catalog.GROUPS, *(name for group in catalog.GROUPS.values() for name in group)}
    assert sorted(names - words - {"list"}) == []
