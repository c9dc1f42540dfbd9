"""The part of Go's text/template that Docker's ``--format`` is used with.

    {{.Field.Sub}} {{json .}} {{range .X}}…{{else}}…{{end}} {{range $k, $v := .X}} {{if}} {{else if}} {{with}}
    index len join split lower upper title truncate pad print println printf eq ne lt le gt ge and or not
    pipelines, variables, "strings", numbers, {{- trim -}}, {{/* comments */}}

A template is compiled to a list of nodes and rendered against plain data (dicts, lists, scalars).
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from ketch.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_ACTION = re.compile(r"\{\{(-\s)?\s*(.*?)\s*(\s-)?\}\}", re.S)
_TOKEN = re.compile(
    r"""\s*(?:(?P<string>"(?:\\.|[^"\\])*"|`[^`]*`)|(?P<number>-?\d+(?:\.\d+)?)|(?P<path>\$?\w*(?:\.\w+)+|\.)|"""
    r"""(?P<variable>\$\w*)|(?P<word>\w+)|(?P<symbol>:=|[|(),=]))"""
)


def parse_error(why: str) -> InvalidArgument:
    """Docker's words for a template that cannot be understood."""
    return InvalidArgument(
        f"template parsing error: {why}", hint="see Go's text/template, e.g. '{{.Names}}' or '{{json .}}'"
    )


class Template:
    """A compiled template; raises InvalidArgument when the text is not one."""

    def __init__(self, text: str) -> None:
        parser = _Parser(text)
        self._nodes = parser.block(())

    def render(self, data: Any) -> str:
        """The text for one object (InvalidArgument when it names what is not there)."""
        out: list[str] = []
        _Renderer(out).run(self._nodes, data, {"$": data})
        return "".join(out)


class _Parser:
    def __init__(self, text: str) -> None:
        self._items: list[tuple[str, str]] = []
        position, trim = 0, False
        for match in _ACTION.finditer(text):
            literal = text[position : match.start()]
            self._literal(literal.lstrip() if trim else literal, bool(match[1]))
            trim = bool(match[3])
            if not (match[2].startswith("/*") and match[2].endswith("*/")):
                self._items.append(("action", match[2]))
            position = match.end()
        rest = text[position:]
        if "{{" in rest:
            raise parse_error("unclosed action")
        self._literal(rest.lstrip() if trim else rest, False)
        self._at = 0

    def _literal(self, text: str, trim: bool) -> None:
        text = text.rstrip() if trim else text
        if text:
            self._items.append(("text", text))

    def block(self, ends: tuple[str, ...]) -> list[Any]:
        """Nodes up to one of ``ends`` (which is left for the caller)."""
        nodes: list[Any] = []
        while self._at < len(self._items):
            kind, text = self._items[self._at]
            if kind == "text":
                nodes.append(("text", text))
                self._at += 1
                continue
            word = text.split(None, 1)[0] if text else ""
            if word in ends:
                return nodes
            self._at += 1
            if word in ("if", "with", "range"):
                nodes.append(self._control(word, text[len(word) :]))
            elif word in ("end", "else"):
                raise parse_error(f"unexpected {{{{{word}}}}}")
            else:
                nodes.append(("print", _pipeline(_tokens(text))))
        if ends:
            raise parse_error("unexpected EOF")
        return nodes

    def _control(self, word: str, condition: str) -> tuple[Any, ...]:
        variables: list[str] = []
        tokens = _tokens(condition)
        if word == "range" and ("symbol", ":=") in tokens:
            at = tokens.index(("symbol", ":="))
            variables = [value for kind, value in tokens[:at] if kind == "variable"]
            tokens = tokens[at + 1 :]
        pipeline = _pipeline(tokens)
        body = self.block(("else", "end"))
        otherwise: list[Any] = []
        text = self._items[self._at][1]
        self._at += 1
        if text.startswith("else"):
            rest = text[4:].strip()
            if rest.startswith("if"):
                otherwise = [self._control("if", rest[2:])]
                return (word, pipeline, body, otherwise, variables)
            otherwise = self.block(("end",))
            self._at += 1
        return (word, pipeline, body, otherwise, variables)


def _tokens(text: str) -> list[tuple[str, str]]:
    tokens, position = [], 0
    while position < len(text.rstrip()):
        match = _TOKEN.match(text, position)
        if not match or match.end() == position:
            raise parse_error(f"unexpected {text[position:].strip()[:10]!r} in command")
        tokens.append((str(match.lastgroup), match[str(match.lastgroup)]))
        position = match.end()
    return tokens


def _pipeline(tokens: list[tuple[str, str]]) -> tuple[Any, ...]:
    """tokens → ("pipe", variable or "", [command, …]); a command is a list of operands."""
    variable = ""
    if len(tokens) > 2 and tokens[0][0] == "variable" and tokens[1] in (("symbol", ":="), ("symbol", "=")):
        variable, tokens = tokens[0][1], tokens[2:]
    commands: list[list[Any]] = [[]]
    stack: list[list[list[Any]]] = []
    for kind, value in tokens:
        if (kind, value) == ("symbol", "("):
            stack.append(commands)
            commands = [[]]
        elif (kind, value) == ("symbol", ")"):
            if not stack:
                raise parse_error("unexpected right paren")
            inner: tuple[Any, ...] = ("pipe", "", commands)
            commands = stack.pop()
            commands[-1].append(inner)
        elif (kind, value) == ("symbol", "|"):
            commands.append([])
        else:
            commands[-1].append((kind, value))
    if stack or any(not command for command in commands):
        raise parse_error("missing value for command")
    return ("pipe", variable, commands)


class _Renderer:
    def __init__(self, out: list[str]) -> None:
        self._out = out

    def run(self, nodes: list[Any], dot: Any, variables: dict[str, Any]) -> None:
        for node in nodes:
            if node[0] == "text":
                self._out.append(node[1])
            elif node[0] == "print":
                value = self._evaluate(node[1], dot, variables)
                if not node[1][1]:
                    self._out.append(show(value))
            else:
                self._control(node, dot, variables)

    def _control(self, node: tuple[Any, ...], dot: Any, variables: dict[str, Any]) -> None:
        word, pipeline, body, otherwise, names = node
        value = self._evaluate(pipeline, dot, variables)
        if not truth(value):
            self.run(otherwise, dot, variables)
        elif word == "range":
            for key, item in _pairs(value):
                inner = dict(variables)
                if names:
                    inner.update(zip(names, (key, item) if len(names) > 1 else (item,), strict=False))
                self.run(body, item, inner)
        else:
            self.run(body, value if word == "with" else dot, variables)

    def _evaluate(self, pipeline: tuple[Any, ...], dot: Any, variables: dict[str, Any]) -> Any:
        _, variable, commands = pipeline
        value: Any = None
        for number, command in enumerate(commands):
            extra = [value] if number else []
            value = self._command(command, extra, dot, variables)
        if variable:
            variables[variable] = value
        return value

    def _command(self, command: list[Any], extra: list[Any], dot: Any, variables: dict[str, Any]) -> Any:
        kind, name = command[0][0], command[0][1]
        if kind != "word" or name in ("true", "false", "nil"):
            if len(command) + len(extra) > 1:
                raise parse_error(f"can't give argument to non-function {name}")
            return self._operand(command[0], dot, variables)
        function = FUNCTIONS.get(name)
        if function is None:
            raise parse_error(f'function "{name}" not defined')
        arguments = [self._operand(operand, dot, variables) for operand in command[1:]] + extra
        try:
            return function(*arguments)
        except (TypeError, ValueError, IndexError, KeyError, AttributeError) as e:
            raise InvalidArgument(f"template: error calling {name}: {e}") from e

    def _operand(self, operand: tuple[Any, ...], dot: Any, variables: dict[str, Any]) -> Any:
        kind, value = operand[0], operand[1]
        if kind == "pipe":
            return self._evaluate(operand, dot, variables)
        if kind == "string":
            return value[1:-1] if value[0] == "`" else json.loads(value)
        if kind == "number":
            return float(value) if "." in value else int(value)
        if kind == "path":
            head, *fields = value.split(".")
            start = variables.get(head) if head else dot
            for field in fields:
                if field:
                    start = _field(start, field)
            return start
        if kind == "variable":
            if value not in variables:
                raise parse_error(f"undefined variable {value!r}")
            return variables[value]
        words: dict[str, Any] = {"true": True, "false": False, "nil": None}
        if value in words:
            return words[value]
        return self._command([operand], [], dot, variables)


def _field(value: Any, name: str) -> Any:
    if value is None:
        return None
    if isinstance(value, dict):
        if name in value:
            return value[name]
        for key in value:  # the API's JSON has Id where Go's struct says ID
            if isinstance(key, str) and key.lower() == name.lower():
                return value[key]
        if getattr(value, "strict", False) or not value or name[:1].isupper():
            raise InvalidArgument(
                f"template: can't evaluate field {name}: no such field; there are {', '.join(map(str, value))}"
            )
        return None
    raise InvalidArgument(f"template: can't evaluate field {name} in {type(value).__name__}")


def _pairs(value: Any) -> list[tuple[Any, Any]]:
    if isinstance(value, dict):
        return sorted(value.items())
    if isinstance(value, int):
        return [(i, i) for i in range(value)]
    return list(enumerate(value))


def truth(value: Any) -> bool:
    """Go's idea of it: zero, empty and nil are false."""
    return bool(value)


def show(value: Any) -> str:
    """A value as Go prints it."""
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "map[" + " ".join(f"{k}:{show(v)}" for k, v in sorted(value.items())) + "]"
    if isinstance(value, list):
        return "[" + " ".join(map(show, value)) + "]"
    return str(value)


def to_json(value: Any) -> str:
    """Compact JSON, as ``{{json .}}``."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else value[key]
    return value


def _printf(template: str, *arguments: Any) -> str:
    values = iter(arguments)

    def one(match: re.Match[str]) -> str:
        verb = match[2]
        if verb == "%":
            return "%"
        value = next(values, None)
        if verb == "q":
            return json.dumps(show(value))
        if verb in "vs":
            return f"%{match[1]}s" % show(value)
        return f"%{match[1]}{verb}" % value

    return re.sub(r"%([-+# 0]*\d*(?:\.\d+)?)([%vsdqxXfgt])", one, template)


def _chain(stop_on: bool) -> Callable[..., Any]:
    def choose(*values: Any) -> Any:
        for value in values[:-1]:
            if truth(value) == stop_on:
                return value
        return values[-1]

    return choose


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "json": to_json,
    "index": _index,
    "len": len,
    "join": lambda items, separator: separator.join(map(show, items or ())),
    "split": lambda text, separator: text.split(separator),
    "lower": lambda text: text.lower(),
    "upper": lambda text: text.upper(),
    "title": lambda text: text[:1].upper() + text[1:],
    "truncate": lambda text, length: text[:length],
    "pad": lambda text, before, after: " " * before + text + " " * after if text else text,
    "print": lambda *values: "".join(map(show, values)),
    "println": lambda *values: " ".join(map(show, values)) + "\n",
    "printf": _printf,
    "eq": lambda first, *others: any(first == other for other in others),
    "ne": lambda first, second: first != second,
    "lt": lambda first, second: first < second,
    "le": lambda first, second: first <= second,
    "gt": lambda first, second: first > second,
    "ge": lambda first, second: first >= second,
    "not": lambda value: not truth(value),
    "and": _chain(False),
    "or": _chain(True),
}
