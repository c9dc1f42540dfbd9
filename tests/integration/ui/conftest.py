"""A daemon that serves the page, and a browser."""

from __future__ import annotations

import pytest

from tests.support.clients import browser
from tests.support.clients.page import Served
from tests.support.engines import Engine
from tests.support.leaks import Census
from tests.support.logs.logservers import free_port


@pytest.fixture(scope="package")
def served(request):
    """A daemon with busybox that serves the page."""
    if request.config.getoption("--engine") != "ketch":
        pytest.skip("only Ketch has the page")
    one = Engine("ketch", suffix="u")
    before = Census.take(one.name)
    port = free_port()
    one.extra = ["--ui", f"127.0.0.1:{port}"]
    with one.running():
        yield Served(one, port)
    assert before.leaks() == []


@pytest.fixture(scope="package")
def chromium():
    """A browser; no test of this package may be a coroutine, while it is there."""
    with browser.chromium() as one:
        yield one
