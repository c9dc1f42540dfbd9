"""The linters as tests, so that one command says whether a change is fit."""

from __future__ import annotations

import ast
import os
import subprocess
import sys

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN = os.path.dirname(sys.executable)
FILE_LINES, FUNCTION_LINES = 400, 100
# A longer file needs a reason, here.
LONGER: dict[str, str] = {}
DOCUMENTED = ("oci", "linux", "storage", "images", "network", "runtime", "engine")
# What a monitor may have in memory: anything else was not in the launcher before it forked.
FORBIDDEN = ("aiohttp", "asyncio", "dataclasses", "logging", "msgspec", "pyroute2", "socket", "subprocess", "typing")


def sources() -> list[str]:
    found = []
    for directory, _, names in os.walk(os.path.join(ROOT, "src", "ketch")):
        found += [os.path.join(directory, name) for name in names if name.endswith(".py")]
    return sorted(found)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["mypy"],
        ["lint-imports"],
    ],
    ids=lambda command: " ".join(command),
)
def test_linter(command):
    done = subprocess.run(
        [os.path.join(BIN, command[0]), *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_files_do_one_thing():
    long = {}
    for path in sources():
        with open(path, encoding="utf-8") as f:
            lines = f.read().count("\n")
        if lines > FILE_LINES:
            long[os.path.relpath(path, os.path.join(ROOT, "src", "ketch"))] = lines
    assert set(long) <= set(LONGER), long


def test_functions_fit_on_a_screen():
    long = []
    for path in sources():
        with open(path, encoding="utf-8") as f:
            tree = ast.parse(f.read())
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.end_lineno is not None:
                size = node.end_lineno - node.lineno + 1
                if size > FUNCTION_LINES:
                    long.append(f"{os.path.relpath(path, ROOT)}:{node.lineno} {node.name} {size}")
    assert long == []


def test_public_names_are_documented():
    bare = []
    for path in sources():
        package = os.path.relpath(path, os.path.join(ROOT, "src", "ketch")).split(os.sep)[0]
        if package not in DOCUMENTED:
            continue
        with open(path, encoding="utf-8") as f:
            tree = ast.parse(f.read())
        for node in tree.body:
            named = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
            if named and not node.name.startswith("_") and not ast.get_docstring(node):
                bare.append(f"{os.path.relpath(path, ROOT)}:{node.lineno} {node.name}")
    assert bare == []


def test_the_monitor_is_light():
    code = "import sys; import ketch.runtime.process.launcher; print(' '.join(sorted(sys.modules)))"
    command = [
        sys.executable,
        "-I",
        "-S",
        "-c",
        f"import sys; sys.path.insert(0, {os.path.join(ROOT, 'src')!r}); {code}",
    ]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert [name for name in loaded if name.split(".")[0] in FORBIDDEN] == []
    assert len(loaded) > 40, "the list would be empty if nothing was imported"
