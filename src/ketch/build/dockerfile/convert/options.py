"""Inputs of a conversion: what a client asks of a build, and who knows images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

from ketch.build.llb import ops_pb2 as pb
from ketch.oci import platform as platforms

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from ketch.build.llb.vertex import Edge
    from ketch.oci.config import ImageConfig
    from ketch.oci.manifest import Platform


class ResolvedImage(msgspec.Struct, frozen=True, kw_only=True):
    """An image that was found: the reference that its source has (with a digest where it has one), and its config."""

    reference: str
    config: ImageConfig


class ImageResolver(Protocol):
    """One who knows images."""

    async def image(self, reference: str, platform: Platform) -> ResolvedImage:
        """The image of a normalized reference, for a platform or the nearest to it (KetchError)."""
        ...


class LocalContext(msgspec.Struct, frozen=True, kw_only=True):
    """A directory of the client: its name there, what is left out of it, and attributes such as the session's."""

    name: str
    ignore: Sequence[str] = ()
    attrs: Mapping[str, str] = {}


class ImageContext(msgspec.Struct, frozen=True, kw_only=True):
    """An image as a context."""

    reference: str


class SourceContext(msgspec.Struct, frozen=True, kw_only=True):
    """Any other source: git, a URL, an OCI layout, with the configuration of its image where it is one."""

    identifier: str
    attrs: Mapping[str, str] = {}
    image: ImageConfig | None = None


class GraphContext(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a graph as a context (None: an empty directory), with its configuration where it is an image."""

    edge: Edge | None
    image: ImageConfig | None = None


Context = LocalContext | ImageContext | SourceContext | GraphContext

_MAIN = LocalContext(name="context")


class ConvertOptions(msgspec.Struct, kw_only=True):
    """The options of a build on which its graph depends.

    ``platform``: None is the machine's own; ``no_cache``: names of stages, None for no stage, nothing for all.
    """

    target: str = ""
    args: Mapping[str, str] = {}
    labels: Mapping[str, str] = {}
    platform: Platform | None = None
    build_platform: Platform = msgspec.field(default_factory=platforms.host)
    many_platforms: bool = False
    context: Context = _MAIN
    contexts: Mapping[str, Context] = {}
    prepare: Callable[[str, Context, Platform], Awaitable[Context]] | None = None
    """A last word on a named context that the target needs: what is left out of it, which image it is."""

    resolve_mode: str = "local"
    no_cache: Sequence[str] | None = None
    merges: bool = False
    """Whether COPY --link is a merge of its own layer; without it is a plain copy."""

    network: pb.NetMode = pb.UNSET
    network_name: str = ""
    """The network of those steps that ask for none: the name of one of the engine's, or `container:NAME`."""

    hosts: Sequence[tuple[str, str]] = ()
    hostname: str = ""
    shm_size: int = 0
    ulimits: Sequence[tuple[str, int, int]] = ()
    devices: Sequence[tuple[str, bool]] = ()
    """Names of devices, each with whether the build goes on without it."""

    cgroup_parent: str = ""
    resources: pb.LinuxResources | None = None
    cache_namespace: str = ""

    @property
    def target_platform(self) -> Platform:
        """The platform that is built for."""
        return self.platform or self.build_platform

    def canonical(self) -> ConvertOptions:
        """The same with platforms in the form that arguments and operations have."""
        platform = platforms.canonical(self.platform) if self.platform else None
        machine = platforms.canonical(self.build_platform)
        return msgspec.structs.replace(self, platform=platform, build_platform=machine)
