"""Stages and contexts whose packages are to be listed: as dockerd 28.5.2 understands the arguments that say so."""

from __future__ import annotations

import pytest

from tests.support.recordings.converting import converted

BASE, MID = "FROM b:1 AS base", "FROM base AS mid"
CONTEXT, STAGE = "ARG BUILDKIT_SBOM_SCAN_CONTEXT", "ARG BUILDKIT_SBOM_SCAN_STAGE"
LAST = "COPY --from=mid /b /b\nCOPY f /f"
BOTH = "--build-arg BUILDKIT_SBOM_SCAN_STAGE=true --build-arg BUILDKIT_SBOM_SCAN_CONTEXT=true"


@pytest.mark.parametrize(
    ("lines", "args", "scanned"),
    [
        ([f"{CONTEXT}=true", BASE, f"{STAGE}=true", MID, "FROM b:1"], "", {"base", "context", "mid"}),
        ([f"{STAGE}=true", BASE, MID, "FROM base AS unused", "FROM b:1"], "", {"base", "mid"}),
        ([f"{STAGE}=mid,x", f"{CONTEXT}=false", BASE, MID, "FROM b:1"], "", {"mid"}),
        ([f"{STAGE}=true", BASE, f"{STAGE}=false", MID, "FROM b:1"], "", set()),
        ([BASE, MID, f"{CONTEXT}=true", "FROM b:1", f"{STAGE}=true"], "", set()),
        ([BASE, MID, "FROM b:1", f"{CONTEXT}=true", "ENV BUILDKIT_SBOM_SCAN_STAGE=true"], "", {"context"}),
        ([BASE, STAGE, MID, "FROM b:1", CONTEXT], "", set()),
        ([BASE, STAGE, MID, "FROM b:1", CONTEXT], BOTH, {"base", "context", "mid"}),
        ([BASE, MID, "FROM b:1", CONTEXT], BOTH, {"context"}),
        ([f"{CONTEXT}=base", BASE, MID, "FROM b:1 AS last", f"{STAGE}=last,mid"], "", set()),
        (
            [f"{STAGE}=true", "FROM b:1", "FROM scratch AS mid", "FROM b:1", "COPY --from=0 /b /"],
            "",
            {"mid", "stage-0"},
        ),
    ],
)
def test_what_is_listed_beside_the_result(lines, args, scanned):
    text = "\n".join([*lines, LAST])
    result = converted({"name": "scans", "dockerfile": text, "args": args})
    assert set(result.scans.trees) == scanned
    assert (None in result.scans.trees.values()) == ("FROM scratch AS mid" in lines)
    assert result.scans.trees.get("context") is None or result.scans.trees["context"].vertex.kind == "source"


def test_the_cache_is_ignored_with_that_of_a_stage_that_is_listed():
    text = "\n".join([f"{STAGE}=mid", BASE, MID, "FROM b:1", LAST])
    for name, ignored in (("base", False), ("mid", True), ("stage-2", False)):
        row = {"name": "scans", "dockerfile": text, "args": f"--no-cache-filter {name}"}
        assert converted(row).scans.ignore_cache is ignored
