"""Work on snapshots that may copy a whole image: beside the event loop, and to its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from ketch import threads

if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.storage.snapshots.overlay import Snapshots

_Result = TypeVar("_Result")


async def run_to_end(snapshots: Snapshots, work: Callable[..., _Result], *arguments: Any) -> _Result:
    """Run ``work`` to its end, also when the caller is cancelled, so that undoing does not run beside it."""
    if not snapshots.copies:  # a few directories: shorter than the way to a thread
        return work(*arguments)
    return await threads.run_to_end(work, *arguments)
