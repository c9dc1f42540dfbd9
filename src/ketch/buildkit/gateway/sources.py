"""Answers to front ends that ask about sources: images, commits, files of the web, images in layouts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ketch.build.sources.image import SCHEME as IMAGE
from ketch.build.sources.image import read_platform
from ketch.buildkit.gateway.policies import policies_of
from ketch.buildkit.wire.gateway import gateway_pb2 as pb
from ketch.engine.build.frontends import source_facts
from ketch.engine.build.frontends.source_facts import SourceQuestion
from ketch.errors import InvalidArgument
from ketch.oci import reference as references

if TYPE_CHECKING:
    from ketch.buildkit.gateway.served import GatewayBuild
    from ketch.engine.build.frontends.bridge import Bridge
    from ketch.oci.manifest import Platform

_LAYOUT = 1  # ResolverType: an image in a layout, else one in a registry
_ALGORITHMS = {
    pb.ChecksumRequest.CHECKSUM_ALGO_SHA256: "sha256",
    pb.ChecksumRequest.CHECKSUM_ALGO_SHA384: "sha384",
    pb.ChecksumRequest.CHECKSUM_ALGO_SHA512: "sha512",
}
_SECOND = 1_000_000_000


async def resolve_image(build: GatewayBuild, request: pb.ResolveImageConfigRequest) -> pb.ResolveImageConfigResponse:
    """An image's configuration, byte for byte, and the digest of what the reference means."""
    _add_policies(build.bridge, request)
    if request.ResolverType == _LAYOUT:
        source = pb.ResolveSourceMetaRequest().Source
        source.identifier = f"oci-layout://{request.Ref}"
        source.attrs.update({"oci.session": request.SessionID, "oci.store": request.StoreID})
        question = SourceQuestion(source, _platform(request), request.LogName)
        image = await _of_layout(build.bridge, question)
        return pb.ResolveImageConfigResponse(Digest=image.Digest, Config=image.Config, Ref=request.Ref)
    ref, image = await _of_registry(build.bridge, request.Ref, request, request.ResolveMode)
    return pb.ResolveImageConfigResponse(Digest=image.Digest, Config=image.Config, Ref=ref)


async def resolve_source(build: GatewayBuild, request: pb.ResolveSourceMetaRequest) -> pb.ResolveSourceMetaResponse:
    """The present meaning of a source; of one about which there is nothing to tell, the source alone."""
    bridge = build.bridge
    _add_policies(bridge, request)
    op = source_facts.judged(bridge, request.Source)
    answer = pb.ResolveSourceMetaResponse(Source=op)
    question = SourceQuestion(op, _platform(request), request.LogName)
    match op.identifier.partition("://")[0]:
        case "docker-image":
            mode = request.ResolveMode or op.attrs.get("image.resolvemode", "")
            ref, image = await _of_registry(
                bridge, op.identifier.removeprefix(IMAGE), request, mode, config=not request.Image.NoConfig
            )
            answer.Source.identifier = f"{IMAGE}{ref}"
            answer.Image.CopyFrom(image)
        case "oci-layout":
            answer.Image.CopyFrom(await _of_layout(bridge, question))
        case "git":
            answer.Git.CopyFrom(await _commit(bridge, question, whole=request.Git.ReturnObject))
        case "http" | "https":
            asked = request.HTTP.ChecksumRequest if request.HTTP.HasField("ChecksumRequest") else None
            answer.HTTP.CopyFrom(await _web_file(bridge, question, asked))
    return answer


def _add_policies(bridge: Bridge, request: pb.ResolveImageConfigRequest | pb.ResolveSourceMetaRequest) -> None:
    bridge.policies += [one for one in policies_of(request.SourcePolicies) if one not in bridge.policies]


def _platform(request: pb.ResolveImageConfigRequest | pb.ResolveSourceMetaRequest) -> Platform:
    return read_platform(request.Platform if request.HasField("Platform") else None)


async def _of_registry(
    bridge: Bridge,
    name: str,
    request: pb.ResolveImageConfigRequest | pb.ResolveSourceMetaRequest,
    mode: str,
    *,
    config: bool = True,
) -> tuple[str, pb.ResolveSourceImageResponse]:
    found = await bridge.image(str(references.parse(name)), _platform(request), mode, request.LogName)
    digest = references.parse(found.reference).digest or found.manifest
    data = await bridge.config_of(found) if config else b""
    return found.reference, pb.ResolveSourceImageResponse(Digest=digest, Config=data)


async def _of_layout(bridge: Bridge, question: SourceQuestion) -> pb.ResolveSourceImageResponse:
    found = await source_facts.layout_image(bridge.builder.sources, bridge.session, bridge.tell, question)
    return pb.ResolveSourceImageResponse(Digest=references.parse(found.reference).digest, Config=found.data)


async def _commit(bridge: Bridge, question: SourceQuestion, *, whole: bool) -> pb.ResolveSourceGitResponse:
    """A commit; where an annotated tag leads to it, ``Checksum`` is the tag's."""
    found, objects = await source_facts.commit(bridge, question, whole=whole)
    return pb.ResolveSourceGitResponse(
        Checksum=found.tag or found.commit,
        Ref=found.reference,
        CommitChecksum=found.commit if found.tag else "",
        CommitObject=objects.commit if objects else b"",
        TagObject=objects.tag if objects else b"",
    )


async def _web_file(
    bridge: Bridge, question: SourceQuestion, asked: pb.ChecksumRequest | None
) -> pb.ResolveSourceHTTPResponse:
    algorithm = _ALGORITHMS.get(asked.Algo, "") if asked is not None else ""
    if asked is not None and not algorithm:
        raise InvalidArgument(f"unknown checksum algorithm {asked.Algo}", hint="ask for SHA256, SHA384 or SHA512")
    found = await source_facts.web_file(bridge, question, algorithm, asked.Suffix if asked is not None else b"")
    answer = pb.ResolveSourceHTTPResponse(Checksum=found.checksum, Filename=found.name)
    if found.modified:
        answer.LastModified.seconds = found.modified // _SECOND
    if asked is not None:
        answer.ChecksumResponse.Digest, answer.ChecksumResponse.Suffix = found.other, asked.Suffix
    return answer
