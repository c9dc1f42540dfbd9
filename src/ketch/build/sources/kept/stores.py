"""All that sources keep for the next builds, and what they write meanwhile, below one directory."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ketch.build.sources.kept.repositories import GitRepositories
from ketch.build.sources.kept.versions import Versions

if TYPE_CHECKING:
    from ketch.build.sources.kept.repositories import Later


class SourceStores:
    """The repositories and the versions below ``root``; ``temporary`` is a directory that need not be there."""

    def __init__(self, root: str, later: Later) -> None:
        """``later`` runs removals in the background."""
        self.repositories = GitRepositories(os.path.join(root, "git"), later)
        self.versions = Versions(os.path.join(root, "http"))
        self.temporary = os.path.join(root, "tmp")
