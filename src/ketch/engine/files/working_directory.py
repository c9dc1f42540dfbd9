"""A container's working directory, which exists from its creation on (for ``cp`` into it, and ``diff``)."""

from __future__ import annotations

import functools
import logging
import os
from typing import TYPE_CHECKING, cast

from ketch.errors import RuntimeFailure, UnclassifiedArgument
from ketch.runtime.rootfs import overlay, paths, root

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.runtime.oci_types import OciMount
    from ketch.storage.snapshots.overlay import Snapshots

log = logging.getLogger(__name__)


def is_missing(snapshots: Snapshots, chain_ids: Sequence[str], path: str) -> bool:
    """Whether the image lacks the directory (UnclassifiedArgument: something else is there); blocking."""
    if path in ("", "/"):
        return False
    return not chain_ids or _image_lacks(tuple(snapshots.view(chain_ids)), path)


@functools.lru_cache(maxsize=256)  # layers never change
def _image_lacks(view: tuple[str, ...], path: str) -> bool:
    root_fd = overlay.open_overlay(list(view))
    try:
        os.close(paths.open_in(root_fd, path, paths.O_PATH | os.O_DIRECTORY))
    except FileNotFoundError:
        return True
    except NotADirectoryError as e:
        raise UnclassifiedArgument(f"Cannot mkdir: {path} is not a directory") from e
    finally:
        os.close(root_fd)
    return False


def make(snapshots: Snapshots, container_id: str, chain_ids: Sequence[str], path: str) -> None:
    """Make the directory in a container that does not run, for root and readable by all; blocking.

    A failure is logged: the start makes what is missing, and says what is in its way.
    """
    mounts = cast("list[OciMount]", snapshots.mounts(container_id, chain_ids))
    try:
        root_fd = root.open_root(mounts[0])
        try:
            os.close(paths.make_dirs(root_fd, path))
        finally:
            os.close(root_fd)
    except (OSError, RuntimeFailure) as e:
        log.warning("make the working directory of container %s: %s", container_id[:12], e)
