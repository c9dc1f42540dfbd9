"""The settings that the daemon last ran with (``settings.json`` in the data root), compared with those of this start.

Containers may run since then.  They keep what they have, and the log names each setting that is another one now.
"""

from __future__ import annotations

import json
import logging
import os
from typing import TYPE_CHECKING

from ketch.engine.model import bundle_file
from ketch.engine.monitors import process as monitor_process
from ketch.engine.monitors.run_directory import written_pid
from ketch.errors import FailedPrecondition

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.daemon.settings.config import Config
    from ketch.engine.model.records import Container

log = logging.getLogger("ketchd")
# Those that a container gets something of when it is made, started, or connected.
_OF_CONTAINERS = (
    "bridge",
    "bip",
    "bip6",
    "default_gateway",
    "default_gateway_v6",
    "mtu",
    "ip",
    "icc",
    "ip_masq",
    "ipv6",
    "fixed_cidr_v6",
    "default_address_pools",
    "dns",
    "dns_search",
    "dns_opts",
    "host_gateway_ips",
    "cgroup_parent",
    "userns_remap",
    "userns_default",
    "userns_copy",
    "log_driver",
    "log_opts",
    "journald_socket",
    "storage_opts",
)


def compare(config: Config, containers: Sequence[Container]) -> None:
    """Log the changes that concern running containers, and store the settings of this start.

    FailedPrecondition when monitors are under another exec root: from here they could not be reached.  That may be so
    of a container that the record says is down: in a copy of a data root whose daemon has started it since.
    """
    running = [c.id for c in containers if c.state.running]
    path = os.path.join(config.data_root, "settings.json")
    before = _read(path)
    now: dict[str, object] = {name: getattr(config, name) for name in ("exec_root", *_OF_CONTAINERS)}
    if before:
        _check_exec_root(str(before.get("exec_root", config.exec_root)), config.exec_root, [c.id for c in containers])
    else:
        _check_not_a_copy(config, [c for c in containers if c.state.running])
    if before and running:
        for name in _OF_CONTAINERS:
            if name in before and before[name] != now[name]:
                log.info(
                    "--%s was %s and is %s: that is for containers that start from now on; "
                    "%d that run keep what they have",
                    name.replace("_", "-"),
                    _shown(before[name]),
                    _shown(now[name]),
                    len(running),
                )
    if before != now:
        _write(path, now)


def _check_exec_root(before: str, now: str, known: Sequence[str]) -> None:
    if before != now and any(monitor_process.lives(written_pid(os.path.join(before, "run", c)), c) for c in known):
        raise FailedPrecondition(
            f"use exec root `{now}`: containers of this data root run, and their monitors are in `{before}`",
            hint=f"start with --exec-root {before}, or stop the containers first",
        )


def _check_not_a_copy(config: Config, running: Sequence[Container]) -> None:
    """Refuse a copied data root whose daemon stored no settings: its bundles name another path."""
    for container in running:
        here = os.path.join(config.data_root, "containers", container.id)
        there = bundle_file.written_in(here)
        if not there or not os.path.isdir(there) or os.path.samefile(here, there):
            continue
        run_dir = os.path.join(config.exec_root, "run", container.id)
        if monitor_process.find(run_dir, container.id, container.state.pid):
            original = os.path.dirname(os.path.dirname(there))
            raise FailedPrecondition(
                f"use data root `{config.data_root}`: it is a copy of `{original}`, whose containers run",
                hint=f"stop the containers of {original} first",
            )


def _shown(value: object) -> str:
    return json.dumps(value) if value not in ("", [], {}) else "not set"


def _read(path: str) -> dict[str, object]:
    try:
        with open(path, encoding="utf-8") as f:
            found = json.load(f)
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as e:
        log.warning("read the settings of the last start in `%s`: %s", path, e)
        return {}
    return found if isinstance(found, dict) else {}


def _write(path: str, settings: dict[str, object]) -> None:
    fd = os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(fd, "w", encoding="utf-8") as f:
        json.dump(settings, f, indent=1)
    os.rename(path + ".new", path)
