"""The list of tests that some runs leave out."""

from __future__ import annotations

import ast
import os

import pytest

from ketch.runtime.cgroups import common
from tests.support.run import variants

ROOT = os.path.join(os.path.dirname(__file__), "../../integration")
TABLES = {
    "userns": variants.USERNS,
    "rootless": {**variants.ROOTLESS, **variants.LIMITS},
    **variants.RUNTIMES,
}


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_what_is_left_out_is_there(table):
    names = [name for group in table.values() for name in group]
    assert len(names) == len(set(names))
    for name in names:
        path, _, function = name.partition("::")
        with open(os.path.join(ROOT, path), encoding="utf-8") as f:
            nodes = ast.parse(f.read()).body
        defined = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert function in defined, name


def test_reasons():
    node = "tests/integration/files/test_volumes.py::test_a_mount_on_dev_is_named[docker]"
    assert variants.reason(node, "", "") == ""
    assert variants.reason(node, "auto", "").startswith("directories of the machine's root")
    assert variants.reason(node, "", "crun").startswith("its errors have other words")
    assert variants.reason("tests/integration/files/test_cp.py::test_it", "auto", "runc") == ""
    assert variants.reason("tests/integration/files/test_cp.py::test_it", rootless=True) == ""
    export = "tests/integration/files/test_diff_export_commit.py::test_export[docker]"
    assert variants.reason(export, rootless=True) == "users make no devices"
    why = variants.OF_VERSION_1 if common.machine_version() == 1 else ""
    for parameters, expected in (("runc-0", why), ("extra-crun", why), ("ketch-0", "")):
        assert (
            variants.reason(f"tests/integration/runtimes/test_init.py::test_life[{parameters}]", rootless=True)
            == expected
        )
