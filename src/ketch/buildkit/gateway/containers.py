"""Containers of front ends as LLBBridge makes and shows them; their processes are in `processes`."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

from ketch.build.sources.image import read_platform
from ketch.build.tree import EMPTY
from ketch.buildkit.gateway import stats
from ketch.buildkit.wire.gateway import gateway_pb2 as pb
from ketch.engine.build.frontends import files
from ketch.engine.build.frontends.containers import ContainerMount, ContainerOptions

if TYPE_CHECKING:
    from ketch.build.llb import ops_pb2
    from ketch.build.tree import Tree
    from ketch.buildkit.gateway.served import GatewayBuild
    from ketch.storage.archive.owners import Owners


async def new(build: GatewayBuild, request: pb.NewContainerRequest) -> pb.NewContainerResponse:
    """Make a container over results, and over what a failed step left."""
    options = ContainerOptions(
        mounts=[ContainerMount(mount, await _tree(build, mount)) for mount in request.Mounts],
        network=request.Network,
        hostname=request.hostname,
        hosts=[(one.Host, one.IP) for one in request.extraHosts],
        platform=read_platform(request.platform) if request.HasField("platform") else None,
    )
    await build.containers.make(request.ContainerID, options)
    return pb.NewContainerResponse()


async def _tree(build: GatewayBuild, mount: ops_pb2.Mount) -> Tree:
    if not mount.resultID:
        return EMPTY
    left = build.left(mount.resultID)
    if left is not None:
        return left
    ref = build.ref(mount.resultID)
    return await ref.tree() if ref is not None else EMPTY


async def release(build: GatewayBuild, request: pb.ReleaseContainerRequest) -> pb.ReleaseContainerResponse:
    """End a container."""
    await build.containers.release(request.ContainerID)
    return pb.ReleaseContainerResponse()


async def read_file(build: GatewayBuild, request: pb.ReadFileRequest) -> pb.ReadFileResponse:
    """Bytes of a file in a container's mount."""
    part = request.Range

    def look(root: int, top: str, _owners: Owners | None) -> bytes:
        return files.read(root, _below(top, request.FilePath), part.Offset, part.Length)

    return pb.ReadFileResponse(Data=await build.containers.find(request.Ref).looked(request.MountIndex, look))


async def read_directory(build: GatewayBuild, request: pb.ReadDirRequest) -> pb.ReadDirResponse:
    """The entries of a directory there."""

    def look(root: int, top: str, owners: Owners | None) -> list[files.TreeFile]:
        return files.directory(root, _below(top, request.DirPath), request.IncludePattern, owners)

    found = await build.containers.find(request.Ref).looked(request.MountIndex, look)
    return pb.ReadDirResponse(entries=[stats.of(one) for one in found])


async def status(build: GatewayBuild, request: pb.StatFileRequest) -> pb.StatFileResponse:
    """The status of a file there."""

    def look(root: int, top: str, owners: Owners | None) -> files.TreeFile:
        return files.status(root, _below(top, request.Path), owners)

    found = await build.containers.find(request.Ref).looked(request.MountIndex, look)
    return pb.StatFileResponse(stat=stats.of(found))


def _below(top: str, path: str) -> str:
    return posixpath.join(top, path.lstrip("/"))
