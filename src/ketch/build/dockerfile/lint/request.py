"""The inputs of a check: arguments, target and platforms of a build, and its base images as far as they are known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ketch.oci import platform as platforms

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ketch.dockerignore import IgnoreRules
    from ketch.oci.config import RunConfig
    from ketch.oci.manifest import Platform


class BaseImage(msgspec.Struct, frozen=True):
    """An image that a stage begins with."""

    config: RunConfig
    platform: Platform


class CheckRequest(msgspec.Struct, kw_only=True):
    """The options of a build on which the evaluation of its Dockerfile depends.

    ``target``: all stages where none is named; ``base``: an image by its name and platform, None where it is not known.
    """

    target: str = ""
    args: Mapping[str, str] = {}
    build_platform: Platform = msgspec.field(default_factory=platforms.host)
    target_platform: Platform = msgspec.field(default_factory=platforms.host)
    base: Callable[[str, Platform], BaseImage | None] = lambda _name, _platform: None
    ignore: IgnoreRules | None = None
