"""The project's own files, for rules about them."""

from __future__ import annotations

import ast
import glob
import os

ROOT = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../.."))


def sources(*folders: str) -> list[str]:
    """Python files, relative to the project."""
    found = [path for folder in folders for path in glob.glob(f"{ROOT}/{folder}/**/*.py", recursive=True)]
    return sorted(os.path.relpath(path, ROOT) for path in found)


def containing(text: str, *folders: str) -> list[str]:
    """Those in which a text occurs: to parse all of them takes seconds."""
    found = []
    for path in sources(*folders):
        with open(os.path.join(ROOT, path), encoding="utf-8") as f:
            if text in f.read():
                found.append(path)
    return found


def parsed(path: str) -> ast.Module:
    """The syntax of one file."""
    with open(os.path.join(ROOT, path), encoding="utf-8") as f:
        return ast.parse(f.read())


def functions(path: str) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    """All of a file, the inner ones and methods, too."""
    return [node for node in ast.walk(parsed(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
