"""Warnings of a Dockerfile while it is built: the rules of ``--check``, told with their lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ketch import dockerignore
from ketch.build.dockerfile.lint.check import check
from ketch.build.dockerfile.lint.request import BaseImage, CheckRequest
from ketch.build.progress import VertexWarning
from ketch.errors import InvalidArgument
from ketch.oci import platform as platforms
from ketch.oci import reference
from ketch.oci.config import RunConfig
from ketch.oci.manifest import Platform

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ketch.build.dockerfile.lint.report import CheckReport
    from ketch.build.llb import ops_pb2 as pb
    from ketch.engine.build.dockerfiles import FoundDockerfile
    from ketch.engine.build.frontends.attributes import FrontendAttributes
    from ketch.oci.config import ImageConfig

    Images = Mapping[tuple[str, str], ImageConfig]
    """Configurations of images that were found, by reference and platform."""

_LEVEL = 1


def report(file: FoundDockerfile, attrs: FrontendAttributes, images: Images) -> CheckReport:
    """The check of a file that is built with these attributes, upon these images."""
    wanted = attrs.platforms()
    request = CheckRequest(
        target=attrs.text("target"),
        args=attrs.args(),
        target_platform=wanted[0] if wanted else platforms.host(),
        base=lambda name, platform: _base(images, name, platform),
        ignore=dockerignore.IgnoreRules(file.ignore),
    )
    return check(file.text, request, attrs.text("build-arg:BUILDKIT_DOCKERFILE_CHECK"))


def rows(found: CheckReport, vertex: str, info: pb.SourceInfo) -> list[VertexWarning]:
    """The warnings of a check, as progress has them; ``vertex``: the step that has read the file."""
    source = {"filename": info.filename, "data": msgspec.to_builtins(info.data), "language": info.language}
    return [
        VertexWarning(
            vertex=vertex,
            level=_LEVEL,
            short=f"{one.rule.name}: {one.message} (line {one.span.start})".encode("utf-8", "surrogateescape"),
            detail=[one.rule.description.encode()],
            url=one.rule.url,
            source_info=source,
            range=[
                {"start": {"line": number}, "end": {"line": number}}
                for number in range(one.span.start, one.span.end + 1)
            ],
        )
        for one in found.findings
    ]


def _base(images: Images, name: str, platform: Platform) -> BaseImage | None:
    """An image by its name in a Dockerfile and its platform; None where it was not found."""
    try:
        config = images.get((str(reference.parse(name)), platforms.text(platform)))
    except InvalidArgument:
        return None
    if config is None:
        return None
    own = Platform(os=config.os, architecture=config.architecture, variant=config.variant)
    return BaseImage(config.config or RunConfig(), own)
