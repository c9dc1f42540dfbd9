"""Images of what failed commands of builds left, so that a person can look around in it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ketch.build.errors import CommandFailed
from ketch.build.llb.vertex import in_order
from ketch.images.made.image import built_image
from ketch.notation import times
from ketch.oci.config import History, ImageConfig, RunConfig

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ketch.build.errors import SolveError
    from ketch.build.llb.vertex import Edge, Vertex
    from ketch.images.store import ImageStore
    from ketch.storage.content.leases import Lease

_SHELL = "/bin/sh"


def keep(store: ImageStore, lease: Lease, targets: Iterable[Edge], error: SolveError) -> str:
    """Make an image without a name of the files of a failed command, and return its id; empty: there are none.

    Its containers run the command's shell, with the command's variables, directory and user.  Blocking (KetchError).
    """
    cause = error.cause
    vertices = in_order([edge.vertex for edge in targets])
    vertex = next((one for one in vertices if one.digest == error.vertex), None)
    if vertex is None or not isinstance(cause, CommandFailed) or cause.left is None:
        return ""
    image = built_image(store, lease, cause.left.root.layers, _configuration(vertex, error))
    return store.add([(image, [])])[0].id


def _configuration(vertex: Vertex, error: SolveError) -> ImageConfig:
    meta, platform = vertex.op.exec.meta, vertex.op.platform
    shell = meta.args[0] if "-c" in meta.args[1:] else _SHELL
    now = times.fixed(time.time_ns())
    created_by = " ".join(meta.args)
    layers = len(error.cause.left.root.layers) if isinstance(error.cause, CommandFailed) and error.cause.left else 0
    return ImageConfig(
        architecture=platform.Architecture,
        os=platform.OS,
        variant=platform.Variant or None,
        created=now,
        config=RunConfig(env=list(meta.env), working_dir=meta.cwd or None, user=meta.user or None, cmd=[shell]),
        history=[History(created=now, created_by=created_by, comment="as a failed command left it")] * layers,
    )
