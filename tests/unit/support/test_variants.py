"""The list of tests that some runs leave out."""

from __future__ import annotations

import ast
import os

import pytest

from tests.support.run import variants

ROOT = os.path.join(os.path.dirname(__file__), "../../integration")
TABLES = {"userns": variants.USERNS, **variants.RUNTIMES}


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_what_is_left_out_is_there(table):
    names = [name for group in table.values() for name in group]
    assert len(names) == len(set(names))
    for name in names:
        path, _, function = name.partition("::")
        with open(os.path.join(ROOT, path), encoding="utf-8") as f:
            defined = {node.name for node in ast.parse(f.read()).body if isinstance(node, ast.FunctionDef)}
        assert function in defined, name


def test_reasons():
    node = "tests/integration/files/test_volumes.py::test_a_mount_on_dev_is_named[docker]"
    assert variants.reason(node, "", "") == ""
    assert variants.reason(node, "auto", "").startswith("directories of the machine's root")
    assert variants.reason(node, "", "crun").startswith("its errors have other words")
    assert variants.reason("tests/integration/files/test_cp.py::test_it", "auto", "runc") == ""
