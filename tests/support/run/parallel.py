"""How tests are spread over worker processes: what takes longest first, and the tests of a file together, for the
daemons that they share take longer to start than most tests to run.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections import Counter
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from xdist.scheduler import LoadScopeScheduling

# The files that take longest, in this order, with the number of parts that each may be cut into.
LONG = {
    "integration/crash/test_crash_matrix.py": 6,
    "integration/daemon/test_two_daemons.py": 3,
    "integration/clients/test_ansible.py": 1,
    "integration/buildkit_faults/test_clients_that_go.py": 1,
    "integration/buildkit/buildx/test_shared_caches.py": 1,
    "integration/crash/test_missing_parts.py": 2,
    "integration/crash/test_slow_removals.py": 2,
    "integration/build_faults/test_build_crash.py": 3,
    "integration/crash/test_bad_environments.py": 2,
    "integration/crash/test_stopped_monitors.py": 2,
    "integration/crash/test_lost.py": 2,
    "integration/crash/test_full_disk.py": 2,
    "integration/crash/test_crash.py": 1,
    "integration/files/test_deep_trees.py": 1,
    "integration/daemon/test_changed_settings.py": 2,
    "integration/images/test_bombs.py": 1,
    "integration/buildkit/test_changing_contexts.py": 1,
    "integration/cli/test_flags.py": 1,
    "integration/network/test_side_by_side.py": 1,
    "integration/buildkit/buildx/test_outputs.py": 1,
    "integration/api/test_fuzz.py": 1,
    "integration/images/test_bootstrap.py": 1,
    "integration/runtime/test_runtime_races.py": 1,
    "integration/clients/test_compose_commands.py": 1,
    "integration/cli/test_recreate.py": 1,
    "integration/buildkit_faults/test_interruptions.py": 1,
    "integration/runtime/test_runtime_filter.py": 1,
    "integration/files/test_cp_races.py": 1,
    "integration/build_faults/test_full_disk.py": 1,
    "unit/test_trees.py": 1,
    "unit/rules/test_linters.py": 1,
    "integration/daemon/test_scale.py": 1,
    "integration/clients/test_compose_scenarios.py": 1,
    "integration/buildkit/test_buildx_debug.py": 1,
    "integration/images/test_pull_faults.py": 1,
    "integration/daemon/test_current_directory.py": 1,
    "integration/crash/test_storm.py": 1,
    "integration/crash/test_survival.py": 1,
    "integration/network/test_network_scale.py": 1,
    "integration/network/test_requests.py": 1,
    "integration/registry/test_interop.py": 1,
    "integration/clients/test_testcontainers.py": 1,
    "integration/clients/test_compose_one.py": 1,
    "integration/buildkit/test_buildx_prune.py": 1,
    "integration/registry/test_registry_protocol.py": 1,
    "integration/registry/test_registry_auth.py": 1,
    "integration/cli/test_ready.py": 1,
    "integration/api/test_nasty.py": 1,
    "integration/build/test_recorded_builds.py": 1,
    "integration/build/test_projects.py": 1,
    "integration/storage/test_unpack_pool.py": 1,
    "integration/files/test_cp.py": 1,
    "integration/monitors/test_launcher.py": 1,
    "integration/files/test_volumes_more.py": 1,
    "integration/attach/test_streams.py": 1,
}


def workers() -> int:
    """Two more than there are processors, for tests wait now and then; clients lose patience with many more."""
    return min(len(os.sched_getaffinity(0)) + 2, 8)


def import_tests(config: pytest.Config) -> None:
    """Import the modules to be collected, each worker from another one on: most it finds compiled by the others.

    pytest compiles a test anew, which takes longer than all else of a collection, where there is no bytecode of it, and
    some environments forbid Python to write any.
    """
    sys.dont_write_bytecode = False
    places = [config.invocation_params.dir / arg.partition("::")[0] for arg in config.args]
    files = sorted(file for place in places for file in place.rglob("test_*.py"))
    first = int(config.workerinput["workerid"].removeprefix("gw")) * len(files) // config.workerinput["workercount"]
    for file in files[first:] + files[:first]:
        name = ".".join(file.relative_to(config.rootpath).with_suffix("").parts)
        with contextlib.suppress(Exception, pytest.skip.Exception):  # the collection tells
            importlib.import_module(name)


def longest_first(items: list[pytest.Item]) -> None:
    """Sort the tests that were collected; each worker has to do that alike."""
    rank = {file: place for place, file in enumerate(LONG)}
    items.sort(key=lambda item: rank.get(_name(item.nodeid), len(rank)))


def scheduler(config: pytest.Config, log: object) -> LoadScopeScheduling:
    """What gives the next unit to the worker that has nothing left to do."""
    from xdist.scheduler import LoadScopeScheduling

    class Units(LoadScopeScheduling):
        _units: dict[str, str] | None = None

        def _split_scope(self, nodeid: str) -> str:
            if self._units is None:
                self._units = units(next(iter(self.registered_collections.values())))
            return self._units[nodeid]

    return Units(config, log)


def units(tests: list[str]) -> dict[str, str]:
    """{a test's id: the name of its unit, which is a file or a part of one}."""
    sizes, seen, found = Counter(map(_name, tests)), Counter[str](), {}
    for test in tests:
        name = _name(test)
        found[test] = f"{name} {seen[name] * LONG.get(name, 1) // sizes[name]}"
        seen[name] += 1
    return found


def _name(test: str) -> str:
    """A test's file, as it stands in ``LONG``."""
    return test.partition("::")[0].removeprefix("tests/")
