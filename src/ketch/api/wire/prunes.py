"""Answers of prunes in Docker's JSON; those of a dry run (Ketch's own) have more of each object."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.engine.model.reports import Pruned, Removed
    from ketch.notation.api_objects import ApiObject


def container(done: Pruned) -> ApiObject:
    """The answer of the dry run of one container's removal."""
    return {
        "ContainersDeleted": _ids(done.objects),
        "VolumesDeleted": _ids(done.volumes),
        "SpaceReclaimed": done.freed,
        "Containers": _rows(done.objects),
        "Volumes": _rows(done.volumes),
    }


def containers(done: Pruned, *, dry_run: bool) -> ApiObject:
    """The answer of ``POST /containers/prune``."""
    answer = {"ContainersDeleted": _ids(done.objects) or None, "SpaceReclaimed": done.freed}
    return answer | ({"Containers": _rows(done.objects)} if dry_run else {})


def networks(done: Pruned, *, dry_run: bool) -> ApiObject:
    """The answer of ``POST /networks/prune``."""
    answer: ApiObject = {"NetworksDeleted": [network.name for network in done.objects] or None}
    return answer | ({"Networks": _rows(done.objects)} if dry_run else {})


def volumes(done: Pruned, *, dry_run: bool) -> ApiObject:
    """The answer of ``POST /volumes/prune``."""
    answer = {"VolumesDeleted": _ids(done.objects), "SpaceReclaimed": done.freed}
    return answer | ({"Volumes": _rows(done.objects)} if dry_run else {})


def images(done: Pruned, *, dry_run: bool) -> ApiObject:
    """The answer of ``POST /images/prune``."""
    answer = {"ImagesDeleted": done.rows or None, "SpaceReclaimed": done.freed}
    return answer | ({"Images": _rows(done.objects)} if dry_run else {})


def _ids(objects: Sequence[Removed]) -> list[str]:
    return [item.id for item in objects]


def _rows(objects: Sequence[Removed]) -> list[ApiObject]:
    return [{"Id": item.id, "Name": item.name, "Size": item.size} for item in objects]
