"""Layers that are being written here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ketch.storage.layers.store import built_name

if TYPE_CHECKING:
    from ketch.storage.content.leases import Lease
    from ketch.storage.layers.store import Layers


class BuiltLayerDraft:
    """A layer that is being written: `commit` or `abort` it.  Blocking."""

    def __init__(self, layers: Layers, lease: Lease, path: str = "") -> None:
        """``path``: one that has been begun, or a layer that was detached, instead of an empty one."""
        self._layers, self._lease = layers, lease
        self._path = path or layers.begin()

    @property
    def directory(self) -> str:
        """The directory for its files, in the form of an overlay's upper directory."""
        return self._layers.files(self._path)

    @property
    def work(self) -> str:
        """A directory beside that one for an overlay's work; it goes with `commit`."""
        return self._layers.work(self._path)

    def commit(self) -> str:
        """Make it a layer, which never changes again, and return its id, which the lease holds."""
        path, name = self._path, built_name()
        self._lease.hold(name)
        self._layers.commit_built(path, name)
        self._path = ""
        return name

    def abort(self) -> None:
        """Remove it; of one that was committed nothing happens."""
        path, self._path = self._path, ""
        if path:
            self._layers.abort(path)
