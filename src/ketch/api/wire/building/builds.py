"""Builds on the wire: Docker's query of ``POST /build``, the line of ``POST /ketch/build``, the lines of its answer."""

from __future__ import annotations

import base64
import binascii
import os
from typing import TYPE_CHECKING, Any

import msgspec

from ketch.api import gojson, query
from ketch.engine.model.building import builds
from ketch.engine.model.building.builds import BuildResources, BuildUlimit, CachePlace, ImageBuild, OutputRequest
from ketch.errors import InvalidArgument, UnclassifiedArgument
from ketch.notation import integers, times
from ketch.remote.credentials import Credentials, completed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from multidict import MultiMapping

    from ketch.engine.model.building.builds import BuildEvent
    from ketch.engine.model.building.records import BuildRecord
    from ketch.notation.api_objects import ApiObject

_ISOLATIONS = ("default", "process", "hyperv")
_NUMBERS = {
    "memory": "memory",
    "memswap": "memory_swap",
    "cpushares": "cpu_shares",
    "cpuperiod": "cpu_period",
    "cpuquota": "cpu_quota",
}


def classic(asked: MultiMapping[str], config: str | None) -> ImageBuild:
    """A request in Docker's query; ``config``: the header ``X-Registry-Config`` (InvalidArgument in its words)."""
    _check(asked)
    request = ImageBuild(
        id=asked.get("buildid", ""),
        classic=True,
        tags=asked.getall("t", []),
        target=asked.get("target", ""),
        args=_json(asked, "buildargs", dict[str, str | None], "error reading build args: "),
        labels=_json(asked, "labels", dict[str, str], "error reading labels: "),
        platforms=[asked["platform"]] if asked.get("platform") else [],
        no_cache=query.flag(asked, "nocache"),
        pull=query.flag(asked, "pull"),
        network=asked.get("networkmode", ""),
        hosts=asked.getall("extrahosts", []),
        shm_size=_size(asked, "shmsize"),
        ulimits=_json(asked, "ulimits", list[BuildUlimit], "error reading ulimit settings: "),
        cgroup_parent=asked.get("cgroupparent", ""),
        resources=BuildResources(
            **{field: _number_or_zero(asked, name) for name, field in _NUMBERS.items()},
            cpuset_cpus=asked.get("cpusetcpus", ""),
            cpuset_mems=asked.get("cpusetmems", ""),
        ),
        dockerfile_path=asked.get("dockerfile") or "Dockerfile",
        remote=asked.get("remote", ""),
        credentials=_credentials(config),
        outputs=[
            _query_output(one) for one in _json(asked, "outputs", list[_QueryOutput], "invalid outputs specified: ")
        ],
        cache_from=[
            CachePlace(kind="registry", attrs={"ref": ref})
            for ref in _json(asked, "cachefrom", list[str], "error reading cache-from: ")
        ],
    )
    if not request.remote:
        request.uploads = {"context": builds.ARCHIVE}
    return request


class _QueryOutput(msgspec.Struct, rename="pascal"):
    """An output in Docker's query."""

    type: str = ""
    attrs: dict[str, str] = {}


def _query_output(one: _QueryOutput) -> OutputRequest:
    """An output that stays here (InvalidArgument: its bytes would have to go to the client, which has no way)."""
    if one.type in ("local", "tar", "oci") or one.attrs.get("dest"):
        raise InvalidArgument(
            f"output `{one.type}`: this API has no way to the client for it", hint="`ketch build --output` has one"
        )
    return OutputRequest(kind=one.type, attrs=one.attrs)


def _check(asked: MultiMapping[str]) -> None:
    """Refuse what dockerd refuses before it reads the rest."""
    isolation = asked.get("isolation", "")
    if isolation and isolation.lower() not in _ISOLATIONS:
        raise InvalidArgument(f'unsupported isolation: "{isolation}"')
    if asked.getall("securityopt", []):
        raise InvalidArgument("security options are not supported on linux")
    if query.flag(asked, "squash"):
        raise InvalidArgument("squash is only supported with experimental mode", hint="Ketch does not squash layers")


def _size(asked: Mapping[str, str], name: str) -> int:
    text = asked.get(name)
    try:
        return integers.signed(text) if text else 0
    except integers.NotAnIntegerError as e:
        raise UnclassifiedArgument(f'strconv.ParseInt: parsing "{text}": {e}', hint=f"it is `{name}`") from e


def _number_or_zero(asked: Mapping[str, str], name: str) -> int:
    """A number, and what is none counts as 0: as dockerd."""
    try:
        return integers.signed(asked.get(name, "") or "0")
    except integers.NotAnIntegerError:
        return 0


def _json(asked: Mapping[str, str], name: str, kind: Any, prefix: str) -> Any:
    """A parameter in JSON, whose nulls are nothing; an empty one is an empty value."""
    text = asked.get(name)
    if not text or text.strip() == "null":
        return kind()
    try:
        return gojson.decode(text.encode("utf-8", "surrogatepass"), kind)
    except InvalidArgument as e:
        raise InvalidArgument(prefix + e.message.removeprefix("invalid JSON: "), hint=e.hint) from e


def _credentials(header: str | None) -> dict[str, Credentials]:
    """The credentials of ``X-Registry-Config`` by host; what cannot be read are none: as with dockerd."""
    if not header:
        return {}
    try:
        raw = base64.b64decode(header + "=" * (-len(header) % 4), altchars=b"-_")
        found = msgspec.json.decode(raw, type=dict[str, Credentials] | None) or {}
        return {host: completed(one) for host, one in found.items()}
    except (binascii.Error, msgspec.DecodeError, ValueError, RecursionError, InvalidArgument):
        return {}


# -- Ketch's own ---------------------------------------------------------------------------------


class _Dockerfile(msgspec.Struct):
    name: str = "Dockerfile"
    data: bytes = b""
    ignore: bytes | None = None
    ignore_name: str = ""


class _Output(msgspec.Struct):
    type: str
    attrs: dict[str, str] = {}
    to: str = ""


class _Cache(msgspec.Struct):
    type: str
    attrs: dict[str, str] = {}


class _Line(msgspec.Struct, kw_only=True):
    """The first line of ``POST /ketch/build`` (docs/api.md)."""

    id: str = ""
    name: str = ""
    context: str = ""
    t: list[str] = []
    target: str = ""
    platforms: list[str] = []
    buildargs: dict[str, str | None] = {}
    labels: dict[str, str] = {}
    nocache: bool = False
    nocachefilter: list[str] = []
    pull: bool = False
    networkmode: str = ""
    extrahosts: list[str] = []
    shmsize: int = 0
    ulimits: list[BuildUlimit] = []
    cgroupparent: str = ""
    memory: int = 0
    memswap: int = 0
    cpushares: int = 0
    cpuperiod: int = 0
    cpuquota: int = 0
    cpusetcpus: str = ""
    cpusetmems: str = ""
    entitlements: list[str] = []
    call: str = "build"
    explain: bool = False
    keepfailed: bool = False
    attests: dict[str, str] = {}
    dockerfile: _Dockerfile | None = None
    dockerfile_path: str = "Dockerfile"
    remote: str = ""
    directories: dict[str, str] = {}
    contexts: dict[str, str] = {}
    secrets: dict[str, bytes] = {}
    ssh: dict[str, str] = {}
    auths: dict[str, Credentials] = {}
    cache_from: list[_Cache] = []
    cache_to: list[_Cache] = []
    outputs: list[_Output] = []


def own(raw: bytes, taken: Callable[[str], int]) -> ImageBuild:
    """The request of a line; ``taken`` takes over a descriptor of the client's process, named ``fd:…`` (KetchError).

    InvalidArgument.
    """
    try:
        line = msgspec.json.decode(raw, type=_Line)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as e:
        raise InvalidArgument(f"build: the first line of the body: {e}", hint="docs/api.md describes it") from e
    with _Descriptors(taken) as reader:
        return _request(line, reader)


def _request(line: _Line, reader: _Descriptors) -> ImageBuild:
    given = line.dockerfile
    fds = {name: reader.number(place) for name, place in line.directories.items() if place.startswith("fd:")}
    uploads = {name: _upload(place) for name, place in line.directories.items() if name not in fds}
    return ImageBuild(
        id=line.id,
        name=line.name,
        place=line.context,
        tags=line.t,
        target=line.target,
        args=line.buildargs,
        labels=line.labels,
        platforms=line.platforms,
        no_cache=line.nocache,
        no_cache_filter=line.nocachefilter,
        pull=line.pull,
        network=line.networkmode,
        hosts=line.extrahosts,
        shm_size=line.shmsize,
        ulimits=line.ulimits,
        cgroup_parent=line.cgroupparent,
        resources=BuildResources(
            **{field: getattr(line, name) for name, field in _NUMBERS.items()},
            cpuset_cpus=line.cpusetcpus,
            cpuset_mems=line.cpusetmems,
        ),
        entitlements=line.entitlements,
        dockerfile=builds.GivenDockerfile(name=given.name, data=given.data, ignore=given.ignore) if given else None,
        dockerfile_path=line.dockerfile_path or "Dockerfile",
        remote=line.remote,
        directories=fds,
        uploads=uploads,
        contexts=line.contexts,
        secrets=line.secrets,
        agents={name: reader.number(place) for name, place in line.ssh.items()},
        credentials={host: completed(one) for host, one in line.auths.items()},
        cache_from=[_place(one, "src", reader) for one in line.cache_from],
        cache_to=[_place(one, "dest", reader) for one in line.cache_to],
        outputs=[
            OutputRequest(kind=one.type, attrs=one.attrs, fd=reader.optional(one.to), streamed=one.to == "stream")
            for one in line.outputs
        ],
        call=line.call or "build",
        explain=line.explain,
        keep_failed=line.keepfailed,
        attests=line.attests,
    )


class _Descriptors:
    """Descriptors that a line names as ``fd:…``; those that were taken are closed if the line is refused."""

    def __init__(self, taken: Callable[[str], int]) -> None:
        self._taken = taken
        self._open: list[int] = []

    def __enter__(self) -> _Descriptors:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for fd in self._open if kind is not None else ():
            os.close(fd)

    def number(self, text: str) -> int:
        """Take over a descriptor (KetchError)."""
        self._open.append(self._taken(text))
        return self._open[-1]

    def optional(self, text: str) -> int:
        """The same; -1 for what names none."""
        return self.number(text) if text.startswith("fd:") else -1


def _place(one: _Cache, attr: str, reader: _Descriptors) -> CachePlace:
    return CachePlace(kind=one.type, attrs=one.attrs, fd=reader.optional(one.attrs.get(attr, "")))


def _upload(place: str) -> str:
    """The place of a directory in the request's tar."""
    if place == "archive":
        return builds.ARCHIVE
    name = place.removeprefix("tar:")
    if name == place or not name or "/" in name or name in (".", ".."):
        raise InvalidArgument(f"build: `{place}` is no directory", hint="write fd:N, tar:NAME or archive")
    return name


def event(found: BuildEvent) -> ApiObject:
    """A line of the answer."""
    match found:
        case builds.BuildProgress(status):
            return {"status": status}
        case builds.OutputBytes(index, data):
            return {"output": {"index": index, "data": data}}
        case builds.BuildExplanations(rows):
            return {"explain": rows}
        case builds.BuildResult():
            return {
                "result": {"image": found.image, "names": found.names, "ref": found.ref, "metadata": found.metadata}
            }
        case builds.BuildFailure():
            return {"error": found}


def row(record: BuildRecord) -> ApiObject:
    """A build in the list of those that were."""
    return {
        "ref": record.ref,
        "name": record.name,
        "target": record.target,
        "created": times.rfc3339_or_never(record.created),
        "completed": times.rfc3339_or_never(record.completed) if record.completed else None,
        "status": record.status,
        "total_steps": record.total_steps,
        "cached_steps": record.cached_steps,
        "completed_steps": record.completed_steps,
        "error": record.error,
    }


def details(record: BuildRecord) -> ApiObject:
    """All that is known of a build."""
    return row(record) | {
        "image": record.image,
        "platforms": record.platforms,
        "dockerfile": record.dockerfile,
        "context": record.context,
        "arguments": record.arguments,
        "warnings": record.warnings,
    }
