"""A small machine that systemd manages, for a file of tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.boxes.systemd_box import SystemdBox

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SystemdBox]:
    """The machine, booted; whatever a test leaves there ends with it."""
    machine = SystemdBox(tmp_path_factory.mktemp("machine"))
    yield machine
    machine.close()
