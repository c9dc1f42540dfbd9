"""Docker's rules of ``rmi`` as a pure function: the names to remove, and whether the image goes with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ketch.errors import Conflict
from ketch.oci import reference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.images.model import Image

    Users = Sequence[tuple[str, bool]]


class DryRun:
    """The state of a dry run of several removals: the names and images that count as removed."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.images: set[str] = set()
        self.lost: set[str] = set()  # these, and those that containers were made from


class Needed(NamedTuple):
    """The users of an image: containers as (id, running), and whether others were committed on it."""

    users: Users
    dependent: bool = False


def plan(
    image: Image, names: Sequence[str], ref: str, needed: Needed, *, force: bool, is_name: bool
) -> tuple[list[str], bool]:
    """The plan of a removal: (names to remove, whether the image is deleted); Conflict in Docker's words.

    ``names`` are all of the image's, normalized; ``is_name`` says that ``ref`` is one of the names and no id.
    """
    users = needed.users
    if not is_name and "@" not in ref:
        _check(image, needed, several=not _count_as_one(names), force=force)
        return list(names), True
    if _count_as_one(names) and users and not force:
        raise Conflict(
            f'conflict: unable to remove repository reference "{ref}" (must force) - container '
            f"{users[0][0][:12]} is using its referenced image {image.id[7:19]}",
            hint="remove the container first, or use --force",
        )
    removed = _with_digests(_named(reference.parse(ref), names), names)
    if len(removed) < len(names):
        return removed, False
    running = any(running for _, running in users)
    return removed, not needed.dependent and not running and (force or not users)


def _named(parsed: reference.Reference, names: Sequence[str]) -> list[str]:
    """The given name, or for ``repository@digest`` all of the repository's."""
    if str(parsed) in names:
        return [str(parsed)]
    return [name for name in names if reference.parse(name).repository == parsed.repository]


def _count_as_one(names: Sequence[str]) -> bool:
    """Whether these names count as one: at most one tag, and digests of the same repository."""
    tags = [name for name in names if "@" not in name]
    return len(tags) <= 1 and len({reference.parse(name).repository for name in names}) <= 1


def _with_digests(removed: list[str], names: Sequence[str]) -> list[str]:
    """The names to remove, with a repository's digests when its last tag is among them."""
    gone = {reference.parse(name).repository for name in removed if "@" not in name}
    tagged = {reference.parse(name).repository for name in names if "@" not in name and name not in removed}
    return removed + [
        name
        for name in names
        if "@" in name and name not in removed and reference.parse(name).repository in gone - tagged
    ]


def _check(image: Image, needed: Needed, *, several: bool, force: bool) -> None:
    """Check a removal by id: with force if anything needs it that is neither another image nor a running container."""
    short, users = image.id[7:19], needed.users
    if needed.dependent:
        raise Conflict(
            f"conflict: unable to delete {short} (cannot be forced) - image has dependent child images",
            hint="remove those first",
        )
    for container, running in users:
        if running:
            raise Conflict(
                f"conflict: unable to delete {short} (cannot be forced) - image is being used by running container "
                f"{container[:12]}",
                hint="stop the container first",
            )
    if several and not force:
        raise Conflict(
            f"conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories",
            hint="remove it by its names, or use --force",
        )
    if users and not force:
        raise Conflict(
            f"conflict: unable to delete {short} (must be forced) - image is being used by stopped container "
            f"{users[0][0][:12]}",
            hint="remove the container first, or use --force",
        )
