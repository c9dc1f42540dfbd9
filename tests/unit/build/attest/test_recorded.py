"""Provenance of a Dockerfile, compared with what dockerd 28.5.2 told of the same one.

``tests/data/build-provenance.json`` has its statements by the options of ``--attest type=provenance``, of a build with
buildx 0.29 and ``-t img:1 --secret id=s,… --build-arg A=q --label l=m`` (the last without labels and a name).
"""

from __future__ import annotations

import asyncio
import json
import pathlib

import pytest

from ketch.build.attest import options, purl
from ketch.build.attest.capture import capture
from ketch.build.attest.provenance import BuildFacts, Provenance
from ketch.build.dockerfile.convert.converter import convert
from ketch.build.dockerfile.convert.options import ConvertOptions, ResolvedImage
from ketch.notation import moments
from ketch.oci import platform as platforms
from ketch.oci.attestation import subject
from ketch.oci.config import ImageConfig, RootFS, RunConfig
from ketch.oci.manifest import Descriptor
from tests.support.recordings import conversions

RECORDED = json.loads((pathlib.Path(__file__).parents[3] / "data" / "build-provenance.json").read_text())
AMD64 = platforms.parse("linux/amd64")
DIGEST = "sha256:fbe8934d03e6ccd35b0a2b107e925edce5c203885da5bb09dafc035caee2e688"


class Images:
    async def image(self, name, platform):
        config = ImageConfig(
            architecture="amd64", os="linux", config=RunConfig(env=[conversions.PATH]), rootfs=RootFS(diff_ids=["x"])
        )
        return ResolvedImage(reference=f"{name}@{DIGEST}", config=config)


def without_what_differs(statement, extra, config):
    """A statement without what each build has its own: digests of the session's sources, of layers here, times."""
    extra.pop("layers", None)
    for info in extra.get("source", {}).get("infos", []):
        info.pop("llbDefinition", None)  # the graph that brought the Dockerfile; Ketch is given it
        info.pop("digestMapping", None)
    if config:
        config["digestMapping"] = sorted(config["digestMapping"].values())
    return statement


def parts(statement):
    """BuildKit's own metadata, and the steps."""
    told = statement["predicate"]
    if "buildDefinition" in told:
        inner = told["buildDefinition"]["internalParameters"]
        return told["runDetails"]["metadata"]["buildkit_metadata"], inner.get("buildConfig")
    return told["metadata"]["https://mobyproject.org/buildkit@v1#metadata"], told.get("buildConfig")


@pytest.mark.parametrize("text", RECORDED["statements"])
def test_the_same_statement(text):
    theirs = RECORDED["statements"][text]
    named = bool(theirs["subject"])
    args, labels = (RECORDED["args"], RECORDED["labels"]) if named else ({}, {})
    wanted = ConvertOptions(build_platform=AMD64, args=args, labels=labels)
    found = asyncio.run(convert(RECORDED["dockerfile"], wanted, Images()))
    metadata = theirs["predicate"].get("metadata") or theirs["predicate"]["runDetails"]["metadata"]
    started, finished = (
        metadata.get(one) or metadata[f"build{one[0].upper()}{one[1:]}"] for one in ("startedOn", "finishedOn")
    )
    attrs = {f"build-arg:{name}": value for name, value in args.items()}
    attrs |= {f"label:{name}": value for name, value in labels.items()}
    facts = BuildFacts(
        ref=metadata.get("invocationId") or metadata["buildInvocationID"],
        started=moments.rfc3339(started),
        machine=AMD64,
        attrs={**attrs, "filename": "Dockerfile"},
        directories=["context", "dockerfile"],
    )
    provenance = Provenance(
        options=options.read({"attest:provenance": text}).provenance,
        facts=facts,
        captured=capture(found.edge, {}),
        result=found.edge,
        source=found.places.message(found.edge, "Dockerfile", RECORDED["dockerfile"].encode()),
    )
    layer = Descriptor(media_type="application/vnd.oci.image.layer.v1.tar", digest=DIGEST, size=1)
    attestation = provenance.attestation(moments.rfc3339(finished), {found.edge: [[layer]]})
    image = "sha256:" + (theirs["subject"][0]["digest"]["sha256"] if named else "")
    subjects = [subject(purl.image("docker.io/library/img:1", AMD64), image)] if named else []
    ours = json.loads(attestation.statement(subjects))
    extra, config = parts(ours)
    assert ("layers" in extra) == ("layers" in parts(theirs)[0])
    theirs = json.loads(json.dumps(theirs))
    assert without_what_differs(ours, extra, config) == without_what_differs(theirs, *parts(theirs))
