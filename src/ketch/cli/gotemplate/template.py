"""Templates for ``--format``: the part of Go's text/template that Docker's users need.

    {{.Field.Sub}} {{json .}} {{range .X}}…{{else}}…{{end}} {{range $k, $v := .X}} {{break}} {{continue}}
    {{if}} {{else if}} {{with}} {{(index .X 0).Field}} {{.Label "name"}} {{$x := .A}} {{$x = .B}}
    json index slice len join split lower upper title truncate pad print println printf
    eq ne lt le gt ge and or not, pipelines, "strings", `raw`, numbers, {{- trim -}}, {{/* comments */}}

A template is compiled to a list of nodes (``parse``) and rendered against plain data: dicts, lists, scalars, and
callables for what is a method in Go.
"""

from __future__ import annotations

from ketch.cli.errors import TemplateError
from ketch.cli.gotemplate.functions import FUNCTIONS, HEADER_FUNCTIONS, MISSING, Map, NilList, NilMap, call, show, truth
from ketch.cli.gotemplate.parse import parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Fields of the API that are maps: what is missing in them is not a mistake in the template.
_MAPS = frozenset((
    "Annotations", "Attributes", "Config", "Data", "Details", "DriverConfig", "DriverOpts", "ExposedPorts",
    "Labels", "Networks", "Options", "PortBindings", "Ports", "Runtimes", "StorageOpt", "Sysctls", "Tmpfs",
    "Volumes", "networks",
))  # fmt: skip
# Fields that are lists: null is printed as an empty one.
_LISTS = frozenset((
    "Aliases", "Args", "Binds", "BlkioDeviceReadBps", "BlkioDeviceReadIOps", "BlkioDeviceWriteBps",
    "BlkioDeviceWriteIOps", "BlkioWeightDevice", "CapAdd", "CapDrop", "Cmd", "Devices", "DeviceCgroupRules",
    "DeviceRequests", "Dns", "DnsOptions", "DnsSearch", "DNSNames", "Entrypoint", "Env", "ExecIDs",
    "ExtraHosts", "GroupAdd", "Links", "MaskedPaths", "Mounts", "OnBuild", "ReadonlyPaths", "RepoDigests",
    "RepoTags", "SecurityOpt", "Shell", "Ulimits", "VolumesFrom",
))  # fmt: skip
# Fields that the API leaves out when they are empty.
_OPTIONAL: dict[str, Any] = {
    **dict.fromkeys(("Health", "Healthcheck", "Init", "SizeRootFs", "SizeRw", "StopTimeout")),
    **dict.fromkeys(("Domainname", "Error", "MacAddress", "StopSignal"), ""),
    **dict.fromkeys(("Annotations", "ExposedPorts", "StorageOpt", "Sysctls", "Tmpfs")),
    **dict.fromkeys(("Mounts", "Shell")),
}


class Template:
    """A compiled template; raises TemplateError when the text is not one."""

    def __init__(self, text: str) -> None:
        self._nodes = parse(text, FUNCTIONS)

    def render(self, data: Any) -> str:
        """Render one object (TemplateError: a missing field)."""
        return _Renderer(FUNCTIONS, data).text(self._nodes)

    def render_titles(self, titles: Any) -> str:
        """Render the first line of a table: titles in place of values, unchanged by functions."""
        return _Renderer(HEADER_FUNCTIONS, titles).text(self._nodes)


class _Break(Exception):
    pass


class _Continue(Exception):
    pass


class _Renderer:
    def __init__(self, functions: dict[str, Any], data: Any) -> None:
        self._functions = functions
        self._data = data
        self._out: list[str] = []
        self._variables: list[list[Any]] = [["$", data]]

    def text(self, nodes: list[Any]) -> str:
        self._run(nodes, self._data)
        return "".join(self._out)

    def _run(self, nodes: list[Any], dot: Any) -> None:
        for node in nodes:
            if node[0] == "text":
                self._out.append(node[1])
            elif node[0] == "print":
                value = self._pipe(node[1], dot)
                if not node[1][1]:
                    self._out.append(show(value))
            elif node[0] == "break":
                raise _Break
            elif node[0] == "continue":
                raise _Continue
            else:
                mark = len(self._variables)
                self._control(node, dot)
                del self._variables[mark:]

    def _control(self, node: tuple[Any, ...], dot: Any) -> None:
        word, pipe, body, otherwise = node
        if word == "range":
            self._range(pipe, body, otherwise, dot)
            return
        value = self._pipe(pipe, dot)
        if truth(value):
            self._run(body, value if word == "with" else dot)
        else:
            self._run(otherwise, dot)

    def _range(self, pipe: tuple[Any, ...], body: list[Any], otherwise: list[Any], dot: Any) -> None:
        _, names, declares, commands = pipe
        pairs = _pairs(self._pipe(("pipe", [], False, commands), dot))
        if not pairs:
            self._run(otherwise, dot)
        mark = len(self._variables)
        for key, item in pairs:
            values = (key, item) if len(names) > 1 else (item,)
            for name, value in zip(names, values, strict=False):
                self._set(name, value, declares=declares)
            try:
                self._run(body, item)
            except _Continue:
                pass
            except _Break:
                break
            finally:
                del self._variables[mark:]

    def _set(self, name: str, value: Any, *, declares: bool) -> None:
        if declares:
            self._variables.append([name, value])
            return
        next(v for v in reversed(self._variables) if v[0] == name)[1] = value

    def _pipe(self, pipe: tuple[Any, ...], dot: Any) -> Any:
        _, names, declares, commands = pipe
        value: Any = None
        for number, command in enumerate(commands):
            value = self._command(command, [value] if number else [], dot)
        for name in names:
            self._set(name, value, declares=declares)
        return value

    def _command(self, command: list[Any], extra: list[Any], dot: Any) -> Any:
        first = command[0]
        if first[0] == "word" and first[1] not in ("true", "false", "nil"):
            if first[1] in ("and", "or"):
                return self._choose(first[1] == "or", command[1:], extra, dot)
            return call(first[1], self._functions, [self._operand(o, dot) for o in command[1:]] + extra)
        arguments = [self._operand(o, dot) for o in command[1:]] + extra
        return self._operand(first, dot, arguments)

    def _choose(self, stop_on: bool, operands: list[Any], extra: list[Any], dot: Any) -> Any:
        """Evaluate ``and`` and ``or``: the first value that decides, or the last one."""
        value: Any = None
        for operand in operands:
            value = self._operand(operand, dot)
            if truth(value) == stop_on:
                return value
        if not operands and not extra:
            raise TemplateError(
                "template parsing error: template: wrong number of args for and/or: want at least 1 got 0"
            )
        return extra[0] if extra else value

    def _operand(self, operand: tuple[Any, ...], dot: Any, arguments: list[Any] | None = None) -> Any:
        kind, value = operand[0], operand[1]
        if kind == "path":
            return _walk(dot, value, arguments)
        if kind == "variable":
            return _walk(next(v for v in reversed(self._variables) if v[0] == value)[1], operand[2], arguments)
        if kind == "paren":
            return _walk(self._pipe(value, dot), operand[2], arguments)
        if arguments:
            raise TemplateError(f"template parsing error: template: can't give argument to non-function {value}")
        if kind == "word":
            constants: dict[str, Any] = {"true": True, "false": False, "nil": None}
            return constants[value] if value in constants else call(value, self._functions, [])
        return value


def _walk(value: Any, fields: list[str], arguments: list[Any] | None = None) -> Any:
    """Evaluate a chain of fields; the last one may be a method with arguments."""
    for i, name in enumerate(fields):
        value = _field(value, name)
        if callable(value):
            given = arguments if i == len(fields) - 1 and arguments else []
            try:
                value = value(*given)
            except TypeError as e:
                raise TemplateError(f"template parsing error: template: error calling {name}: {e}") from e
            arguments = None if given else arguments
    if arguments:
        what = "." + ".".join(fields)
        raise TemplateError(f"template parsing error: template: {what} has arguments but cannot be invoked as function")
    return value


def _field(value: Any, name: str) -> Any:
    if isinstance(value, dict):
        found = value.get(name, MISSING)
        if found is MISSING and name[:1].isupper() and not isinstance(value, Map):
            # Go's structs say ID where the API's JSON says Id
            found = next((v for k, v in value.items() if str(k).lower() == name.lower()), MISSING)
        if found is MISSING and not isinstance(value, Map):
            if name in _OPTIONAL:
                return _typed(_OPTIONAL[name], name)
            raise TemplateError(
                f"template parsing error: template: can't evaluate field {name}",
                hint=f"there are: {', '.join(str(k) for k in value)}",
            )
        return _typed(found, name)
    if value is MISSING or value is None:
        raise TemplateError(f"template parsing error: template: nil data; no entry for key {name!r}")
    raise TemplateError(f"template parsing error: template: can't evaluate field {name} in a {type(value).__name__}")


def _typed(value: Any, name: str) -> Any:
    if isinstance(value, dict):
        plain = name == "Config" and ("Cmd" in value or "Env" in value)  # a container's own, not a log driver's
        return Map(value) if name in _MAPS and not plain else value
    if value is None and name in _LISTS:
        return NilList()
    return NilMap() if value is None and name in _MAPS else value


def _pairs(value: Any) -> list[tuple[Any, Any]]:
    if value is None or value is MISSING:
        return []
    if isinstance(value, dict):
        return sorted(value.items())
    if isinstance(value, int) and not isinstance(value, bool):
        return [(i, i) for i in range(value)]
    if isinstance(value, list):
        return list(enumerate(value))
    raise TemplateError(f"template parsing error: template: range can't iterate over {show(value)}")
