"""Calls of the Dockerfile's front end through ``docker buildx build --call``, beside dockerd's."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

DOCKERFILE = """\
# check=skip=StageNameCasing

# GO is the compiler's version
ARG GO=1.22
# base is what all others stand on
FROM busybox AS base
ARG TARGETARCH
# NAME is a name
ARG NAME="a b"
RUN --mount=type=secret,id=token,required=true --mount=type=ssh --mount=type=cache,target=/c true

FROM base AS Other
ARG ONLY=x
RUN --mount=type=secret,id=more,env=MORE true
MAINTAINER me

# last is what is made
FROM scratch AS last
ARG UNSET
COPY --from=base /a /b
CMD echo $NOTHING
"""
DESCRIBES = "describe"  # where dockerd is silent about the call `lint`, which it has
CALLS = ["outline", "targets", "check", "lint", "subrequests.describe"]
CHOICES = [[], ["--target", "base"], ["--target", "other"], ["--build-arg", "NAME=z", "--platform", "linux/arm64"]]


@pytest.fixture
def context(tmp_path):
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    return tmp_path


def both(engine, dockerd, *words):
    def run(one):
        done = one.docker("buildx", "build", "--progress=quiet", *words, check=False, timeout=60)
        return done.code, done.out, done.err

    with ThreadPoolExecutor(2) as pool:
        return pool.map(run, (engine, dockerd))


@pytest.mark.parametrize("choice", CHOICES, ids=" ".join)
@pytest.mark.parametrize("call", CALLS)
def test_texts(engine, dockerd, context, call, choice):
    ours, theirs = both(engine, dockerd, "--call", call, *choice, str(context))
    assert (ours[0], ours[2]) == (theirs[0], theirs[2])
    lines = [line for line in ours[1].split("\n") if not (DESCRIBES in call and line.startswith("lint "))]
    assert lines == theirs[1].split("\n")


@pytest.mark.parametrize("choice", CHOICES, ids=" ".join)
@pytest.mark.parametrize("call", CALLS)
def test_values(engine, dockerd, context, call, choice):
    ours, theirs = both(engine, dockerd, "--call", f"{call},format=json", *choice, str(context))
    assert (ours[0], ours[2]) == (theirs[0], theirs[2])
    mine, other = json.loads(ours[1]), json.loads(theirs[1])
    if DESCRIBES in call:
        mine = [one for one in mine if one["name"] != "frontend.lint"]
    elif call in ("check", "lint"):
        for one in other["sources"]:
            del one["definition"]  # the graph that the file came from
    assert mine == other
