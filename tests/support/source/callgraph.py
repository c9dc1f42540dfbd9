"""Who calls whom within the package, as far as the source tells: for rules about what may be called from where.

A call is resolved by its name: a function of the module or an imported one, a method of the own class, or of the class
of a receiver.  That is what a parameter, or a field of the own class, is annotated with, else what an attribute of that
name is known to hold (`RECEIVERS`).  What stands in a lambda or an inner function belongs to whoever calls that, and is
left out: it is how work is handed to a thread.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from tests.support.source.project import parsed, sources

if TYPE_CHECKING:
    from collections.abc import Iterator

PROTOCOLS = {"Snapshots": ("OverlaySnapshots", "VfsSnapshots")}
RECEIVERS = {  # ends of the texts of attributes and variables whose classes they tell; the first that fits counts
    "engine.images": ("ImageService",),
    "parts.images": ("ImageStore",),
    "store": ("ImageStore",),
    "snapshots": PROTOCOLS["Snapshots"],
    "volumes": ("VolumeStore",),
    "content": ("ContentStore",),
    "layers": ("Layers",),
    "unpacker": ("UnpackPool",),
    "network": ("NetworkManager",),
    "containers": ("ContainerService",),
    "files": ("FileService",),
    "events": ("EventBus",),
    "_db": ("Database",),
    "partial": ("Partial",),
    "pulls": ("PullService",),
    "system": ("SystemService",),
    "downloads": ("Downloads",),
    "_repository": ("ImageRepository",),
    "_garbage": ("GarbageCollector",),
}
CALLERS = (  # methods that have their first argument called in the event loop
    "callback",
    "call_soon",
    "call_later",
    "call_soon_threadsafe",
    "add_reader",
    "add_writer",
    "from_thread",
    "add_done_callback",
    "add_signal_handler",
)
Function = ast.FunctionDef | ast.AsyncFunctionDef


class Graph:
    """All functions of the package by ``module:name`` or ``module:Class.name``."""

    def __init__(self) -> None:
        self.functions: dict[str, Function] = {}
        self._classes: dict[str, list[str]] = {}  # simple name → "module:Class"
        self._bases: dict[str, list[str]] = {}
        self._calls: dict[str, list[tuple[ast.Call, str, list[str]]]] = {}
        self._fields: dict[str, dict[str, str]] = {}  # "module:Class" → field → the class that it is annotated with
        self._imports: dict[str, dict[str, str]] = {}
        self._calls: dict[str, list[tuple[ast.Call, str, list[str]]]] = {}
        for path in sources("src/ketch"):
            self._read(path.removeprefix("src/").removesuffix(".py").replace("/", "."), parsed(path))

    def _read(self, module: str, tree: ast.Module) -> None:
        names = self._imports[module] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    names[(alias.asname or alias.name).split(".")[0]] = alias.name
        for node in tree.body:
            if isinstance(node, Function):
                self.functions[f"{module}:{node.name}"] = node
            elif isinstance(node, ast.ClassDef):
                key = f"{module}:{node.name}"
                self._classes.setdefault(node.name, []).append(key)
                self._bases[key] = [ast.unparse(base).rpartition(".")[2] for base in node.bases]
                self._fields[key] = _fields_of(node)
                for inner in node.body:
                    if isinstance(inner, Function):
                        self.functions[f"{key}.{inner.name}"] = inner

    def calls(self, key: str) -> list[tuple[ast.Call, str, list[str]]]:
        """(the call, its text with imported names in full, the functions of ours that it may mean)."""
        if key not in self._calls:
            self._calls[key] = list(self._find(key))
        return self._calls[key]

    def _find(self, key: str) -> Iterator[tuple[ast.Call, str, list[str]]]:
        module, _, name = key.partition(":")
        function = self.functions[key]
        own = f"{module}:{name.rpartition('.')[0]}" if "." in name else ""
        known = {argument.arg: _named(argument.annotation) for argument in _arguments(function)} | {"self": own}
        for node in _outside_inner(function):
            if isinstance(node, ast.Call):
                yield node, self._full(module, node.func), self._targets(module, known, node.func)
                if isinstance(node.func, ast.Attribute) and node.func.attr in CALLERS and node.args:
                    called = node.args[1 if node.func.attr in ("call_later", "add_reader", "add_writer") else 0]
                    if isinstance(called, ast.Name | ast.Attribute):
                        yield node, self._full(module, called), self._targets(module, known, called)

    def _full(self, module: str, func: ast.expr) -> str:
        head, dot, rest = ast.unparse(func).partition(".")
        return self._imports[module].get(head, head) + dot + rest

    def _targets(self, module: str, known: dict[str, str], func: ast.expr) -> list[str]:
        full = self._full(module, func)
        if isinstance(func, ast.Name):
            place = full.rpartition(".")
            local = f"{module}:{func.id}" if full == func.id else f"{place[0]}:{place[2]}"
            return [t for t in (local, f"{local}.__init__") if t in self.functions]
        if not isinstance(func, ast.Attribute):
            return []
        receiver = ast.unparse(func.value)
        if isinstance(func.value, ast.Name) and receiver in self._imports[module]:
            target = ":".join(full.rsplit(".", 1))
            return [t for t in (target, f"{target}.__init__") if t in self.functions]
        return [t for key in self._classes_of(known, receiver) for t in self._method(key, func.attr)]

    def _classes_of(self, known: dict[str, str], receiver: str) -> list[str]:
        """The classes, as "module:Class", of what a receiver's text stands for; ``known``: those of names."""
        head, *attributes = receiver.split(".")
        classes = self._keys(known.get(head, ""))
        for attribute in attributes:
            found = [self._fields.get(key, {}).get(attribute, "") for key in classes]
            classes = [key for name in found for key in self._keys(name)]
        if classes or receiver == "self":
            return classes
        guessed = next((found for end, found in RECEIVERS.items() if receiver.endswith(end)), ())
        return [key for name in guessed for key in self._keys(name)]

    def _keys(self, name: str) -> list[str]:
        if ":" in name:
            return [name]
        return [key for one in PROTOCOLS.get(name, (name,)) for key in self._classes.get(one, ())]

    def _method(self, cls: str, name: str) -> list[str]:
        if f"{cls}.{name}" in self.functions:
            return [f"{cls}.{name}"]
        bases = [key for base in self._bases.get(cls, ()) for key in self._classes.get(base, ())]
        return [t for key in bases for t in self._method(key, name)]


def _arguments(function: Function) -> list[ast.arg]:
    return [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]


def _named(annotation: ast.expr | None) -> str:
    """The simple name of a class; empty for what is no plain name (or one or None)."""
    if isinstance(annotation, ast.BinOp):  # X | None
        return _named(annotation.left)
    return annotation.id if isinstance(annotation, ast.Name) else ""


def _fields_of(node: ast.ClassDef) -> dict[str, str]:
    """The annotated fields of a class, and those that its constructor's parameters become."""
    fields = {
        line.target.id: _named(line.annotation)
        for line in node.body
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)
    }
    for inner in node.body:
        if isinstance(inner, Function) and inner.name == "__init__":
            given = {argument.arg: _named(argument.annotation) for argument in _arguments(inner)}
            for line in ast.walk(inner):
                if isinstance(line, ast.Assign) and isinstance(line.value, ast.Name) and line.value.id in given:
                    fields |= {t.attr: given[line.value.id] for t in line.targets if isinstance(t, ast.Attribute)}
    return {name: cls for name, cls in fields.items() if cls}


def _outside_inner(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, Function | ast.Lambda):
            yield child
            yield from _outside_inner(child)
