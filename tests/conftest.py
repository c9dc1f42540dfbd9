"""Options of the test run; pytest reads them only from here, at the top."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import hypothesis

from tests.integration.isolation import own_network

if TYPE_CHECKING:
    import pytest


# Tests do not look at a clock: how long an example takes says what else the machine does.
hypothesis.settings.register_profile("ketch", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("ketch")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--storage-driver", default="", help="the shared daemon's storage driver")
    parser.addoption("--engine", default="ketch", choices=("ketch", "dockerd"), help="which engine to test")
    parser.addoption("--own-netns", action="store_true", help="run in a network namespace of its own")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "ketch_only: not a behaviour of dockerd")
    # A shell that starts us in the background has them ignored, and so would be what tests send ^C and ^\\ to.
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGQUIT, signal.SIG_DFL)):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, usual)
    dockerd = config.getoption("--engine", "ketch") == "dockerd"
    if config.getoption("--own-netns", False) or dockerd:
        own_network(propagates=dockerd)  # it has a mount namespace of its own
