"""Requests for builds, and what a build tells while it runs and at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct, field

from ketch.remote.credentials import Credentials  # noqa: TC001 - msgspec reads the annotation at run time

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.build.cache.pruning.usage import UsageRow
    from ketch.build.progress import SolveStatus

Strings = list[str]
Texts = dict[str, str]
Numbers = dict[str, int]

ARCHIVE = ""
"""The place of a directory that is the whole of the request's tar."""


class GivenDockerfile(Struct, frozen=True, kw_only=True):
    """A Dockerfile that came with the request, with the rules of what is left out (None: it has none)."""

    name: str
    data: bytes
    ignore: bytes | None = None


class BuildUlimit(Struct, frozen=True, rename="pascal"):
    """A limit of the processes of RUN."""

    name: str = ""
    hard: int = 0
    soft: int = 0


class BuildResources(Struct, frozen=True, kw_only=True):
    """Limits of each RUN's cgroup; 0 and empty: none."""

    memory: int = 0
    memory_swap: int = 0
    cpu_shares: int = 0
    cpu_period: int = 0
    cpu_quota: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""


class OutputRequest(Struct, frozen=True, kw_only=True):
    """A product of a build: ``image``, ``docker``, ``oci``, ``local``, ``tar``, ``none``; attributes as with buildx.

    ``fd``: where its bytes go (-1: to the client's stream, if ``streamed``).
    """

    kind: str
    attrs: Texts = field(default_factory=dict)
    fd: int = -1
    streamed: bool = False


class CachePlace(Struct, frozen=True, kw_only=True):
    """A place where a cache is read from or written to: ``inline``, ``registry``, ``local``; as buildx has it."""

    kind: str
    attrs: Texts = field(default_factory=dict)
    fd: int = -1


class ImageBuild(Struct, kw_only=True):
    """All that a client asks of a build.

    ``args``: None for a name that has no value, which then is only told when nothing has declared it.
    ``directories``: open directories, which are closed at the build's end; ``uploads``: directories in the request's
    tar, by their place in it (`ARCHIVE`: all of it).  ``id``: the name by which it is cancelled.  ``classic``: it came
    by Docker's API.  ``name`` and ``place``: of the build and of its context, for the history.  ``keep_failed``: what a
    failed command left is to become an image.  ``attests``: options of attestations, by their types.
    """

    id: str = ""
    name: str = ""
    place: str = ""
    classic: bool = False
    tags: Strings = field(default_factory=list)
    target: str = ""
    args: dict[str, str | None] = field(default_factory=dict)
    labels: Texts = field(default_factory=dict)
    platforms: Strings = field(default_factory=list)
    no_cache: bool = False
    no_cache_filter: Strings = field(default_factory=list)
    pull: bool = False
    network: str = ""
    hosts: Strings = field(default_factory=list)
    shm_size: int = 0
    ulimits: list[BuildUlimit] = field(default_factory=list)
    cgroup_parent: str = ""
    resources: BuildResources = field(default_factory=BuildResources)
    entitlements: Strings = field(default_factory=list)
    dockerfile: GivenDockerfile | None = None
    dockerfile_path: str = "Dockerfile"
    remote: str = ""
    directories: Numbers = field(default_factory=dict)
    uploads: Texts = field(default_factory=dict)
    contexts: Texts = field(default_factory=dict)
    secrets: dict[str, bytes] = field(default_factory=dict)
    agents: Numbers = field(default_factory=dict)
    credentials: dict[str, Credentials] = field(default_factory=dict)
    cache_from: list[CachePlace] = field(default_factory=list)
    cache_to: list[CachePlace] = field(default_factory=list)
    outputs: list[OutputRequest] = field(default_factory=list)
    call: str = "build"
    explain: bool = False
    keep_failed: bool = False
    attests: Texts = field(default_factory=dict)

    def descriptors(self) -> list[int]:
        """The descriptors that belong to the request."""
        outputs = [one.fd for one in self.outputs]
        caches = [one.fd for one in (*self.cache_from, *self.cache_to)]
        return [*self.directories.values(), *self.agents.values(), *(fd for fd in (*outputs, *caches) if fd >= 0)]


class BuildProgress(Struct, frozen=True):
    """A change of the build's state."""

    status: SolveStatus


class OutputBytes(Struct, frozen=True):
    """Bytes of an output, which is named by its place among the request's."""

    index: int
    data: bytes


class BuildExplanation(Struct, frozen=True, kw_only=True):
    """The reason why a step was not found in the cache: a sentence, and what differs from the nearest record."""

    vertex: str
    name: str
    reason: str
    details: Strings = field(default_factory=list)


class BuildExplanations(Struct, frozen=True):
    """The explanations of a build, for which its client has asked."""

    rows: list[BuildExplanation]


class BuildResult(Struct, frozen=True, kw_only=True):
    """The end of a build that succeeded; ``image`` is empty where none was kept here.

    ``unused``: arguments that were given and nothing has declared.
    """

    image: str = ""
    names: Strings = field(default_factory=list)
    ref: str = ""
    metadata: dict[str, object] = field(default_factory=dict)
    unused: Strings = field(default_factory=list)


class BuildFailure(Struct, frozen=True, kw_only=True):
    """The end of a build that failed; ``excerpt``: the lines of the Dockerfile, ``vertex``: the step's digest.

    ``image``: the files as the failed command left them, if that was asked for.
    """

    message: str
    kind: str
    hint: str = ""
    excerpt: str = ""
    vertex: str = ""
    exit_code: int = 0
    image: str = ""


BuildEvent = BuildProgress | OutputBytes | BuildExplanations | BuildResult | BuildFailure


class CachePrune(Struct, frozen=True, kw_only=True):
    """A request to remove build cache; sizes in bytes, ``keep_ns`` since the last use, 0: no such bound.

    ``everything``: also what is shared with images, and what is kept for the builder itself.
    """

    everything: bool = False
    keep_ns: int = 0
    filters: dict[str, Strings] = field(default_factory=dict)
    reserved: int = 0
    max_used: int = 0
    min_free: int = 0


class CachePruned(Struct, frozen=True):
    """The rows that a prune has removed, and the bytes that it freed."""

    rows: Sequence[UsageRow]
    freed: int
