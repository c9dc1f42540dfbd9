"""Facts of a build that Ketch's own API asks for, as BuildKit's Dockerfile front end has them: for its provenance."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ketch.build.attest import options
from ketch.build.attest.provenance import BuildFacts
from ketch.oci import platform as platforms

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ketch.build.attest.options import AttestOptions
    from ketch.engine.model.building.builds import ImageBuild

_CONTEXT, _DOCKERFILE = "context", "dockerfile"  # names that clients' directories have there


def asked(request: ImageBuild) -> AttestOptions:
    """The attestations that a request asks for (InvalidArgument)."""
    return options.read({f"{options.PREFIX}{kind}": text for kind, text in request.attests.items()})


def of_request(request: ImageBuild, ref: str, dockerfile: str) -> BuildFacts:
    """The facts of a build that begins now; ``dockerfile``: the file's name."""
    directories = [] if request.remote else [_CONTEXT]
    if not request.remote or request.dockerfile is not None:
        directories.append(_DOCKERFILE)
    return BuildFacts(
        ref=ref,
        started=time.time_ns(),
        machine=platforms.host(),
        attrs=attributes(request, dockerfile),
        directories=directories,
    )


def attributes(request: ImageBuild, dockerfile: str) -> Mapping[str, str]:
    """The attributes of a front end that say what a request does."""
    found = {
        "filename": dockerfile,
        "target": request.target,
        "context": request.remote,
        "force-network-mode": request.network if request.network not in ("", "default") else "",
        "add-hosts": ",".join(request.hosts),
        "shm-size": str(request.shm_size or ""),
        "ulimit": ",".join(f"{one.name}={one.soft}:{one.hard}" for one in request.ulimits),
        "no-cache": ",".join(request.no_cache_filter),
    }
    found = {name: value for name, value in found.items() if value}
    if request.no_cache:
        found["no-cache"] = ""
    found |= {f"build-arg:{name}": value for name, value in request.args.items() if value is not None}
    found |= {f"label:{name}": value for name, value in request.labels.items()}
    return found | {f"context:{name}": value for name, value in request.contexts.items()}
