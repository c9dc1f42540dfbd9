"""``--call``: what a file offers, stages and their arguments, secrets and agents."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ketch.build.dockerfile import parser, stages

if TYPE_CHECKING:
    from ketch.build.dockerfile.errors import Span


class BuildTarget(msgspec.Struct, frozen=True, kw_only=True):
    """One stage, of which ``default`` is built where none is named."""

    name: str
    description: str
    default: bool
    base: str
    platform: str
    span: Span


class OutlineArg(msgspec.Struct, frozen=True, kw_only=True):
    """One argument that the stage, or another that it needs, takes."""

    name: str
    description: str
    value: str
    span: Span


class OutlineMount(msgspec.Struct, frozen=True, kw_only=True):
    """One secret, or one agent, that a command is given."""

    name: str
    required: bool
    span: Span


class Outline(msgspec.Struct, frozen=True, kw_only=True):
    """The inputs of one stage and of all that it needs, in the order of the file."""

    name: str
    description: str
    args: list[OutlineArg]
    secrets: list[OutlineMount]
    agents: list[OutlineMount]


def targets(text: str) -> list[BuildTarget]:
    """The stages of a file (DockerfileError)."""
    found = stages.read(parser.parse(text)).stages
    return [
        BuildTarget(
            name=stage.name,
            description=stage.start.description,
            default=stage is found[-1],
            base=stage.start.base,
            platform=stage.start.platform,
            span=stage.start.span,
        )
        for stage in found
    ]
