"""The builder's settings: ``builder`` in ``daemon.json``, with dockerd's ``gc``, ``history`` and ``entitlements``.

Ketch's own is ``max-parallelism``.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from ketch.build.cache.pruning import policy
from ketch.build.cache.pruning.policy import CollectionSettings
from ketch.engine.model.building.records import HistoryLimits
from ketch.errors import InvalidArgument
from ketch.notation import durations

if TYPE_CHECKING:
    from collections.abc import Collection

    from ketch.build.cache.pruning.policy import PruneOptions
    from ketch.daemon.settings.config import Config

_MOST = 1024
_SECOND = 10**9


class _History(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    max_age: str = ""
    max_entries: int = 0


class _Entitlements(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    network_host: bool | None = None
    security_insecure: bool | None = None
    device: bool | None = None


class _Builder(msgspec.Struct, forbid_unknown_fields=True):
    gc: CollectionSettings = CollectionSettings()
    history: _History = _History()
    entitlements: _Entitlements = _Entitlements()
    max_parallelism: int = msgspec.field(default=0, name="max-parallelism")


def check(config: Config) -> None:
    """Check the settings (InvalidArgument)."""
    found = _read(config)
    if not 0 <= found.max_parallelism <= _MOST:
        raise InvalidArgument(f"builder: max-parallelism {found.max_parallelism}: not between 0 and {_MOST}")
    policy.rules(found.gc, 0)
    history(config)


def rules(config: Config) -> list[PruneOptions]:
    """The collections of the cache that are done after builds."""
    status = os.statvfs(config.data_root)
    return list(policy.rules(_read(config).gc, status.f_frsize * status.f_blocks))


def history(config: Config) -> HistoryLimits:
    """The limits of the history of builds (InvalidArgument)."""
    asked, limits = _read(config).history, HistoryLimits()
    age = limits.max_age
    if text := asked.max_age:
        found = int(text) * _SECOND if text.isascii() and text.isdecimal() and len(text) < 12 else durations.parse(text)
        if found is None or found < 0:
            raise InvalidArgument(f"builder: history: maxAge: invalid duration {text}", hint="such as 48h, or seconds")
        age = found
    return HistoryLimits(max_entries=asked.max_entries if asked.max_entries > 0 else limits.max_entries, max_age=age)


def denied(config: Config) -> Collection[str]:
    """The entitlements that no client can give, such as ``network.host``."""
    asked = msgspec.structs.asdict(_read(config).entitlements)
    return frozenset(name.replace("_", ".") for name, value in asked.items() if value is False)


def max_parallelism(config: Config) -> int:
    """The number of steps that may be at work at once; 0: by the processors."""
    return _read(config).max_parallelism


def _read(config: Config) -> _Builder:
    try:
        return msgspec.convert(config.builder, _Builder)
    except msgspec.ValidationError as e:
        raise InvalidArgument(
            f"builder: {e}",
            hint='daemon.json has {"builder": {"gc": {…}, "history": {…}, "entitlements": {…}, "max-parallelism": N}}',
        ) from e
