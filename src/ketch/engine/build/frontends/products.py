"""Results of front ends as products to be exported: one for each platform."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from ketch.build.export.product import Product
from ketch.build.tree import EMPTY
from ketch.engine.build.attests import written
from ketch.engine.build.attests.attester import ResultGraph
from ketch.engine.build.frontends import attestations
from ketch.engine.build.frontends.results import CONFIG, EPOCH, PLATFORMS, SINGLE
from ketch.errors import InvalidArgument
from ketch.notation import integers
from ketch.oci import platform as platforms
from ketch.oci.config import ImageConfig, RunConfig
from ketch.oci.config import decode as decode_config
from ketch.oci.manifest import Platform

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.build.attest.statement import Attestation
    from ketch.engine.build.attests.attester import Attester
    from ketch.engine.build.frontends.bridge import Bridge
    from ketch.engine.build.frontends.results import FrontendAttestation, FrontendResult, Ref


class ResultPlatform(msgspec.Struct):
    """One of the platforms of a result, in its metadata."""

    id: str = msgspec.field(name="ID")
    platform: Platform = msgspec.field(name="Platform")


class ResultPlatforms(msgspec.Struct):
    """All of them."""

    platforms: list[ResultPlatform] = msgspec.field(name="Platforms", default_factory=list)


async def products(
    bridge: Bridge, result: FrontendResult, attester: Attester | None = None, *, inline_cache: bool = False
) -> list[Product]:
    """The products of a result, whose graphs are solved for it (KetchError)."""
    named = _named(result)
    trees = await asyncio.gather(*(ref.tree() for _, _, ref in named))
    found = []
    for (name, platform, ref), tree in zip(named, trees, strict=True):
        suffix = f"/{name}" if SINGLE not in result.refs else ""
        given = result.attestations.get(name, ())
        keys = bridge.keys(ref)
        product = Product(
            platform=platform,
            config=_config(result, suffix, platform),
            tree=tree,
            epoch=_epoch(result, suffix),
            keys=keys,
            cache=bridge.builder.exchange.inline(keys, tree.layers) if inline_cache else None,
            attestations=await _attestations(bridge, given),
        )
        if attester is not None:
            source = ref.source() if attester.tells_steps else None
            graph = ResultGraph(
                result=ref.edge,
                pins=bridge.pins,
                source=source,
                scans=ref.scans,
                lists_packages=attestations.lists_packages(given),
                directories=bridge.directories,
            )
            product = await attester.attested(product, graph)
        found.append(product)
    return found


async def _attestations(bridge: Bridge, given: Sequence[FrontendAttestation]) -> list[Attestation]:
    """The statements of a front end about a result (KetchError)."""
    found: list[Attestation] = []
    for one in given:
        tree = await one.ref.tree() if one.ref is not None else EMPTY
        found += await asyncio.to_thread(attestations.of_frontend, bridge.builder.snapshots, one, tree)
        written.check_size(found, "attestations of a result")
    return found


def _named(result: FrontendResult) -> Sequence[tuple[str, Platform, Ref]]:
    """The results by the names of their platforms (InvalidArgument: these do not go together)."""
    known: list[ResultPlatform] = []
    if data := result.metadata.get(PLATFORMS):
        try:
            known = msgspec.json.decode(data, type=ResultPlatforms).platforms
        except (msgspec.DecodeError, UnicodeDecodeError) as e:
            raise InvalidArgument(f"failed to parse platforms passed to provenance processor: {e}") from e
    if SINGLE in result.refs:
        platform = known[0].platform if len(known) == 1 else _of_config(result)
        name = known[0].id if len(known) == 1 else platforms.text(platform)
        return [(name, platform, result.refs[SINGLE])]
    if not result.refs:
        return []
    if not known:
        raise InvalidArgument("unable to export multiple refs, missing platforms mapping")
    if len(known) != len(result.refs):
        raise InvalidArgument(f"number of platforms does not match references {len(known)} {len(result.refs)}")
    missing = next((one.id for one in known if one.id not in result.refs), None)
    if missing is not None:
        raise InvalidArgument(f"failed to find ref for ID {missing}")
    return [(one.id, one.platform, result.refs[one.id]) for one in known]


def _of_config(result: FrontendResult) -> Platform:
    data = result.metadata.get(CONFIG)
    if not data:
        return platforms.canonical(platforms.host())
    image = _decoded(data)
    return platforms.canonical(
        Platform(os=image.os or "linux", architecture=image.architecture or "", variant=image.variant)
    )


def _config(result: FrontendResult, suffix: str, platform: Platform) -> ImageConfig:
    """The configuration that a front end gives; without any an empty one."""
    data = result.metadata.get(CONFIG + suffix)
    if data:
        return _decoded(data)
    return ImageConfig(architecture=platform.architecture, os=platform.os, variant=platform.variant, config=RunConfig())


def _decoded(data: bytes) -> ImageConfig:
    try:
        return decode_config(data, made=False)
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        raise InvalidArgument(f"failed to parse image config: {e}") from e


def _epoch(result: FrontendResult, suffix: str) -> int | None:
    text = result.metadata.get(EPOCH + suffix, b"").decode("utf-8", "replace")
    try:
        return integers.signed(text) if text else None
    except integers.NotAnIntegerError as e:
        raise InvalidArgument(f"invalid SOURCE_DATE_EPOCH: {text}: {e}") from e
