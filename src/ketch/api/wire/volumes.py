"""A volume in Docker's JSON, and the bodies of requests about volumes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from ketch.engine.model.volume import ANONYMOUS
from ketch.notation import times

if TYPE_CHECKING:
    from ketch.engine.model.volume import Volume
    from ketch.notation.api_objects import ApiObject


class NewVolume(msgspec.Struct, rename="pascal", kw_only=True):
    """The body of ``create``."""

    GO_NAME: ClassVar[str] = "CreateOptions"

    name: str = ""
    driver: str = "local"
    driver_opts: dict[str, str] | None = None
    labels: dict[str, str] | None = None
    cluster_volume_spec: dict[str, Any] | None = None


def wire(volume: Volume) -> ApiObject:
    """A volume as ``/volumes`` shows it."""
    labels = dict(volume.labels)
    if volume.anonymous:
        labels.setdefault(ANONYMOUS, "")
    return {
        "CreatedAt": times.rfc3339_or_never(volume.created // 1_000_000_000 * 1_000_000_000),
        "Driver": volume.driver,
        "Labels": labels or None,
        "Mountpoint": volume.mountpoint,
        "Name": volume.name,
        "Options": volume.options or None,
        "Scope": "local",
    }
