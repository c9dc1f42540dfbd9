"""The build cache as buildx and docker list and prune it, the same for both engines."""

from __future__ import annotations

import json

import pytest

MIB = 1 << 20


@pytest.fixture
def built(engine, tmp_path):
    """A build without an image: two layers of its own (3 and 2 MiB), a cache mount of 3 MiB, a context."""
    engine.docker("buildx", "prune", "-af")
    (tmp_path / "f").write_text("hello")
    (tmp_path / "Dockerfile").write_text(
        "FROM busybox\n"
        "RUN --mount=type=cache,target=/c dd if=/dev/zero of=/f bs=1M count=3 && cp /f /c/\n"
        "RUN dd if=/dev/zero of=/g bs=1M count=2\n"
        "COPY f /f2\n"
    )
    engine.docker("buildx", "build", "--no-cache", "--output=type=cacheonly", str(tmp_path), timeout=60)
    yield tmp_path
    engine.docker("buildx", "prune", "-af")


def listed(engine, *words: str) -> list[dict]:
    out = engine.docker("buildx", "du", "--format=json", *words).out
    return [json.loads(line) for line in out.splitlines() if line.startswith("{")]


def kinds(engine, *words: str) -> set[str]:
    return {one["Type"] for one in listed(engine, *words)}


def pruned(engine, *words: str) -> str:
    """The space that a prune made."""
    last = engine.docker("buildx", "prune", "-f", *words).out.splitlines()[-1]
    return last.removeprefix("Total:").strip()


def test_what_is_listed(engine, built):
    assert kinds(engine) == {"regular", "source.local", "exec.cachemount"}
    assert kinds(engine, "--filter=type=source.local") == {"source.local"}
    assert kinds(engine, "--filter=type!=regular") == {"source.local", "exec.cachemount"}
    (mount,) = listed(engine, "--filter=type=exec.cachemount")
    assert (mount["Mutable"], mount["Reclaimable"], mount["Shared"]) == (True, True, False)
    assert "cached mount /c" in mount["Description"]
    assert [one["Size"] for one in listed(engine, f"--filter=id={mount['ID']}")] == [mount["Size"]]
    assert mount["Size"].startswith("3.1")
    (step,) = listed(engine, "--filter=description~=COPY")
    (parent,) = listed(engine, f"--filter=id={step['Parents'][0]}")
    assert parent["Size"].startswith("2.")
    assert listed(engine, "--filter=description=nothing") == []
    verbose = engine.docker("buildx", "du", "--verbose", f"--filter=id={mount['ID']}").out
    assert "Type:         exec.cachemount\n" in verbose or "Type:\t\texec.cachemount\n" in verbose


def test_filters_of_prunes(engine, built):
    before = len(listed(engine))
    for words in (
        ["--filter=until=24h"],
        ["--filter=id=nothing"],
        ["--reserved-space=1GB"],
        ["--keep-storage=1GB"],
        ["--min-free-space=1MB", "--reserved-space=1GB"],
    ):
        assert pruned(engine, *words) == "0B"
        assert len(listed(engine)) == before
    assert pruned(engine, "--filter=type=exec.cachemount").startswith("3.1")
    assert kinds(engine) == {"regular", "source.local"}
    (step,) = listed(engine, "--filter=description~=COPY")
    pruned(engine, "-a", f"--filter=id={step['ID']}")
    assert listed(engine, "--filter=description~=COPY") == []
    assert [one["ID"] for one in listed(engine, f"--filter=id={step['Parents'][0]}")] == step["Parents"]
    pruned(engine, "-a")
    assert listed(engine) == []


def test_limits_of_space(engine, built):
    """What is over a limit goes at once, however short ago it was made."""
    before = len(listed(engine))
    assert pruned(engine, "--max-used-space=1GB") == "0B"
    assert len(listed(engine)) == before
    assert pruned(engine, "--max-used-space=1MB").startswith(("3.", "8."))
    left = listed(engine)
    assert "exec.cachemount" not in {one["Type"] for one in left}
    assert "Total" in engine.docker("builder", "prune", "-f", "--filter=until=24h").out
    assert len(listed(engine)) == len(left)
    engine.docker("builder", "prune", "-af")
    assert listed(engine) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--filter=until=yesterday"], "yesterday"),
        (["--filter=type"], "filter"),
        (["--max-used-space=much"], "much"),
    ],
)
def test_what_is_refused(engine, words, message):
    failed = engine.docker("buildx", "prune", "-f", *words, check=False)
    assert failed.code
    assert message in failed.err


def test_what_changed_since_is_built_again(engine, built):
    """A prune of what a build needs costs the next one its step, and nothing else."""
    pruned(engine, "-a")
    words = ["buildx", "build", "--progress=plain", "--output=type=cacheonly", str(built)]
    assert "CACHED" not in engine.docker(*words, timeout=60).err.split("RUN dd if=/dev/zero of=/g")[1]
    assert engine.docker(*words, timeout=60).err.count("CACHED") == 3
