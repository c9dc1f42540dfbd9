"""Lexer and parser of templates: text with ``{{actions}}`` → nodes (`template` lists what is supported).

A node is a tuple: ("text", str), ("print", PIPE), ("if" | "with" | "range", PIPE, [node], [node]),
("break",), ("continue",).  A PIPE is ("pipe", [variable], declares, [command]), a command a list of operands,
an operand ("string" | "number", value), ("path", [field]), ("variable", name, [field]), ("word", name), or
("paren", PIPE, [field]).
"""

from __future__ import annotations

import re

from ketch.cli.errors import TemplateSyntaxError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Any

_TOKEN = re.compile(
    r"""(?P<space>\s+)|(?P<string>"(?:\\.|[^"\\\n])*"|`[^`]*`)|(?P<char>'(?:\\.|[^'\\\n])+')"""
    r"""|(?P<number>[-+]?(?:0[xX][0-9a-fA-F]+|(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)(?!\w))"""
    r"""|(?P<path>(?:\.\w+)+|\.)|(?P<variable>\$\w*(?:\.\w+)*)|(?P<word>\w+)|(?P<symbol>:=|[|(),=])"""
)
_ESCAPE = re.compile(r"""\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{3})|(.))""")
_LETTERS = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\", '"': '"', "'": "'"}
_CONTROLS = ("if", "with", "range")
_CONSTANTS = ("true", "false", "nil")


def parse_error(why: str, line: int = 1) -> TemplateSyntaxError:
    """The error of a syntax error, in Docker's words."""
    return TemplateSyntaxError(
        f"template parsing error: template: :{line}: {why}",
        hint="see Go's text/template, e.g. '{{.Name}}' or '{{json .}}'",
    )


def parse(text: str, functions: Collection[str]) -> list[Any]:
    """The nodes of a template (TemplateSyntaxError when it is none)."""
    return _Parser(_items(text), functions).nodes()


def _items(text: str) -> list[tuple[str, Any, int]]:
    """Items ("text", text, line) and ("action", tokens, line), without comments, trimmed as requested."""
    items: list[tuple[str, Any, int]] = []
    at, trim = 0, False
    while True:
        start = text.find("{{", at)
        literal = text[at:] if start < 0 else text[at:start]
        literal = literal.lstrip() if trim else literal
        if start >= 0 and text.startswith("{{-", start) and text[start + 3 : start + 4].isspace():
            literal, skip = literal.rstrip(), 3
        else:
            skip = 2
        if literal:
            items.append(("text", literal, 0))
        if start < 0:
            return items
        line = text.count("\n", 0, start) + 1
        tokens, at, trim = _action(text, start + skip, line)
        if tokens is not None:
            items.append(("action", tokens, line))


def _action(text: str, at: int, line: int) -> tuple[list[tuple[str, str]] | None, int, bool]:
    """Parse an action: (tokens, None for a comment; position after it; whether to trim there)."""
    comment = re.compile(r"\s*/\*.*?\*/(\s+-)?\}\}", re.S).match(text, at)
    if comment:
        return None, comment.end(), bool(comment[1])
    tokens: list[tuple[str, str]] = []
    while at < len(text):
        if text.startswith("}}", at):
            return tokens, at + 2, False
        if text.startswith("-}}", at) and text[at - 1].isspace():
            return tokens, at + 3, True
        match = _TOKEN.match(text, at)
        if match is None:
            if text[at] in "\"'`":
                raise parse_error("unterminated quoted string", line)
            raise parse_error(f"unexpected {text[at]!r} in command", line)
        tokens.append((str(match.lastgroup), match[0]))
        at = match.end()
    raise parse_error("unclosed action", line)


class _Parser:
    def __init__(self, items: list[tuple[str, Any, int]], functions: Collection[str]) -> None:
        self._items = items
        self._functions = functions
        self._at = 0
        self._line = 1
        self._variables = ["$"]
        self._loops = 0

    def nodes(self) -> list[Any]:
        nodes, end = self._block()
        if end:
            raise parse_error(f"unexpected {{{{{end}}}}}", self._line)
        return nodes

    def _block(self) -> tuple[list[Any], str]:
        """The nodes up to the next ``end`` or ``else`` of this block, and that keyword ("" at the end)."""
        nodes: list[Any] = []
        while self._at < len(self._items):
            kind, value, line = self._items[self._at]
            if kind == "text":
                nodes.append(("text", value))
                self._at += 1
                continue
            self._line = line
            words = [token for token in value if token[0] != "space"]
            if not words:
                raise parse_error("missing value for command", line)
            word = words[0][1] if words[0][0] == "word" else ""
            if word in ("end", "else"):
                return nodes, word
            self._at += 1
            nodes.append(self._node(word, value, words))
        return nodes, ""

    def _node(self, word: str, tokens: list[tuple[str, str]], words: list[tuple[str, str]]) -> tuple[Any, ...]:
        if word in _CONTROLS:
            return self._control(word, tokens[tokens.index(words[0]) + 1 :])
        if word in ("break", "continue") and len(words) == 1:
            if not self._loops:
                raise parse_error(f"{{{{{word}}}}} outside {{{{range}}}}", self._line)
            return (word,)
        if word in ("define", "template", "block"):
            raise parse_error(f"{{{{{word}}}}} is not supported", self._line)
        return ("print", self._pipe(tokens))

    def _control(self, word: str, condition: list[tuple[str, str]]) -> tuple[Any, ...]:
        mark = len(self._variables)
        pipe = self._pipe(condition, several=word == "range")
        self._loops += word == "range"
        body, end = self._block()
        self._loops -= word == "range"
        otherwise: list[Any] = []
        if end == "else":
            rest = [token for token in self._items[self._at][1] if token[0] != "space"][1:]
            self._at += 1
            if rest and word != "range" and rest[0] in (("word", "if"), ("word", "with")):
                # `else if` shares the `end` of the outermost `if`
                tokens = self._items[self._at - 1][1]
                otherwise = [self._control(rest[0][1], tokens[tokens.index(rest[0]) + 1 :])]
                del self._variables[mark:]
                return (word, pipe, body, otherwise)
            if rest:
                raise parse_error(f"unexpected {rest[0][1]} in else", self._line)
            otherwise, end = self._block()
        if end != "end":
            raise parse_error(f"unexpected {{{{{end}}}}}" if end else "unexpected EOF", self._line)
        self._at += 1
        del self._variables[mark:]
        return (word, pipe, body, otherwise)

    def _pipe(self, tokens: list[tuple[str, str]], *, several: bool = False) -> tuple[Any, ...]:
        names, declares, rest = self._declaration(tokens, several=several)
        pipe, left = self._commands(rest, 0)
        if left != len(rest):
            raise parse_error("unexpected right paren", self._line)
        for name in names:
            if declares:
                self._variables.append(name)
            elif name not in self._variables:
                raise parse_error(f'undefined variable "{name}"', self._line)
        return ("pipe", names, declares, pipe)

    def _declaration(
        self, tokens: list[tuple[str, str]], *, several: bool
    ) -> tuple[list[str], bool, list[tuple[str, str]]]:
        """``$a, $b :=`` before a pipeline: (names, whether they are new, the rest)."""
        sign = next((i for i, token in enumerate(tokens) if token in (("symbol", ":="), ("symbol", "="))), None)
        if sign is None:
            return [], False, tokens
        head = [token for token in tokens[:sign] if token[0] != "space"]
        names = [value for kind, value in head if kind == "variable" and "." not in value]
        if len(names) != (len(head) + 1) // 2 or len(names) > 1 + several:
            raise parse_error(f"unexpected {tokens[sign][1]!r} in command", self._line)
        return names, tokens[sign][1] == ":=", tokens[sign + 1 :]

    def _commands(self, tokens: list[tuple[str, str]], at: int) -> tuple[list[Any], int]:
        """Commands joined by ``|`` up to the end or a closing paren, and its position."""
        commands: list[list[Any]] = [[]]
        while at < len(tokens) and tokens[at] != ("symbol", ")"):
            kind, value = tokens[at]
            at += 1
            if (kind, value) == ("symbol", "("):
                inner, at = self._commands(tokens, at)
                if at >= len(tokens):
                    raise parse_error("unclosed left paren", self._line)
                at += 1
                fields: list[str] = []
                if at < len(tokens) and tokens[at][0] == "path" and tokens[at][1] != ".":
                    fields = tokens[at][1].split(".")[1:]
                    at += 1
                commands[-1].append(("paren", ("pipe", [], False, inner), fields))
            elif (kind, value) == ("symbol", "|"):
                commands.append([])
            elif kind != "space":
                commands[-1].append(self._operand(kind, value))
        self._check(commands)
        return commands, at

    def _check(self, commands: list[list[Any]]) -> None:
        for number, command in enumerate(commands):
            if not command:
                raise parse_error("missing value for command", self._line)
            kind, value = command[0][0], command[0][1]
            if number and (kind in ("string", "number", "paren") or (kind == "word" and value in _CONSTANTS)):
                raise parse_error(f"non executable command in pipeline stage {number + 1}", self._line)

    def _operand(self, kind: str, value: str) -> tuple[Any, ...]:
        if kind == "string":
            return ("string", value[1:-1] if value[0] == "`" else self._unquote(value[1:-1]))
        if kind == "char":
            return ("number", ord(self._unquote(value[1:-1])[:1]))
        if kind == "number":
            whole = value.lower().lstrip("+-").startswith("0x") or value.lstrip("+-").isdigit()
            return ("number", int(value, 0 if "x" in value.lower() else 10) if whole else float(value))
        if kind == "path":
            return ("path", [field for field in value.split(".") if field])
        if kind == "variable":
            name, *fields = value.split(".")
            if name not in self._variables:
                raise parse_error(f'undefined variable "{name}"', self._line)
            return ("variable", name, fields)
        if kind == "word":
            if value not in self._functions and value not in _CONSTANTS:
                raise parse_error(f'function "{value}" not defined', self._line)
            return ("word", value)
        raise parse_error(f"unexpected {value!r} in command", self._line)

    def _unquote(self, text: str) -> str:
        def unescape(match: re.Match[str]) -> str:
            code = match[1] or match[2] or match[3]
            if code:
                return chr(int(code, 16))
            if match[4]:
                return chr(int(match[4], 8))
            if match[5] not in _LETTERS:
                raise parse_error("invalid syntax in a quoted string", self._line)
            return _LETTERS[match[5]]

        try:
            return _ESCAPE.sub(unescape, text)
        except (ValueError, OverflowError):
            raise parse_error("invalid syntax in a quoted string", self._line) from None
