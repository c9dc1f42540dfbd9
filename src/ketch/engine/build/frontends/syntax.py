"""Front ends that a Dockerfile asks for (``# syntax=IMAGE``), or its client by an argument."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ketch.build.dockerfile import directives
from ketch.build.llb import ops_pb2 as pb
from ketch.engine.build.frontends.errors import PlacedError, SourcePlace, lines
from ketch.errors import KetchError

if TYPE_CHECKING:
    from ketch.build.dockerfile.errors import Span
    from ketch.engine.build.dockerfiles import FoundDockerfile
    from ketch.engine.build.frontends.bridge import Bridge, FrontendRequest
    from ketch.engine.build.frontends.results import FrontendResult

ARGUMENT = "BUILDKIT_SYNTAX"
_ATTRIBUTE = f"build-arg:{ARGUMENT}"
_GATEWAY = "gateway.v0"
_OWN = "docker/dockerfile"


class ForeignSyntax(msgspec.Struct, frozen=True, kw_only=True):
    """The image that is to read a file, with its options; where the file says so (None: its client does)."""

    image: str
    command: str
    span: Span | None


def foreign(file: FoundDockerfile, given: str) -> ForeignSyntax | None:
    """The image that is to read a file; None: the engine's own front end does.  ``given``: by the client."""
    directive = directives.syntax(file.text)
    command = given or (directive.value if directive else "")
    image = next(iter(command.split()), "")
    repository = image.partition("@")[0].rpartition(":")[0] or image
    if not image or repository.removeprefix("docker.io/").removesuffix("-upstream") == _OWN:
        return None
    return ForeignSyntax(image=image, command=command, span=directive.span if directive and not given else None)


async def solve(
    bridge: Bridge, request: FrontendRequest, syntax: ForeignSyntax, file: FoundDockerfile
) -> FrontendResult:
    """The result of that image (KetchError)."""
    attrs = {**request.attrs, "source": syntax.image, "cmdline": syntax.command}
    attrs.pop(_ATTRIBUTE, None)
    try:
        return await bridge.solve(msgspec.structs.replace(request, frontend=_GATEWAY, attrs=attrs, definition=None))
    except PlacedError:
        raise
    except KetchError as e:
        if syntax.span is None:
            e.message = f"failed with {_ATTRIBUTE} = {syntax.command}: {e.message}"
            raise
        raise PlacedError(e, [SourcePlace(info_of(file), lines(syntax.span))]) from e


def info_of(file: FoundDockerfile) -> pb.SourceInfo:
    """The file, as errors and graphs name it."""
    return pb.SourceInfo(filename=file.name, data=file.text.encode("utf-8", "surrogateescape"), language="Dockerfile")
