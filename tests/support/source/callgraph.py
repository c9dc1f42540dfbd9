"""Who calls whom within the package, as far as the source tells: for rules about what may be called from where.

A call is resolved by its name: a function of the module or an imported one, a method of the own class, or of a class
that an attribute of that name is known to hold (`RECEIVERS`).  What stands in a lambda or an inner function belongs to
whoever calls that, and is left out: it is how work is handed to a thread.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from tests.support.source.project import parsed, sources

if TYPE_CHECKING:
    from collections.abc import Iterator

RECEIVERS = {  # ends of the texts of attributes and variables whose classes they tell; the first that fits counts
    "ctx.store": ("ContainerStore",), "context.store": ("ContainerStore",), "ctx.images": ("ImageStore",),
    "context.images": ("ImageStore",), "engine.images": ("ImageService",), "images._store": ("ImageStore",),
    "self._store": ("ImageStore",), "store.content": ("ContentStore",), "store.layers": ("Layers",),
    "store": ("ImageStore",), "snapshots": ("OverlaySnapshots", "VfsSnapshots"), "volumes": ("VolumeStore",),
    "content": ("ContentStore",), "layers": ("Layers",), "unpacker": ("UnpackPool",), "network": ("NetworkManager",),
    "containers": ("ContainerService",), "files": ("FileService",), "events": ("EventBus",), "_db": ("Database",),
    "_repository": ("ImageRepository",), "_garbage": ("GarbageCollector",),
    "partial": ("Partial",), "pulls": ("PullService",), "system": ("SystemService",), "downloads": ("Downloads",),
}  # fmt: skip
CALLERS = (  # methods that have their first argument called in the event loop
    "callback", "call_soon", "call_later", "call_soon_threadsafe", "add_reader", "add_writer", "from_thread",
    "add_done_callback", "add_signal_handler",
)  # fmt: skip
Function = ast.FunctionDef | ast.AsyncFunctionDef


class Graph:
    """All functions of the package by ``module:name`` or ``module:Class.name``."""

    def __init__(self) -> None:
        self.functions: dict[str, Function] = {}
        self._classes: dict[str, list[str]] = {}  # simple name → "module:Class"
        self._bases: dict[str, list[str]] = {}
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
        own = f"{module}:{name.rpartition('.')[0]}" if "." in name else ""
        for node in _outside_inner(self.functions[key]):
            if isinstance(node, ast.Call):
                yield node, self._full(module, node.func), self._targets(module, own, node.func)
                if isinstance(node.func, ast.Attribute) and node.func.attr in CALLERS and node.args:
                    called = node.args[1 if node.func.attr in ("call_later", "add_reader", "add_writer") else 0]
                    if isinstance(called, ast.Name | ast.Attribute):
                        yield node, self._full(module, called), self._targets(module, own, called)

    def _full(self, module: str, func: ast.expr) -> str:
        head, dot, rest = ast.unparse(func).partition(".")
        return self._imports[module].get(head, head) + dot + rest

    def _targets(self, module: str, own: str, func: ast.expr) -> list[str]:
        full = self._full(module, func)
        if isinstance(func, ast.Name):
            place = full.rpartition(".")
            local = f"{module}:{func.id}" if full == func.id else f"{place[0]}:{place[2]}"
            return [t for t in (local, f"{local}.__init__") if t in self.functions]
        if not isinstance(func, ast.Attribute):
            return []
        receiver = ast.unparse(func.value)
        if isinstance(func.value, ast.Name) and receiver == "self" and own:
            return self._method(own, func.attr)
        if isinstance(func.value, ast.Name) and receiver in self._imports[module]:
            target = ":".join(full.rsplit(".", 1))
            return [t for t in (target, f"{target}.__init__") if t in self.functions]
        classes = [key for one in _classes_of(receiver) for key in self._classes.get(one, ())]
        return [t for key in classes for t in self._method(key, func.attr)]

    def _method(self, cls: str, name: str) -> list[str]:
        if f"{cls}.{name}" in self.functions:
            return [f"{cls}.{name}"]
        bases = [key for base in self._bases.get(cls, ()) for key in self._classes.get(base, ())]
        return [t for key in bases for t in self._method(key, name)]


def _classes_of(receiver: str) -> tuple[str, ...]:
    return next((found for end, found in RECEIVERS.items() if receiver.endswith(end)), ())


def _outside_inner(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, Function | ast.Lambda):
            yield child
            yield from _outside_inner(child)
