"""Provenance: how a result came about, in SLSA's form (v1, or v0.2), with the fields that BuildKit gives it.

``min`` tells who built, when, and of what; ``max`` adds arguments and labels, the names of secrets, the steps with the
lines that they come from, and their layers.  (BuildKit's docs/attestations/slsa-definitions.md.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from ketch.build.attest import graph
from ketch.build.attest.addresses import without_password
from ketch.build.attest.options import MAX, MIN, V1, ProvenanceOptions
from ketch.build.attest.statement import PROVENANCE_V02, PROVENANCE_V1, Attestation
from ketch.notation import times
from ketch.oci import platform as platforms

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ketch.build.attest.capture import Captured, Material
    from ketch.build.llb import ops_pb2 as pb
    from ketch.build.llb.vertex import Edge
    from ketch.oci.manifest import Descriptor, Platform

_BUILD_TYPE = "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md"
_BUILD_TYPE_V02 = "https://mobyproject.org/buildkit@v1"
_V02 = f"{_BUILD_TYPE_V02}#"  # before the names of BuildKit's own fields
_OF_ONE_MACHINE = frozenset(("cgroup-parent", "image-resolve-mode", "platform", "cache-imports", "cache-from"))
_VCS = "vcs:"
_NOT_IN_MIN = ("build-arg:", "label:")


class BuildFacts(Struct, frozen=True, kw_only=True):
    """The facts of one build: its front end with its attributes, which tell what was asked for, and when it began.

    ``started`` in ns since 1970; ``machine``: the platform that it was built on; ``directories``: those of the client
    that were read beside what the graph takes.
    """

    ref: str
    started: int
    machine: Platform
    frontend: str = "dockerfile.v0"
    attrs: Mapping[str, str] = {}
    directories: Sequence[str] = ()


class Provenance(Struct, frozen=True, kw_only=True):
    """All that there is to tell of a result; ``source``: the lines of its steps."""

    options: ProvenanceOptions
    facts: BuildFacts
    captured: Captured
    result: Edge | None = None
    source: pb.Source | None = None

    def attestation(self, finished: int, layers: Mapping[Edge, Sequence[Sequence[Descriptor]]]) -> Attestation:
        """The attestation, of a build that has ended; ``layers``: those of outputs, lowest first, in each form."""
        told = _Told(self, finished, layers)
        predicate = told.v1() if self.options.version == V1 else told.v02()
        return Attestation(
            predicate_type=PROVENANCE_V1 if self.options.version == V1 else PROVENANCE_V02,
            predicate=msgspec.json.encode(predicate),
            path=self.options.filename,
            inline_only=self.options.inline_only,
        )


class _Told:
    """The parts of a predicate, which its two forms put together in two ways."""

    def __init__(self, about: Provenance, finished: int, layers: Mapping[Edge, Sequence[Sequence[Descriptor]]]) -> None:
        self._about, self._captured, facts = about, about.captured, about.facts
        self._directories = {*facts.directories, *about.captured.directories}
        self._started, self._finished = times.rfc3339(facts.started), times.rfc3339(finished)
        attrs = {name: without_password(value) for name, value in facts.attrs.items() if not _left_out(name)}
        self._vcs = {n.removeprefix(_VCS): attrs.pop(n) for n in list(attrs) if n.startswith(_VCS)}
        self._address = attrs.pop(attrs.get("contextkey") or "context", "")
        self._path = attrs.pop("filename", "")
        self._whole = bool(facts.frontend)
        if about.options.mode == MIN:
            kept = {name: value for name, value in attrs.items() if not name.startswith(_NOT_IN_MIN)}
            self._whole = self._whole and len(kept) == len(attrs)
            attrs = kept
        self._args = attrs
        self._config: dict[str, Any] | None = None
        self._extra = self._metadata(layers)

    def _metadata(self, layers: Mapping[Edge, Sequence[Sequence[Descriptor]]]) -> dict[str, Any]:
        """BuildKit's own metadata, beyond SLSA."""
        extra: dict[str, Any] = {}
        if vcs := {name: value for name, value in self._vcs.items() if value}:
            extra["vcs"] = dict(sorted(vcs.items()))
        about = self._about
        if about.options.mode != MAX or about.result is None:
            return extra
        steps = graph.steps(about.result)
        self._config = steps.config()
        if about.source is not None and about.source.infos:
            extra["source"] = graph.source_map(steps, about.source)
        shown = {steps.output(e): forms for e, forms in layers.items() if e.vertex.digest in steps.numbers}
        if shown:
            extra["layers"] = dict(sorted(shown.items()))
        return extra

    @property
    def _complete(self) -> bool:
        """Whether all materials are known: what is in clients' directories is not."""
        return not (self._captured.incomplete or self._directories)

    @property
    def _hermetic(self) -> bool:
        return self._complete and not self._captured.network

    def _request(self) -> dict[str, Any]:
        request: dict[str, Any] = {"frontend": self._about.facts.frontend, "args": dict(sorted(self._args.items()))}
        if self._about.options.mode == MAX:
            for name, found in (("secrets", self._captured.secrets), ("ssh", self._captured.agents)):
                request[name] = [
                    {"id": one, "optional": True} if optional else {"id": one}
                    for one, optional in sorted(found.items())
                ]
        request["locals"] = [{"name": name} for name in sorted(self._directories)]
        return {name: value for name, value in request.items() if value}

    def _config_source(self, path: str) -> dict[str, Any]:
        """The origin of the build's definition: an address, if any, and the file's name there, by the key ``path``."""
        found: dict[str, Any] = {}
        if self._address:
            found["uri"] = self._address
            known = [one for one in self._captured.materials if one.uri == self._address]
            if known:
                found["uri"], found["digest"] = known[0].uri, _digest(known[0])
        if self._path:
            found[path] = self._path
        return found

    def v1(self) -> dict[str, Any]:
        """The predicate of SLSA v1."""
        machine = platforms.text(platforms.normalize(self._about.facts.machine))
        inner: dict[str, Any] = {"buildConfig": self._config} if self._config else {}
        metadata: dict[str, Any] = {
            "invocationId": self._about.facts.ref,
            "startedOn": self._started,
            "finishedOn": self._finished,
            "buildkit_metadata": self._extra,
            "buildkit_completeness": {"request": self._whole, "resolvedDependencies": self._complete},
        }
        if self._hermetic:
            metadata["buildkit_hermetic"] = True
        if self._about.options.reproducible:
            metadata["buildkit_reproducible"] = True
        return {
            "buildDefinition": {
                "buildType": _BUILD_TYPE,
                "externalParameters": {"configSource": self._config_source("path"), "request": self._request()},
                "internalParameters": {"builderPlatform": machine, **inner},
                "resolvedDependencies": self._materials(),
            },
            "runDetails": {"builder": {"id": self._about.options.builder_id}, "metadata": metadata},
        }

    def v02(self) -> dict[str, Any]:
        """The predicate of SLSA v0.2."""
        machine = platforms.text(platforms.normalize(self._about.facts.machine))
        metadata: dict[str, Any] = {
            "buildInvocationID": self._about.facts.ref,
            "buildStartedOn": self._started,
            "buildFinishedOn": self._finished,
            "completeness": {"parameters": self._whole, "environment": True, "materials": self._complete},
            "reproducible": self._about.options.reproducible,
            f"{_V02}metadata": self._extra,
        }
        if self._hermetic:
            metadata[f"{_V02}hermetic"] = True
        found: dict[str, Any] = {
            "builder": {"id": self._about.options.builder_id},
            "buildType": _BUILD_TYPE_V02,
            "materials": self._materials(),
            "invocation": {
                "configSource": self._config_source("entryPoint"),
                "parameters": self._request(),
                "environment": {"platform": machine},
            },
        }
        if self._config:
            found["buildConfig"] = self._config
        return {**found, "metadata": metadata}

    def _materials(self) -> list[dict[str, Any]]:
        return [{"uri": one.uri, "digest": _digest(one)} for one in self._captured.materials]


def _digest(one: Material) -> dict[str, str]:
    return dict([one.digest])


def _left_out(name: str) -> bool:
    return name in _OF_ONE_MACHINE or name.startswith("attest:")
