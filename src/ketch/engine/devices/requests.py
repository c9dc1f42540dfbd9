"""Requests for devices (``--device vendor.com/class=name``, ``--gpus``) → devices that are specified here."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from ketch.engine.devices import edits, specs
from ketch.errors import FailedPrecondition

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.engine.devices.specs import DescribedDevice, FoundDevices, Specification
    from ketch.engine.model.records import DeviceRequest
    from ketch.runtime.oci_types import OciConfig

log = logging.getLogger(__name__)
_CDI = "cdi"
_GPUS = "nvidia.com/gpu"  # what a request for GPUs means, as Docker's driver `nvidia`
_ALL = "all"


def satisfy(requests: Sequence[DeviceRequest], spec: OciConfig, directories: Sequence[str]) -> None:
    """Write into a container's configuration what its requests ask for (FailedPrecondition: it cannot be had)."""
    if not requests:
        return
    found = specs.find(directories)
    for error in found.errors:
        log.warning("%s", error)
    chosen: list[tuple[Specification, DescribedDevice]] = []
    for request in requests:
        chosen += _named(request.device_ids or [], found) if request.driver == _CDI else _gpus(request, found)
    edits.apply(spec, chosen)


def _named(names: Sequence[str], found: FoundDevices) -> list[tuple[Specification, DescribedDevice]]:
    missing = [name for name in names if name not in found.devices]
    if missing:
        hint = f"there are: {', '.join(found.devices)}" if found.devices else "no specification has any"
        raise FailedPrecondition(
            f"CDI device injection failed: unresolvable CDI devices {', '.join(missing)}", hint=hint
        )
    return [found.devices[name] for name in names]


def _gpus(request: DeviceRequest, found: FoundDevices) -> list[tuple[Specification, DescribedDevice]]:
    """The GPUs that a request without CDI's names wants, in the words of dockerd where there are none."""
    names = found.names_of(_GPUS)
    wants_gpus = any("gpu" in names_ for names_ in request.capabilities or ())
    if request.driver not in ("", "nvidia") or not wants_gpus or not names:
        capabilities = " ".join(f"[{' '.join(one)}]" for one in request.capabilities or ())
        raise FailedPrecondition(
            f'could not select device driver "{request.driver}" with capabilities: [{capabilities}]',
            hint="have the vendor's tool write a CDI specification (nvidia-ctk cdi generate), or use --device",
        )
    single = [name for name in names if name != _ALL]
    if request.device_ids:
        wanted = list(request.device_ids)
    elif request.count < 0:
        wanted = [_ALL] if _ALL in names else single
    else:
        wanted = single[: request.count]
        if len(wanted) < request.count:
            there = f"there are {len(single)}: {', '.join(single)}"
            raise FailedPrecondition(f"{request.count} GPUs are wanted, and {there}")
    return _named([f"{_GPUS}={name}" for name in wanted], found)
