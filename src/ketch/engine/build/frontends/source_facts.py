"""Facts about sources that front ends ask for, without files: commits, files of the web, images in layouts."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from ketch.build import policy
from ketch.build.dockerfile.convert.options import SourceContext
from ketch.build.llb import ops_pb2 as pb
from ketch.build.llb.operations import source
from ketch.build.sources.git import GitObjects, GitSource, ResolvedCommit
from ketch.build.sources.image import platform_message
from ketch.build.sources.layout import SCHEME as LAYOUT
from ketch.build.sources.layout import LayoutSource
from ketch.engine.build.frontends import files
from ketch.engine.build.phases import phase
from ketch.runtime.rootfs import paths

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ketch.build.dockerfile.convert.options import Context
    from ketch.build.llb.vertex import Edge
    from ketch.build.progress import SolveStatus
    from ketch.build.providers import BuildSession, FoundImage
    from ketch.build.sources.sources import Sources
    from ketch.engine.build.frontends.bridge import Bridge
    from ketch.engine.build.phases import Phase
    from ketch.oci.manifest import Platform
    from ketch.storage.content.leases import Lease

_PIECE = 1 << 20


class SourceQuestion(NamedTuple):
    """A source that is asked about; ``name`` is what the step is called."""

    op: pb.SourceOp
    platform: Platform
    name: str = ""


class WebFile(NamedTuple):
    """A file of the web: its name, its digest, when it changed (ns, 0 where that is not known).

    ``other``: the digest by another algorithm, of the content and a suffix.
    """

    name: str
    checksum: str
    modified: int
    other: str


class _Lookup:
    """A look-up at work (`operation.Work`), told as a step."""

    def __init__(self, session: BuildSession, lease: Lease, step: Phase) -> None:
        self.sessions, self.lease, self._step = (session,), lease, step

    @property
    def log(self) -> _Lookup:
        return self

    def pin(self, found: str) -> None:
        """Nothing: the step that uses the source pins it."""

    def write(self, stream: int, data: bytes) -> None:
        """Nothing: the step that uses the source says it again."""

    def status(self, name: str, current: int, total: int = 0, *, done: bool = False) -> None:
        """Tell how far a part is."""
        del done
        self._step.status(name, current, total)

    def warn(self, text: str) -> None:
        """Nothing: the step that uses the source says it again."""


def judged(bridge: Bridge, op: pb.SourceOp) -> pb.SourceOp:
    """The source that takes its place by the policies of the build (PermissionDenied)."""
    return policy.judged(op, bridge.policies) if bridge.policies else op


async def commit(bridge: Bridge, asked: SourceQuestion, *, whole: bool) -> tuple[ResolvedCommit, GitObjects | None]:
    """The commit of a repository, also as git keeps it if it is wanted ``whole`` (KetchError)."""
    operation = bridge.builder.sources.operation(_edge(asked).vertex)
    assert isinstance(operation, GitSource)
    with phase(asked.name or f"[internal] resolve {asked.op.identifier}", bridge.tell) as step:
        work = _Lookup(bridge.session, bridge.lease, step)
        found = await operation.resolved(work)
        return found, await operation.objects(work) if whole else None


async def web_file(bridge: Bridge, asked: SourceQuestion, algorithm: str = "", suffix: bytes = b"") -> WebFile:
    """A file of the web, which is downloaded: a step that takes it finds it then (KetchError)."""
    ref = bridge.ref(_edge(asked))

    def look(root: int) -> WebFile:
        (found,) = files.directory(root, "/")
        plain, more = hashlib.sha256(), hashlib.new(algorithm) if algorithm else None
        fd = paths.open_regular(root, found.path)
        if fd >= 0:  # else it is empty
            with open(fd, "rb") as file:
                while piece := file.read(_PIECE):
                    plain.update(piece)
                    if more is not None:
                        more.update(piece)
        if more is not None:
            more.update(suffix)
        return WebFile(
            found.path,
            f"sha256:{plain.hexdigest()}",
            found.status.st_mtime_ns,
            f"{algorithm}:{more.hexdigest()}" if more is not None else "",
        )

    return await bridge.looked(ref, look)


async def layout_image(
    sources: Sources, session: BuildSession, tell: Callable[[SolveStatus], None], asked: SourceQuestion
) -> FoundImage:
    """An image in a layout of the client (KetchError)."""
    operation = sources.operation(_edge(asked).vertex)
    assert isinstance(operation, LayoutSource)
    with phase(asked.name or f"[internal] load metadata for {asked.op.identifier}", tell):
        return await operation.image([session])


async def with_image(
    context: Context,
    name: str,
    platform: Platform,
    sources: Sources,
    session: BuildSession,
    tell: Callable[[SolveStatus], None],
) -> Context:
    """A named context with the configuration of the image that it is, if it is one in a layout (KetchError)."""
    if not isinstance(context, SourceContext) or not context.identifier.startswith(LAYOUT):
        return context
    shown = f"[context {name}] load metadata for {context.identifier.removeprefix(LAYOUT)}"
    op = pb.SourceOp(identifier=context.identifier, attrs=context.attrs)
    found = await layout_image(sources, session, tell, SourceQuestion(op, platform, shown))
    return msgspec.structs.replace(context, image=found.config)


def _edge(asked: SourceQuestion) -> Edge:
    attrs: Mapping[str, str] = dict(asked.op.attrs)
    return source(asked.op.identifier, attrs, platform_message(asked.platform), pb.OpMetadata())
