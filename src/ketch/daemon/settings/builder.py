"""The builder's settings: ``builder`` in ``daemon.json``, with dockerd's ``gc`` and Ketch's ``max-parallelism``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from ketch.build.cache.pruning import policy
from ketch.build.cache.pruning.policy import CollectionSettings
from ketch.errors import InvalidArgument

if TYPE_CHECKING:
    from ketch.build.cache.pruning.policy import PruneOptions
    from ketch.daemon.settings.config import Config

_MOST = 1024


class _Builder(msgspec.Struct, forbid_unknown_fields=True):
    gc: CollectionSettings = CollectionSettings()
    max_parallelism: int = msgspec.field(default=0, name="max-parallelism")


def check(config: Config) -> None:
    """Check the settings (InvalidArgument)."""
    found = _read(config)
    if not 0 <= found.max_parallelism <= _MOST:
        raise InvalidArgument(f"builder: max-parallelism {found.max_parallelism}: not between 0 and {_MOST}")
    policy.rules(found.gc, 0)


def rules(config: Config) -> list[PruneOptions]:
    """The collections of the cache that are done after builds."""
    status = os.statvfs(config.data_root)
    return list(policy.rules(_read(config).gc, status.f_frsize * status.f_blocks))


def max_parallelism(config: Config) -> int:
    """The number of steps that may be at work at once; 0: by the processors."""
    return _read(config).max_parallelism


def _read(config: Config) -> _Builder:
    try:
        return msgspec.convert(config.builder, _Builder)
    except msgspec.ValidationError as e:
        raise InvalidArgument(
            f"builder: {e}", hint='daemon.json has {"builder": {"gc": {…}, "max-parallelism": N}}'
        ) from e
