"""Things that a graph takes from elsewhere: images, repositories, files, clients' directories, secrets, agents.

Which commit or which bytes a source stood for is known to the solver alone (`pins`, by a vertex's digest).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from msgspec import Struct, field

from ketch.build.attest import purl
from ketch.build.attest.addresses import without_password
from ketch.build.llb import ops_pb2 as pb
from ketch.build.llb.vertex import in_order
from ketch.oci import reference
from ketch.oci.manifest import Platform

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ketch.build.llb.vertex import Edge, Vertex

_IMAGE, _LAYOUT, _LOCAL, _GIT = "docker-image", "oci-layout", "local", "git"


class Material(NamedTuple):
    """Something that a build took from elsewhere, by address and digest (algorithm, figures)."""

    uri: str
    digest: tuple[str, str]


class Captured(Struct, kw_only=True):
    """All that a graph takes from elsewhere; of secrets and agents by name, with whether it goes without them.

    ``incomplete``: there may be more, of which nothing is known; ``network``: commands may use it.
    """

    images: dict[Material, None] = field(default_factory=dict)
    repositories: dict[Material, None] = field(default_factory=dict)
    files: dict[Material, None] = field(default_factory=dict)
    directories: dict[str, None] = field(default_factory=dict)
    secrets: dict[str, bool] = field(default_factory=dict)
    agents: dict[str, bool] = field(default_factory=dict)
    network: bool = False
    incomplete: bool = False

    @property
    def materials(self) -> list[Material]:
        """Images, then repositories, then files of the web, each in the order of their addresses."""
        return [one for found in (self.images, self.repositories, self.files) for one in sorted(found)]


def capture(result: Edge | None, pins: Mapping[str, str]) -> Captured:
    """All that a result's graph takes from elsewhere."""
    found = Captured()
    for vertex in in_order([result.vertex] if result is not None else []):
        match vertex.kind:
            case "source":
                _source(found, vertex, pins.get(vertex.digest, ""))
            case "exec":
                _command(found, vertex.op.exec)
            case "build":
                found.incomplete = True
    return found


def _source(found: Captured, vertex: Vertex, pin: str) -> None:
    op = vertex.op
    kind, _, rest = op.source.identifier.partition("://")
    if kind == _LOCAL:
        found.directories[rest] = None
    elif kind == _IMAGE:
        _image(found, rest, _platform(op), pin)
    elif kind == _LAYOUT:
        name, _, digest = rest.rpartition("@")
        algorithm, _, figures = digest.partition(":")
        found.images[Material(purl.package("oci", name, digest), (algorithm, figures))] = None
    elif not pin:
        found.incomplete = True
    elif kind == _GIT:
        address = op.source.attrs.get("git.fullurl") or rest
        _, sharp, fragment = rest.partition("#")
        found.repositories[Material(without_password(address.partition("#")[0]) + sharp + fragment, ("sha1", pin))] = (
            None
        )
    else:
        algorithm, _, figures = pin.partition(":")
        found.files[Material(without_password(op.source.identifier), (algorithm, figures))] = None


def _image(found: Captured, name: str, platform: Platform | None, pin: str) -> None:
    parsed = reference.parse(name)
    digest = parsed.digest or pin
    if not digest:
        found.incomplete = True
        return
    shown = str(parsed).partition("@")[0] if parsed.tag else str(parsed)
    algorithm, _, figures = digest.partition(":")
    found.images[Material(purl.image(shown, platform), (algorithm, figures))] = None


def _platform(op: pb.Op) -> Platform | None:
    if not op.HasField("platform"):
        return None
    one = op.platform
    return Platform(os=one.OS, architecture=one.Architecture, variant=one.Variant or None)


def _command(found: Captured, command: pb.ExecOp) -> None:
    for mount in command.mounts:
        if mount.mountType == pb.SECRET:
            _note(found.secrets, mount.secretOpt.ID, optional=mount.secretOpt.optional)
        elif mount.mountType == pb.SSH:
            _note(found.agents, mount.SSHOpt.ID or "default", optional=mount.SSHOpt.optional)
    for one in command.secretenv:
        _note(found.secrets, one.ID, optional=one.optional)
    if command.network != pb.NONE:
        found.network = True


def _note(found: dict[str, bool], name: str, *, optional: bool) -> None:
    found[name] = optional and found.get(name, True)
