"""Options of the test run, and how it is spread over processes; pytest reads them only from here, at the top."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import hypothesis
import pytest

from tests.support.run import parallel, scratch, session, summary
from tests.support.run.isolation import own_network
from tests.support.waiting import patient

if TYPE_CHECKING:
    from xdist.scheduler import LoadScopeScheduling


# Tests do not look at a clock: how long an example takes says what else the machine does.
hypothesis.settings.register_profile("ketch", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("ketch")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--storage-driver", default="", help="the shared daemon's storage driver")
    parser.addoption("--userns", default="", help="auto: containers of the shared daemon in user namespaces")
    parser.addoption("--rootless", action="store_true", help="the shared daemon is a user's, without rights")
    parser.addoption("--engine", default="ketch", choices=("ketch", "dockerd"), help="which engine to test")
    parser.addoption("--runtime", default="", help="the shared daemon's default OCI runtime: runc, crun or a path")
    parser.addoption("--own-netns", action="store_true", help="run in a network namespace of its own")
    parser.addoption("--tmp-on-disk", action="store_true", help="leave /tmp as it is")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "ketch_only: not a behaviour of dockerd")
    # A shell that starts us in the background has them ignored, and so would be what tests send ^C and ^\\ to.
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGQUIT, signal.SIG_DFL)):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, usual)
    dockerd = config.getoption("--engine", "ketch") == "dockerd"
    alone = not config.getoption("tx", []) and (config.getoption("--own-netns", False) or dockerd)
    if _is_worker(config) or not config.getoption("tx", []):
        session.guard()
    if alone or _is_worker(config):
        own_network(propagates=dockerd)  # it has a mount namespace of its own
        if not config.getoption("--tmp-on-disk", False):
            scratch.own_tmp()
        if config.option.basetemp:  # what the first process has made of it may be out of sight
            os.makedirs(os.path.dirname(config.option.basetemp) or ".", exist_ok=True)


def _is_worker(config: pytest.Config) -> bool:
    """Whether this process runs tests for another one, beside others."""
    return hasattr(config, "workerinput")


@pytest.hookimpl(optionalhook=True)  # tests also run, in one process, where there is no pytest-xdist
def pytest_xdist_auto_num_workers() -> int:
    return parallel.workers()


def pytest_collection(session: pytest.Session) -> None:
    if _is_worker(session.config):
        parallel.import_tests(session.config)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if _is_worker(config):
        parallel.longest_first(items)
    _lengthen(config, items)


def _lengthen(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The same patience with each test as with what it waits for."""
    for item in items:
        mark = item.get_closest_marker("timeout")
        usual = mark.args[0] if mark else float(config.getini("timeout"))
        item.add_marker(pytest.mark.timeout(patient(usual)), append=False)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadScopeScheduling:
    config.option.loadscopereorder = False  # it would begin with what has the most tests
    return parallel.scheduler(config, log)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in summary.lines(terminalreporter.stats):
        terminalreporter.write_line(line)
