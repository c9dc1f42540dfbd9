"""The front end `dockerfile.v0`: a Dockerfile and a context, of the client, of another graph, or from elsewhere."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from ketch.build.dockerfile.convert.converter import convert
from ketch.build.dockerfile.convert.options import ConvertOptions, ResolvedImage
from ketch.build.dockerfile.errors import DockerfileError
from ketch.engine.build.frontends import subrequests, syntax, warnings
from ketch.engine.build.frontends.attributes import FrontendAttributes
from ketch.engine.build.frontends.contexts import FrontendContexts
from ketch.engine.build.frontends.errors import PlacedError, SourcePlace, UnsupportedCapability, lines
from ketch.engine.build.frontends.results import CONFIG, EPOCH, PLATFORMS, SINGLE, FrontendResult
from ketch.engine.build.frontends.syntax import info_of
from ketch.oci import platform as platforms
from ketch.oci.manifest import Platform

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.build.dockerfile.convert.conversion import Conversion
    from ketch.build.dockerfile.lint.report import CheckReport
    from ketch.engine.build.dockerfiles import FoundDockerfile
    from ketch.engine.build.frontends.bridge import Bridge, FrontendRequest
    from ketch.oci.config import ImageConfig

NAME = "dockerfile.v0"
_CAPABILITIES = (
    "moby.buildkit.frontend.inputs",
    "moby.buildkit.frontend.subrequests",
    "moby.buildkit.frontend.contexts",
)


async def dockerfile(bridge: Bridge, request: FrontendRequest) -> FrontendResult:
    """The result of a Dockerfile (KetchError; those of its lines are placed there)."""
    return await _DockerfileFrontend(bridge, request).run()


class _DockerfileFrontend:
    """One request."""

    def __init__(self, bridge: Bridge, request: FrontendRequest) -> None:
        self._bridge, self._request = bridge, request
        self._attrs = FrontendAttributes(request.attrs)
        self._contexts = FrontendContexts(bridge, request, self._attrs)
        self._file: FoundDockerfile | None = None
        self._images: dict[tuple[str, str], ImageConfig] = {}

    async def run(self) -> FrontendResult:
        """The result."""
        self._attrs.refuse_removed()
        for name in self._attrs.text("frontend.caps").split(","):
            plain = name.partition("+")[0]  # behind it stands who may answer in its place
            if plain and plain not in _CAPABILITIES:
                raise UnsupportedCapability(plain)
        try:
            return await self._run()
        except DockerfileError as e:
            if e.span is None or self._file is None:
                raise
            info = info_of(self._file)
            raise PlacedError(e, [SourcePlace(info, lines(span)) for span in (e.span, *e.others)]) from e

    async def _run(self) -> FrontendResult:
        self._file = file = await self._contexts.dockerfile()
        if self._attrs.given("cmdline") is None:  # else the image has been asked
            other = syntax.foreign(file, self._attrs.args().get(syntax.ARGUMENT, ""))
            if other is not None:
                return await syntax.solve(self._bridge, self._request, other, file)
        if call := self._attrs.text("requestid"):
            return subrequests.answer(call, self._attrs, file)
        await self._bridge.use_caches(self._attrs.cache_imports())
        wanted: Sequence[Platform | None] = self._attrs.platforms()
        many = self._attrs.many_platforms(len(wanted))
        options = self._options(file, many=many)
        try:
            found = await asyncio.gather(
                *(self._converted(file, msgspec.structs.replace(options, platform=one)) for one in wanted or (None,))
            )
        except DockerfileError:
            self._warned(file)
            raise
        report = self._warned(file)
        if report.error is None and (failure := report.failure()) is not None:
            raise failure
        result = FrontendResult()
        shown = []
        for platform, conversion in zip(wanted or (None,), found, strict=True):
            name = self._add(result, file, conversion, platform, many=many)
            shown.append({"ID": name, "Platform": msgspec.to_builtins(_platform_of(conversion))})
        result.metadata[PLATFORMS] = msgspec.json.encode({"Platforms": shown})
        return result

    def _add(
        self,
        result: FrontendResult,
        file: FoundDockerfile,
        conversion: Conversion,
        platform: Platform | None,
        *,
        many: bool,
    ) -> str:
        """Put a platform's result among the others; returns its name."""
        info = info_of(file)

        def places(digest: str) -> Sequence[SourcePlace]:
            return [SourcePlace(info, lines(span)) for span in conversion.places.of(digest)]

        ref = self._bridge.ref(
            conversion.edge, places, lambda edge: conversion.places.message(edge, file.name, info.data)
        )
        ref.scans = conversion.scans
        name = platforms.text(platform or _platform_of(conversion))
        suffix = f"/{name}" if many else ""
        result.refs[name if many else SINGLE] = ref
        result.metadata[CONFIG + suffix] = msgspec.json.encode(conversion.image)
        if conversion.epoch is not None:
            result.metadata[EPOCH + suffix] = str(conversion.epoch).encode()
        return name

    def _warned(self, file: FoundDockerfile) -> CheckReport:
        """The check of the file, of whose findings is told."""
        report = warnings.report(file, self._attrs, self._images)
        for one in warnings.rows(report, self._contexts.vertex, info_of(file)):
            self._bridge.warn(one)
        return report

    # -- conversion ----------------------------------------------------------------------------------

    def _options(self, file: FoundDockerfile, *, many: bool) -> ConvertOptions:
        attrs = self._attrs
        return ConvertOptions(
            target=attrs.text("target"),
            args=attrs.args(),
            labels=attrs.labels(),
            many_platforms=many,
            context=self._contexts.main(file),
            contexts={name: self._contexts.named(name, text) for name, text in attrs.contexts().items()},
            prepare=self._contexts.prepared,
            resolve_mode=attrs.resolve_mode(),
            no_cache=attrs.no_cache(),
            merges=True,
            network=attrs.network(),
            hosts=attrs.hosts(),
            hostname=attrs.text("hostname"),
            shm_size=attrs.shm_size(),
            ulimits=attrs.ulimits(),
            cgroup_parent=attrs.text("cgroup-parent"),
            cache_namespace=attrs.text("build-arg:BUILDKIT_CACHE_MOUNT_NS"),
        )

    async def _converted(self, file: FoundDockerfile, options: ConvertOptions) -> Conversion:
        return await convert(file.text, options, self)

    async def image(self, reference: str, platform: Platform) -> ResolvedImage:
        """The image of a normalized reference, for a conversion (UnresolvedImage)."""
        found = await self._bridge.image(
            reference, platform, self._attrs.resolve_mode(), self._contexts.steps.get(reference, "")
        )
        self._images[reference, platforms.text(platform)] = found.config
        return ResolvedImage(reference=found.reference, config=found.config)


def _platform_of(conversion: Conversion) -> Platform:
    image = conversion.image
    found = Platform(os=image.os or "linux", architecture=image.architecture or "", variant=image.variant)
    return platforms.canonical(found)
