"""Command-line flags as Docker's users type them: ``-it``, ``--name=x``, ``--name x``, ``--rm=false``, ``-p 1 -p 2``.

A small parser of our own: what ends the flags, and the words where something is wrong, are Docker's and not argparse's
(docs/design.md).
"""

from __future__ import annotations

from ketch.cli.errors import ArgumentsError, UsageError
from ketch.notation import booleans

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, NoReturn

    Values = dict[str, Any]  # by the flag's name: a switch, a text, a number or a list, as the flag's kind has it

# `list` and `int` are methods below, as the flags' kinds.
Words = list[str]
Count = int
FORMAT = "json, or a Go template: {{.Field}}, `table {{.Field}}`"  # what every --format takes
_DEFAULTS: Values = {"bool": False, "string": "", "int": None, "list": None}


class HelpRequested(Exception):
    """``--help`` was given; ``flags`` are the command's own, None when another program reads them."""

    def __init__(self, text: str, flags: FlagSet | None = None) -> None:
        super().__init__(text)
        self.flags = flags


class Flag:
    """One flag; its value's ``kind`` is bool, string, optional, int or list."""

    def __init__(self, name: str, short: str, kind: str, default: Any, help_text: str) -> None:
        self.name, self.short, self.kind, self.default, self.help = name, short, kind, default, help_text


class Options:
    """Parsed flags: ``opts["name"]``; ``opts.given`` has the names that were typed."""

    def __init__(self, values: Values, given: set[str]) -> None:
        self._values = values
        self.given = given

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __contains__(self, name: str) -> bool:
        return name in self._values


class FlagSet:
    """The flags of one command; ``interspersed`` False stops at the first argument (``run``, ``exec``)."""

    def __init__(self, command: str, usage: str, summary: str, *, interspersed: bool = True) -> None:
        self.command = command
        self.usage = usage
        self.summary = summary
        self.interspersed = interspersed
        self._flags: dict[str, Flag] = {}
        self._short: dict[str, Flag] = {}

    def __iter__(self) -> Iterator[Flag]:
        """The flags by name."""
        return iter(sorted(self._flags.values(), key=lambda flag: flag.name))

    def find(self, word: str) -> Flag | None:
        """The flag that ``--name`` names, or the last letter of ``-abc``."""
        return self._flags.get(word[2:]) if word.startswith("--") else self._short.get(word[-1])

    def add(self, name: str, short: str, kind: str, help_text: str) -> FlagSet:
        """A flag of that kind (bool, string, int, list), with the kind's default."""
        return self._add(name, short, kind, _DEFAULTS[kind], help_text)

    def _add(self, name: str, short: str, kind: str, default: Any, help_text: str) -> FlagSet:
        flag = Flag(name, short, kind, default, help_text)
        self._flags[name] = flag
        if short:
            self._short[short] = flag
        return self

    def bool(self, name: str, short: str = "", help: str = "", default: bool = False) -> FlagSet:
        """A switch; ``--name=false`` turns it off."""
        return self._add(name, short, "bool", default, help)

    def string(self, name: str, short: str = "", help: str = "", default: str = "") -> FlagSet:
        """One value; the last one wins."""
        return self._add(name, short, "string", default, help)

    def optional(self, name: str, help: str = "") -> FlagSet:
        """A flag ``--name`` or ``--name=value``: ``given`` tells whether it was set, the value may be empty."""
        return self._add(name, "", "optional", "", help)

    def int(self, name: str, short: str = "", help: str = "", default: Count | None = None) -> FlagSet:
        """One whole number."""
        return self._add(name, short, "int", default, help)

    def list(self, name: str, short: str = "", help: str = "") -> FlagSet:
        """Any number of values, in order."""
        return self._add(name, short, "list", None, help)

    def parse(self, args: Words) -> tuple[Options, Words]:
        """(options, arguments); InvalidArgument for what is not a flag, HelpRequested for ``--help``."""
        values = {f.name: [] if f.kind == "list" else f.default for f in self._flags.values()}
        given: set[str] = set()
        rest: Words = []
        queue = list(reversed(args))
        while queue:
            word = queue.pop()
            if word == "--":
                rest += reversed(queue)
                break
            if word == "--help":
                raise HelpRequested(self.help(), self)
            if word.startswith("--"):
                self._long(word, queue, values, given)
            elif word.startswith("-") and word != "-":
                self._shorts(word, queue, values, given)
            else:
                rest.append(word)
                if not self.interspersed:
                    rest += reversed(queue)
                    break
        return Options(values, given), rest

    def _long(self, word: str, queue: Words, values: Values, given: set[str]) -> None:
        name, equals, value = word[2:].partition("=")
        flag = self._flags.get(name)
        if flag is None:
            self._unknown(f"unknown flag: --{name}")
        if not equals:
            if flag.kind in ("bool", "optional"):
                value = "true" if flag.kind == "bool" else ""
            elif not queue:
                self._unknown(f"flag needs an argument: --{name}")
            else:
                value = queue.pop()
        self._set(flag, value, values, given)

    def _shorts(self, word: str, queue: Words, values: Values, given: set[str]) -> None:
        letters = word[1:]
        while letters:
            letter, letters = letters[0], letters[1:]
            flag = self._short.get(letter)
            if flag is None:
                if letter == "h":
                    raise HelpRequested(self.help(), self)
                self._unknown(f"unknown shorthand flag: '{letter}' in {word}")
            if flag.kind == "bool" and not letters.startswith("="):
                self._set(flag, "true", values, given)
                continue
            if letters:
                value = letters.removeprefix("=")
            elif queue:
                value = queue.pop()
            else:
                self._unknown(f"flag needs an argument: '{letter}' in {word}")
            self._set(flag, value, values, given)
            return

    def _set(self, flag: Flag, value: str, values: Values, given: set[str]) -> None:
        given.add(flag.name)
        if flag.kind == "list":
            values[flag.name].append(value)
        elif flag.kind in ("string", "optional"):
            values[flag.name] = value
        elif flag.kind == "int":
            try:
                values[flag.name] = Count(value)
            except ValueError:
                self._unknown(f'invalid argument "{value}" for "--{flag.name}": not a whole number')
        else:
            values[flag.name] = booleans.parse(value)
            if values[flag.name] is None:
                self._unknown(f'invalid argument "{value}" for "--{flag.name}": use true or false')

    def _unknown(self, message: str) -> NoReturn:
        raise UsageError(message, hint=f"see: {f'ketch {self.command}'.rstrip()} --help")

    def arguments(self, rest: Words, at_least: Count, at_most: Count | None = None) -> None:
        """Check the number of arguments (``at_most`` None: any; ArgumentsError)."""
        if len(rest) < at_least or (at_most is not None and len(rest) > at_most):
            if at_most is None:
                wanted = f"at least {at_least} argument{'s' if at_least != 1 else ''}"
            elif at_least == at_most:
                wanted = f"{at_least} argument{'s' if at_least != 1 else ''}" if at_least else "no arguments"
            else:
                wanted = f"{at_least} to {at_most} arguments"
            raise ArgumentsError(f"`ketch {self.command}` takes {wanted}", hint=f"usage: {self.usage}")

    def help(self) -> str:
        """Usage, summary and the flags with their meaning."""
        flags = list(self)
        lines = [f"Usage:  {self.usage}", "", self.summary, *(["", "Options:"] if flags else [])]
        for flag in flags:
            short = f"-{flag.short}, " if flag.short else "    "
            kind = "" if flag.kind == "bool" else f" {flag.kind}"
            lines.append(f"  {short}--{flag.name}{kind:<{max(24 - len(flag.name), 1)}} {flag.help}".rstrip())
        return "\n".join(lines) + "\n"
