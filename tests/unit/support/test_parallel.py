"""How tests are spread over processes, and what is said at the end, whichever process ran them."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from tests.support import programs
from tests.support.run import parallel, summary
from tests.support.source.project import ROOT


def test_the_long_files_are_there():
    assert [path for path in parallel.LONG if not os.path.exists(os.path.join(ROOT, "tests", path))] == []


def test_a_file_is_a_unit_or_cut_into_parts_that_hang_together(monkeypatch):
    monkeypatch.setattr(parallel, "LONG", {"unit/test_long.py": 3})
    tests = [f"tests/unit/test_long.py::test[{n}]" for n in range(7)] + [
        "tests/unit/test_a.py::a",
        "tests/b/test_b.py::b",
    ]
    found = parallel.units(tests)
    assert list(found) == tests
    assert [name.rpartition(" ")[2] for name in found.values()] == [*"0001122", "0", "0"]
    assert len(set(found.values())) == 5
    items = [SimpleNamespace(nodeid=test) for test in reversed(tests)]
    parallel.longest_first(items)
    assert [item.nodeid for item in items] == [*reversed(tests[:7]), tests[8], tests[7]]


@pytest.mark.parametrize(("worker", "order"), [("gw0", "abcd"), ("gw1", "cdab")])
def test_workers_import_the_tests_from_different_ones_on(monkeypatch, tmp_path, worker, order):
    """What cannot be imported is left to the collection."""
    ends = {"a": "", "b": "raise ValueError", "c": "import pytest; pytest.skip('x', allow_module_level=True)", "d": ""}
    for name, end in ends.items():
        (tmp_path / f"test_{worker}_{name}.py").write_text(f"import sys\nsys.imported.append({name!r})\n{end}")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(sys, "imported", [], raising=False)
    place = SimpleNamespace(dir=tmp_path)
    input = {"workerid": worker, "workercount": 2}
    parallel.import_tests(SimpleNamespace(args=["."], invocation_params=place, rootpath=tmp_path, workerinput=input))
    assert "".join(sys.imported) == order
    assert len(list(tmp_path.rglob("*.pyc"))) == 4


def report(nodeid: str, when: str = "call", reason: str = "") -> SimpleNamespace:
    return SimpleNamespace(nodeid=nodeid, when=when, longrepr=("file", 1, reason))


def test_summary(monkeypatch):
    monkeypatch.setattr(summary.peers, "MISSING", "peers: no dockerd")
    with pytest.raises(pytest.skip.Exception) as skipped:
        programs.need("no-such-program")
    stats = {
        "passed": [
            report("t/test_crash_matrix.py::test_point[a:b-1]"),
            report("t/test_crash_matrix.py::test_point[c-2]"),
            report("t/test_interop.py::test_interop[ketch-s3-oras]"),
        ],
        "failed": [
            report("t/test_crash_matrix.py::test_point[c-3]"),
            report("t/test_interop.py::test_interop[ketch-oras]"),
        ],
        "skipped": [report("t::s", reason=str(skipped.value)), report("t::p", reason="Skipped: peers: no dockerd")],
    }
    assert list(summary.lines(stats)) == [
        "1 skipped: peers: no dockerd",
        "skipped for want of a program: no-such-program",
        "crash matrix: 2 points, 1 survived",
        "interop matrix             ketch          ketch-s3",
        "          oras                 ✗                 ✓",
    ]
    assert list(summary.lines({})) == []


_SCRIPT = """
import os
from tests.support.run import isolation
isolation.own_network()
print(*os.listdir("/sys/class/net"))
spaces = [os.readlink(f"/proc/thread-self/ns/{kind}") for kind in ("net", "mnt")]
with isolation.network_of_the_machine():
    print(*spaces, os.readlink("/proc/thread-self/ns/net"))
assert os.readlink("/proc/thread-self/ns/net") == spaces[0]
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")
def test_a_worker_leaves_the_machine_and_can_still_reach_its_network():
    done = subprocess.run([sys.executable, "-c", _SCRIPT], cwd=ROOT, capture_output=True, text=True, check=True)
    links, namespaces = done.stdout.splitlines()
    assert links == "lo"
    net, mnt, machines = namespaces.split()
    assert machines == os.readlink("/proc/self/ns/net") != net
    assert mnt != os.readlink("/proc/self/ns/mnt")
