"""Names, hosts and limits of a request for a build, checked and put into the form in which a conversion has them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ketch.build.dockerfile.convert.options import ImageContext, LocalContext, SourceContext
from ketch.build.llb import ops_pb2 as pb
from ketch.engine.build import dockerfiles
from ketch.engine.build.run import contexts
from ketch.errors import InvalidArgument
from ketch.network import files
from ketch.oci import platform as platforms
from ketch.oci import reference

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ketch.build.dockerfile.convert.options import Context
    from ketch.engine.model.building.builds import BuildResources, BuildUlimit, ImageBuild
    from ketch.oci.manifest import Platform

_NETWORKS = {"": pb.UNSET, "default": pb.UNSET, "bridge": pb.UNSET, "host": pb.HOST, "none": pb.NONE}
_CONTAINER = "container:"
_IMAGE = "docker-image://"
_LOCAL = "local:"


def platforms_of(request: ImageBuild) -> list[Platform | None]:
    """The platforms that are built for; None: the machine's (InvalidArgument)."""
    found = [platforms.canonical(platforms.named(text)) for one in request.platforms for text in one.split(",") if text]
    for one in found:
        if one.os != "linux":
            raise InvalidArgument(f"operating system is not supported: `{one.os}`", hint="Ketch builds for linux")
    unique: list[Platform | None] = []
    for one in found:
        if one not in unique:
            unique.append(one)
    return unique or [None]


def network(text: str) -> tuple[pb.NetMode, str]:
    """The network of RUN: one that BuildKit has, or the name of one of the engine's (InvalidArgument)."""
    if text == _CONTAINER:
        raise InvalidArgument("build: --network container: names no container", hint="write container:NAME")
    return _NETWORKS.get(text, pb.UNSET), "" if text in _NETWORKS else text


def hosts(written: Iterable[str]) -> list[tuple[str, str]]:
    """Names and addresses of ``--add-host`` (InvalidArgument); ``host-gateway`` is one of the executor's."""
    return [files.parse_extra_host(text) for text in written]


def ulimits(given: Iterable[BuildUlimit]) -> list[tuple[str, int, int]]:
    """Limits as (name, soft, hard) (InvalidArgument)."""
    found = []
    for one in given:
        if not one.name:
            raise InvalidArgument("build: a ulimit without a name")
        if one.hard != -1 and one.soft > one.hard:
            raise InvalidArgument(
                f"ulimit soft limit must be less than or equal to hard limit: {one.soft} > {one.hard}"
            )
        found.append((one.name, one.soft, one.hard))
    return found


def resources(given: BuildResources) -> pb.LinuxResources | None:
    """Limits of each RUN's cgroup; None: there are none."""
    found = pb.LinuxResources(
        memory=given.memory,
        memorySwap=given.memory_swap,
        cpuShares=max(0, given.cpu_shares),
        cpuPeriod=max(0, given.cpu_period),
        cpuQuota=given.cpu_quota,
        cpusetCpus=given.cpuset_cpus,
        cpusetMems=given.cpuset_mems,
    )
    return found if found.ByteSize() else None


def named_contexts(request: ImageBuild, fds: Mapping[str, int]) -> dict[str, Context]:
    """The named contexts, each by the name that a Dockerfile has for it (InvalidArgument)."""
    found: dict[str, Context] = {}
    for name, place in request.contexts.items():
        try:
            parsed = reference.parse(name)
        except InvalidArgument as e:
            raise InvalidArgument(f"invalid context name {name}: {e.message}", hint=e.hint) from e
        found[parsed.familiar_whole.removesuffix(":latest")] = _named(place, fds)
    return found


def _named(place: str, fds: Mapping[str, int]) -> Context:
    if place.startswith(_IMAGE):
        return ImageContext(reference=str(reference.parse(place.removeprefix(_IMAGE))))
    if place.startswith(_LOCAL):
        name = place.removeprefix(_LOCAL)
        return LocalContext(name=name, ignore=_rules(name, fds))
    if dockerfiles.is_git(place):
        return dockerfiles.git(place)
    if place.startswith(("http://", "https://", "oci-layout://")):
        return SourceContext(identifier=place)
    raise InvalidArgument(f"unsupported context source `{place}`", hint="docker-image://, https://, or a directory")


def _rules(name: str, fds: Mapping[str, int]) -> Sequence[str]:
    fd = fds.get(name)
    return () if fd is None else contexts.rules(fd, "Dockerfile")
