"""Packages that the sources import: pyproject.toml names each of them."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

TOP = Path(__file__).parents[3]
OWN = {"ketch", "tests", "bench"}
# Packages that another brings as a part of its own interface.
WITH = {"boto3": "moto", "cryptography": "pyjwt", "multidict": "aiohttp", "requests": "docker", "yarl": "aiohttp"}
# Programs for environments of their own.
ELSEWHERE = [
    TOP / "tests" / part
    for part in ("data", "support/clients/ansible", "support/clients/compose_server.py", "support/clients/tools")
]


def test_each_import_is_of_a_named_package():
    """One that only old virtual environments have is missing in the next."""
    project = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    requirements = project["dependencies"] + sum(project["optional-dependencies"].values(), [])
    named = {_canonical(re.split(r"[^\w.-]", one, maxsplit=1)[0]) for one in requirements}
    distributions = packages_distributions()
    files = [one for part in ("src", "tests", "bench") for one in (TOP / part).rglob("*.py")]
    unnamed = {
        f"{file.relative_to(TOP)}: {name}"
        for file in files
        if not any(map(file.is_relative_to, ELSEWHERE))
        for name in _imports(file) - sys.stdlib_module_names - OWN
        if not named & {_canonical(WITH.get(one, one)) for one in distributions.get(name, [])}
    }
    assert unnamed == set()


def _imports(file: Path) -> set[str]:
    tree = ast.parse(file.read_bytes())
    return {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom) and not node.level
            else []
        )
    }


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
