"""The commands of the documents: indented blocks whose first line begins with a program or an assignment."""

from __future__ import annotations

import glob
import os
import re
import shlex
import textwrap
from dataclasses import dataclass

from tests.support.source.project import ROOT

_BEGIN = re.compile(
    r"(\.venv/bin/(ketch|python)|adduser|apt|curl|dockerd?|export|for|git|iptables|ketchd?|make|mkdir|nft|nsenter|pip|"
    r"pipx|py-spy|python|scripts/bare|source|sqlite3|ssh|strace|systemctl)\s|\w+="
)
_DRAWN = set("─│►◄")
_SPAN = re.compile(r"`((?:ketch|ketchd) [^`]+)`")
_INDENT = re.compile(r"( {4,7})\S")


@dataclass(frozen=True)
class Block:
    """Lines of a page without their indentation; ``line`` is the number of the first one."""

    page: str
    line: int
    text: str

    @property
    def is_shell(self) -> bool:
        """Whether it is for a shell: not a picture, a file or an answer."""
        return bool(_BEGIN.match(self.text)) and not set(self.text) & _DRAWN

    @property
    def is_session(self) -> bool:
        """Whether it is one command and what it answers."""
        return self.text.startswith("$ ")

    @property
    def is_python(self) -> bool:
        return self.text.startswith(("import ", "from "))

    @property
    def runs(self) -> bool:
        return self.is_shell or self.is_session or self.is_python

    def commands(self) -> list[str]:
        """Its commands: what goes on in the next line (a quotation, ``\\``, ``|``) is one."""
        found: list[str] = []
        for line in self.text.splitlines():
            if found and _goes_on(found[-1]):
                found[-1] += "\n" + line
            else:
                found.append(line)
        return [command for command in found if command.strip()]


def _goes_on(command: str) -> bool:
    if command.endswith(("\\", "|")):
        return True
    try:
        shlex.split(command, comments=True)
    except ValueError:
        return True
    return False


def every() -> list[str]:
    """The documents of the present."""
    found = {os.path.relpath(path, ROOT) for path in glob.glob(f"{ROOT}/docs/*.md") + glob.glob(f"{ROOT}/*.md")}
    return sorted(found - {"CHANGELOG.md"})


def with_commands() -> list[str]:
    """Those that have blocks of commands."""
    return [page for page in every() if any(block.runs for block in blocks(page))]


def fenced(page: str) -> list[Block]:
    """The blocks between fences that name no language."""
    with open(os.path.join(ROOT, page), encoding="utf-8") as f:
        lines = f.read().splitlines()
    fences = [number for number, line in enumerate(lines) if line.lstrip().startswith("```")]
    return [
        Block(page, begin + 2, textwrap.dedent("\n".join(lines[begin + 1 : end])))
        for begin, end in zip(fences[::2], fences[1::2], strict=True)
        if lines[begin].strip() == "```"
    ]


def blocks(page: str) -> list[Block]:
    """The indented blocks of a document; those of a list's item are indented further."""
    with open(os.path.join(ROOT, page), encoding="utf-8") as f:
        lines = f.read().splitlines()
    found: list[Block] = []
    inside, fenced, indent = False, False, ""
    for number, line in enumerate(lines, 1):
        fenced ^= line.lstrip().startswith("```")
        begins = _INDENT.match(line) if not fenced and not inside and not lines[number - 2].strip() else None
        if begins:
            indent, inside = begins[1], True
            found.append(Block(page, number, line.removeprefix(indent)))
        elif inside and line.startswith(indent) and line.strip():
            last = found.pop()
            found.append(Block(page, last.line, f"{last.text}\n{line.removeprefix(indent)}"))
        else:
            inside = False
    return found


def named(page: str) -> list[tuple[int, str]]:
    """The commands of ``ketch`` and ``ketchd`` in a document's blocks and sentences, with the numbers of lines."""
    with open(os.path.join(ROOT, page), encoding="utf-8") as f:
        text = f.read()
    found = [(block.line, command) for block in blocks(page) if block.is_shell for command in block.commands()]
    found += [(text.count("\n", 0, match.start()) + 1, match[1]) for match in _SPAN.finditer(text)]
    return found
