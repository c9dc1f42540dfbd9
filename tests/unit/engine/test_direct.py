"""Signals past a monitor, at the moment at which nobody is left to get them."""

from __future__ import annotations

import signal

from ketch.engine.cgroups import ContainerCgroups
from ketch.engine.live import direct
from ketch.engine.model.records import Container, ContainerConfig, HostConfig
from ketch.engine.paths import ContainerPaths


def test_an_end_that_was_recorded_meanwhile():
    """The pid is 0 from then on, and to the kernel that is no process that has ended, but none at all (EINVAL)."""
    config = ContainerConfig(env=[])
    ended = Container(id="c" * 64, name="a", created=1, image_id="", image_ref="", config=config, host=HostConfig())
    assert ended.state.pid == 0
    paths = ContainerPaths("/nowhere", "/nowhere")
    direct.DirectSignals(paths, ContainerCgroups(paths, "/ketch")).signal_first(ended, signal.SIGKILL)
