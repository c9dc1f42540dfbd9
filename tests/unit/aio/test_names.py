"""The public names: they are there, have types, and cost nothing until they are used."""

from __future__ import annotations

import ast
import os
import subprocess
import sys

import pytest

import ketch
from ketch import aio
from tests.support.source.project import ROOT


@pytest.mark.parametrize("module", [ketch, aio], ids=lambda module: module.__name__)
def test_names_and_their_types_agree(module):
    """What the stub file says can be imported from there, and nothing else is promised."""
    with open(os.path.join(os.path.dirname(module.__file__), "__init__.pyi"), encoding="utf-8") as f:
        stub = ast.parse(f.read())
    homes = {alias.name: node.module for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    homes.pop("aio", None)
    assert homes == {name: home for home, names in module._HOMES.items() for name in names}
    for name in homes:
        assert getattr(module, name) is not None
        assert name in dir(module)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = module.nothing


def test_an_import_loads_nothing():
    code = f"import sys; sys.path.insert(0, {ROOT + '/src'!r}); a = set(sys.modules); import ketch; "
    code += "print(sorted(set(sys.modules) - a)); ketch.run; print('asyncio' in sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "['ketch']\nFalse\n"
