"""The conventions that can be checked, checked: style, types, arrows between packages, sizes, docstrings, weight."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import re
import subprocess
import sys
import tokenize
from collections import Counter

import pytest

from tests.support.source.project import ROOT, containing, functions, parsed, sources

BIN = os.path.dirname(sys.executable)

IO_METHODS = {"read", "readable", "readinto", "write", "writable", "close", "fileno", "seek", "tell"}  # of io.RawIOBase

# What every monitor is a fork of: the interpreter's own, and light modules of the standard library.
MONITOR_MODULES = {
    "collections", "keyword", "operator", "reprlib", "itertools", "functools", "types", "enum",
    "ctypes", "struct", "re", "json", "select", "socket", "selectors", "array", "fcntl", "termios", "tty", "errno",
    "contextlib", "stat", "posixpath", "genericpath", "os", "io", "abc", "codecs", "signal", "resource", "math",
    "gc", "time", "site", "copyreg", "copy", "weakref", "bisect", "atexit", "marshal", "zipimport", "encodings",
    "builtins", "sys", "posix", "binascii", "ntpath", "sysconfig", "importlib", "warnings", "grp", "pwd", "mmap",
    "linecache", "tokenize", "token",
}  # fmt: skip


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "command", [["ruff", "check"], ["ruff", "format", "--check"], ["mypy"], ["lint-imports"]], ids=" ".join
)
def test_program(command):
    done = subprocess.run(
        [os.path.join(BIN, command[0]), *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_files_are_short():
    long = {}
    for path in sources("src", "tests", "bench", "scripts"):
        with open(os.path.join(ROOT, path), encoding="utf-8") as f:
            lines = sum(1 for _ in f)
        if lines > 600:
            long[path] = lines
    assert long == {}


_TABLES = 10  # that are kept from the formatter in the whole project


def test_the_formatter_is_kept_from_tables_alone():
    """Everything else is formatted: what gets too long is split, not packed."""
    found, wrong = 0, []
    for path in containing("# fmt", "src", "tests", "bench", "scripts"):
        ends = {node.end_lineno for node in parsed(path).body if _is_table(node)}
        with open(os.path.join(ROOT, path), "rb") as f:
            for token in tokenize.tokenize(f.readline):
                if token.type == tokenize.COMMENT and token.string.startswith(("# fmt", "#fmt")):
                    found += 1
                    if token.string != "# fmt: skip" or token.start[0] not in ends:
                        wrong.append(f"{path}:{token.start[0]}")
    assert wrong == []
    assert found <= _TABLES


_OF_TABLES = (
    ast.Constant,
    ast.Name,
    ast.Attribute,
    ast.List,
    ast.Tuple,
    ast.Set,
    ast.Dict,
    ast.BinOp,
    ast.UnaryOp,
    ast.Call,
    ast.keyword,
    ast.operator,
    ast.unaryop,
    ast.expr_context,
)


def _is_table(node: ast.stmt) -> bool:
    """Whether a module's statement gives a name to constants in rows."""
    return (
        isinstance(node, ast.Assign | ast.AnnAssign)
        and node.value is not None
        and node.end_lineno is not None
        and node.end_lineno - node.lineno >= 3
        and all(isinstance(part, _OF_TABLES) for part in ast.walk(node.value))
    )


def test_functions_fit_on_a_screen():
    long = {
        f"{path}:{node.name}": node.end_lineno - node.lineno + 1
        for path in sources("src", "tests", "bench", "scripts")
        for node in functions(path)
        if node.end_lineno and node.end_lineno - node.lineno + 1 > 100
    }
    assert long == {}


_OURS = re.compile(r"(bench|ketch|tests)\b")

# Modules below tests/unit and tests/integration, and those that are named as in the same folder.
_OF_TESTS = re.compile(r"tests\.(unit|integration)\b|\.|test_|conftest\b")


def test_rooms_are_small():
    """A folder that one can take in at a glance."""
    files = [p for p in sources("src", "tests") if os.path.basename(p) not in ("__init__.py", "conftest.py")]
    sizes = Counter(map(os.path.dirname, files))
    assert {folder: size for folder, size in sizes.items() if size > 15} == {}


def test_nothing_is_imported_from_tests():
    """What tests share stands in tests/support: a file of tests can be moved, cut and read by itself."""
    wrong = []
    for path in sources("tests"):
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.ImportFrom):
                module = "." * node.level + (node.module or "")
                names = [module, *(f"{module}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                continue
            if any(_OF_TESTS.match(name) for name in names):
                wrong.append(f"{path}:{node.lineno}")
    assert wrong == []


def test_imports_of_tools_exist():
    """Benchmarks and scripts are run rarely, and mypy does not read them."""
    missing = []
    for path in sources("bench", "scripts"):
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.ImportFrom) and node.module and _OURS.match(node.module):
                names = [alias.name for alias in node.names if not _found(node.module, alias.name)]
                missing += [f"{path}:{node.lineno} {name}" for name in names]
    assert missing == []


def _found(module: str, name: str) -> bool:
    """Whether ``from module import name`` works."""
    try:
        return (
            hasattr(importlib.import_module(module), name) or importlib.util.find_spec(f"{module}.{name}") is not None
        )
    except ModuleNotFoundError:
        return False


def test_package_files_are_empty():
    """All but that of a public package, which has names of its own."""
    full = [p for p in sources("src/ketch/*") if p.endswith("__init__.py") and os.path.getsize(f"{ROOT}/{p}")]
    assert full == ["src/ketch/aio/__init__.py"]


@pytest.mark.parametrize("package", ["oci", "storage", "images", "runtime", "linux", "network"])
def test_public_names_say_what_they_do(package):
    missing = []
    for path in sources(f"src/ketch/{package}"):
        module = parsed(path)
        if module.body and not ast.get_docstring(module):
            missing.append(path)
        owners = [module, *(n for n in module.body if isinstance(n, ast.ClassDef) and not n.name.startswith("_"))]
        for owner in owners:
            if isinstance(owner, ast.ClassDef) and not ast.get_docstring(owner):
                missing.append(f"{path}:{owner.name}")
            missing += [
                f"{path}:{node.name}"
                for node in owner.body
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
                and not node.name.startswith("_")
                and node.name not in IO_METHODS
                and "property" not in map(ast.unparse, node.decorator_list)
                and not ast.get_docstring(node)
            ]
    assert not missing, "\n".join(missing)


def test_classes_have_names_of_their_own():
    """Two classes of one name are taken for one another; those that a module keeps to itself are not.

    In what programs in Python use, a container is a `Container`, whoever waits for it.
    """
    homes = {}
    for path in sources("src"):
        if path.startswith(("src/ketch/aio/", "src/ketch/blocking/")):
            continue
        for node in parsed(path).body:
            for inner in node.body if isinstance(node, ast.If) else [node]:
                if isinstance(inner, ast.ClassDef) and not inner.name.startswith("_"):
                    homes.setdefault(inner.name, []).append(path)
    assert {name: paths for name, paths in homes.items() if len(paths) > 1} == {}


_RIDDLE = re.compile(
    r"(what|who|whose|whom|where|when|how|why|it|they|those|these|nobody|somebody|there|until|with|without|by|from)\b",
    re.IGNORECASE,
)


def test_first_lines_name_the_thing():
    """A docstring's first line is a summary: it names the thing or what it does, as in a manual page's NAME."""
    wrong = []
    for path in sources("src"):
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                first, _, rest = (ast.get_docstring(node) or "").partition("\n")
                if _RIDDLE.match(first) or (rest and not rest.startswith("\n")):
                    wrong.append(f"{path}:{getattr(node, 'name', '')}: {first}")
    assert wrong == [], "\n".join(wrong)


def _name_of(function: ast.expr) -> str:
    """``name`` or ``module.name``; to unparse all of them takes seconds."""
    match function:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=ast.Name(id=module), attr=name):
            return f"{module}.{name}"
    return ""


def test_only_the_command_line_prints_and_exits():
    wrong = []
    for path in sources("src"):
        if path.startswith("src/ketch/cli/") or path.endswith(("/main.py", "runtime/oci_cli/main.py", "__main__.py")):
            continue
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Call) and _name_of(node.func) in ("print", "sys.exit", "exit", "quit"):
                wrong.append(f"{path}:{node.lineno}")
            if isinstance(node, ast.ExceptHandler) and node.type is None:
                wrong.append(f"{path}:{node.lineno} bare except")
    assert wrong == []


def test_monitors_are_light():
    """A module that the launcher loads is in the memory of every container's monitor."""
    code = "; ".join(
        (
            "import sys",
            f"sys.path.insert(0, {ROOT + '/src'!r})",
            "import ketch.runtime.process.preload",
            "ketch.runtime.process.preload.prepare()",
            "import ketch.runtime.process.launcher, ketch.runtime.process.monitor",
            "print(' '.join(sys.modules))",
        )
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0].lstrip("_") for name in done.stdout.split() if not name.startswith("_")}
    assert loaded - MONITOR_MODULES == {"ketch"}
    ours = {name.split(".")[1] for name in done.stdout.split() if name.startswith("ketch.")}
    assert ours <= {"contexts", "runtime", "linux", "notation", "errors", "failpoints", "trees"}


def test_a_run_of_the_command_line_is_light():
    """What `ketch-runtime run` imports, in both its processes, counts in each start of a container."""
    code = "; ".join(
        (
            "import sys",
            f"sys.path.insert(0, {ROOT + '/src'!r})",
            "import ketch.entry, ketch.runtime.process.interpreter, ketch.runtime.oci_cli.main",
            "import ketch.runtime.oci_cli.creation, ketch.runtime.oci_cli.lifecycle, ketch.runtime.oci_cli.relay",
            "import ketch.runtime.process.children.init",
            "print(' '.join(sys.modules))",
        )
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    dear = {"collections", "contextlib", "ctypes", "enum", "fcntl", "functools", "json", "re", "select", "termios"}
    assert not (dear | {"typing"}) & set(done.stdout.split())


def test_the_launcher_is_started_before_the_heavy_imports():
    """It needs as long to start as ketchd's own imports do: what is imported before it makes a start longer."""
    code = "; ".join(
        (
            "import sys",
            f"sys.path.insert(0, {ROOT + '/src'!r})",
            "from ketch.daemon import listen, main, notify, parent_cgroup, roots",
            "from ketch.daemon.settings import load",
            "from ketch.engine.monitors.launcher import Launcher",
            "print(' '.join(sys.modules))",
        )
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {name.split(".")[0] for name in done.stdout.split()} & {"aiohttp", "yarl", "sqlite3"} == set()
