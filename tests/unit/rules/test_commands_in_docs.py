"""The commands that documents name are commands, their flags are flags; those that are not run have a reason."""

from __future__ import annotations

import functools
import os
import re
import shlex
from typing import TYPE_CHECKING

import pytest

from ketch.cli import catalog, global_flags
from ketch.cli.guide import help_texts
from ketch.cli.options.flags import HelpRequested
from ketch.daemon.settings import load
from ketch.errors import InvalidArgument
from ketch.registry import settings
from tests.support.source import pages
from tests.support.source.prepared import OTHERS, PAGES, Prepared
from tests.support.source.project import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

_ENDS = re.compile(r"[;&|<>()]+")
_ANY = ("COMMAND", "--help")
_LACKING = re.compile(r"^## What Docker has besides\n.*?^## ", re.MULTILINE | re.DOTALL)
_SPAN, _FLAG = re.compile(r"`([^`\n]+)`"), re.compile(r"(?<![\w-])--[a-z][\w-]*")
# Of other programs that documents speak of: ps, mount, usermod, pytest, scripts, Dockerfiles, engines and runtimes.
_OTHERS = frozenset(
    {"--add-subgids", "--add-subuids", "--build", "--bundle", "--chmod", "--chown", "--criu", "--engine", "--forest"}
    | {"--log", "--long", "--make-shared", "--now", "--own-netns", "--parents", "--pdb", "--process", "--quick"}
    | {"--rootless", "--runtime", "--security", "--sort", "--systemd-cgroup", "--tmp-on-disk", "--uidmap"}
)
_OPTIONAL = str.maketrans("", "", "[]…")


def single(text: str) -> Iterator[list[str]]:
    """The words of each command of ``ketch`` and ``ketchd`` in a command line; optional ones are taken."""
    lexer = shlex.shlex(text.translate(_OPTIONAL).replace("\\\n", " "), posix=True, punctuation_chars=";&<>()")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in [*lexer, ";"]:
        if not _ENDS.fullmatch(word):
            words.append(word)
            continue
        program = words[0].removeprefix(".venv/bin/") if words else ""
        if program in ("ketch", "ketchd"):
            yield [program, *words[1:]]
        words = []


def wrong(words: list[str]) -> str:
    """What is wrong with a command; what its values say is left to those who carry it out."""
    program, *arguments = words
    try:
        if program == "ketchd":
            known = {name for action in load.parser()._actions for name in action.option_strings}
            strange = [word for word in arguments if word.startswith("-") and word.partition("=")[0] not in known]
            return f"unknown flags: {strange}" if strange else ""
        _, rest = global_flags.split(arguments)
        target, _, rest = catalog.find(
            ["help"] if rest[:1] == ["COMMAND"] else [word.partition("|")[0] for word in rest[:2]] + rest[2:]
        )
        if target is None and len(rest) > 1 and rest[1] not in _ANY:
            return f"{rest[0]} has no command {rest[1]}"
        flags = help_texts.flags_of(target) if target else None
        if flags is not None and rest != ["--help"]:
            flags.parse(rest)
    except HelpRequested:
        return ""
    except InvalidArgument as e:
        return str(e)
    return ""


@pytest.mark.parametrize("page", pages.every())
def test_commands_and_flags(page):
    found = [(line, words) for line, text in pages.named(page) for words in single(text)]
    assert [f"{page}:{line}: {' '.join(words)}: {why}" for line, words in found if (why := wrong(words))] == []


def test_many_are_found():
    assert sum(len(list(single(text))) for page in pages.every() for _, text in pages.named(page)) > 150


@pytest.mark.parametrize("text", ["ketch nope", "ketch ps --nope", "ketch volume nope x", "true && ketch run --nope x"])
def test_what_is_wrong_is_found(text):
    assert all(wrong(words) for words in single(text))
    assert list(single(text))


def test_a_wrong_flag_of_the_daemon_is_found():
    assert wrong(["ketchd", "--data-root", "DIR", "--nope"]) == "unknown flags: ['--nope']"


@functools.cache
def flags() -> set[str]:
    """All flags of Ketch's programs for users."""
    registry = next(action for action in settings.parser()._actions if isinstance(action.choices, dict))
    parsers = [load.parser(), *registry.choices.values()]
    found = {name for parser in parsers for action in parser._actions for name in action.option_strings}
    targets = {*catalog.COMMANDS.values(), *(target for group in catalog.GROUPS.values() for target in group.values())}
    sets = [global_flags.flag_set(), *filter(None, map(help_texts.flags_of, targets))]
    return found | {f"--{flag.name}" for one in sets for flag in one}


@pytest.mark.parametrize("page", pages.every())
def test_flags_in_sentences(page):
    with open(os.path.join(ROOT, page), encoding="utf-8") as f:
        spans = _SPAN.findall(_LACKING.sub("", f.read()))
    named = {flag for span in spans for flag in _FLAG.findall(span)}
    assert sorted(named - flags() - _OTHERS) == []


def test_flags_of_others_are_named():
    text = ""
    for page in pages.every():
        with open(os.path.join(ROOT, page), encoding="utf-8") as f:
            text += f.read()
    assert sorted(_OTHERS - set(_FLAG.findall(text))) == []


def commands(page: str) -> list[str]:
    return [command for block in pages.blocks(page) if block.is_shell for command in block.commands()]


@pytest.mark.parametrize("page", sorted(PAGES))
def test_what_is_prepared_is_there(page):
    """So that a command that is gone takes its reason with it."""
    beginnings = [*PAGES[page].elsewhere, *PAGES[page].lasting]
    assert [begin for begin in beginnings if not any(command.startswith(begin) for command in commands(page))] == []


@pytest.mark.parametrize("page", pages.with_commands())
def test_no_other_commands_are_left_out(page):
    """A beginning that happens to be another command's, too."""
    prepared = PAGES.get(page, Prepared())
    left_out = [command for command in commands(page) if command.startswith(tuple(prepared.elsewhere))]
    assert len(left_out) == (prepared.skipped or len(prepared.elsewhere)), left_out


@pytest.mark.parametrize("page", pages.every())
def test_what_is_no_command_is_named(page):
    """So that no command is taken for something else."""
    texts = [block for block in pages.blocks(page) if not block.runs]
    others = OTHERS.get(page, [])
    assert len(texts) == len(others), texts
    assert [text for text, begin in zip(texts, others, strict=True) if not text.text.startswith(begin)] == []


@pytest.mark.parametrize("page", pages.every())
def test_commands_are_not_between_fences(page):
    """There they would not be run; a fence that names a language has something else."""
    assert [block for block in pages.fenced(page) if block.runs] == []


def test_fences_are_found():
    found = [block for page in pages.every() for block in pages.fenced(page)]
    assert len(found) > 10
    for block in found:
        with open(os.path.join(ROOT, block.page), encoding="utf-8") as f:
            assert f.read().splitlines()[block.line - 1].endswith(block.text.partition("\n")[0])
