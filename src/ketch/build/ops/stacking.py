"""Layers put upon others than they were made upon."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ketch.storage.drafts import transparent
from ketch.undo import Undo

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ketch.build.providers import BuildSnapshots
    from ketch.storage.content.leases import Lease


class Restacking:
    """A maker of layers that mean the same upon any tree."""

    def __init__(self, snapshots: BuildSnapshots, lease: Lease, check: Callable[[], None]) -> None:
        self._snapshots, self._lease, self._check = snapshots, lease, check

    def movable(self, layer: str, below: Sequence[str]) -> str:
        """The layer itself, or a new one, that upon any tree changes only what it changes upon the layers ``below``."""
        directory = self._snapshots.directory(layer)
        if not transparent.has_opaque(directory, self._check):
            return layer
        with Undo() as undo:
            draft = self._snapshots.begin(self._lease)
            undo.callback(draft.abort)
            under = [self._snapshots.directory(one) for one in below]
            transparent.write(directory, under, draft.directory, self._check)
            return draft.commit()
