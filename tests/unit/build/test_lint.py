"""The rules of --check, beside what dockerd 28.5.2 said of the same files (buildx 0.29, ``--check``)."""

from __future__ import annotations

import json
import pathlib

import pytest

from ketch import dockerignore
from ketch.build.dockerfile.errors import DockerfileError, Span
from ketch.build.dockerfile.lint import rules
from ketch.build.dockerfile.lint.check import check, outline
from ketch.build.dockerfile.lint.outline import targets
from ketch.build.dockerfile.lint.request import BaseImage, CheckRequest
from ketch.oci.config import RunConfig
from ketch.oci.manifest import Platform

AMD64 = Platform(os="linux", architecture="amd64")
BASE = BaseImage(RunConfig(env=["BASEVAR=1", "PATH=/bin"]), AMD64)

# Of each file: the warnings with their lines, and the error with its own; "base" has BASEVAR, "ignored" is ignored.
RECORDED = json.loads((pathlib.Path(__file__).parents[2] / "data" / "dockerfile-checks.json").read_text())

# What is accepted here and belongs to later front ends, or to a build and not to its file; and lines that are better.
NEWER = ("unknown flag: --security", "unknown flag: --parnts", "unknown flag: --parents")
WITHOUT_LINES = ("only one escape", "invalid escape token", "file with no instructions")


def request(**fields):
    return CheckRequest(
        base=lambda name, _platform: BASE if name.startswith("base") else None,
        ignore=dockerignore.read("ignored\n"),
        build_platform=AMD64,
        target_platform=AMD64,
        **fields,
    )


def named(error):
    """An error; the rules in it are named in no order."""
    head, colon, names = error.partition("for rules: ")
    return head + colon + ", ".join(sorted(names.split(", ")))


@pytest.mark.parametrize("row", RECORDED, ids=[row["dockerfile"] for row in RECORDED])
def test_checks_are_those_of_dockerd(row):
    report = check(row["dockerfile"], request())
    found = [(one.span.start, one.rule.name, one.message) for one in report.findings]
    assert sorted(found) == sorted(map(tuple, row["warnings"]))
    failure = report.failure()
    line, message = row["error"] or (None, "")
    if any(part in message for part in NEWER):
        return
    assert named(str(failure or "")) == named(message)
    if line and not any(part in message for part in WITHOUT_LINES):
        assert failure.span.start == line


def test_all_rules_are_recorded():
    recorded = {name for row in RECORDED for _, name, _ in row["warnings"]}
    assert rules.ALL.keys() - recorded == {"InvalidBaseImagePlatform"}
    assert len(rules.ALL) == 22
    assert rules.UNDEFINED_VAR.url == "https://docs.docker.com/go/dockerfile/rule/undefined-var/"


def test_a_base_image_of_another_platform():
    other = BaseImage(RunConfig(), Platform(os="linux", architecture="arm64"))
    found = check("FROM b\n", CheckRequest(base=lambda *_: other, build_platform=AMD64, target_platform=AMD64)).findings
    assert [one.message for one in found] == [
        'Base image b was pulled with platform "linux/arm64", expected "linux/amd64" for current build'
    ]


def test_stages_on_unknown_images_have_unknown_variables():
    text = "FROM nobody-knows\nENV A=$B\nCMD x\nWORKDIR y\nFROM scratch\nENV A=$B\n"
    found = [(one.span.start, one.rule.name) for one in check(text).findings]
    assert found == [(3, "JSONArgsRecommended"), (4, "WorkdirRelativePath"), (6, "UndefinedVar")]


def test_only_the_target_is_checked():
    text = "FROM scratch AS a\nCMD x\nFROM scratch AS b\nWORKDIR y\nFROM b AS last\nENTRYPOINT z\n"
    assert [one.span.start for one in check(text, request(target="b")).findings] == [4]
    assert [one.span.start for one in check(text, request(target="last")).findings] == [4, 6]
    assert [one.span.start for one in check(text).findings] == [2, 4, 6]
    assert str(check(text, request(target="c")).error) == 'target stage "c" could not be found (did you mean a?)'


def test_stages_that_come_too_late():
    text = "FROM scratch AS a\nCOPY --from=b x y\nFROM scratch AS b\n"
    error = check(text).error
    assert str(error) == 'cannot copy from stage "b", it needs to be defined before current stage "a"'
    assert error.span == Span(2, 2)


def test_onbuild_of_images():
    image = BaseImage(RunConfig(on_build=["CMD x", "ENV A=$B"]), AMD64)
    report = check("\nFROM b\n", CheckRequest(base=lambda *_: image, build_platform=AMD64, target_platform=AMD64))
    assert [(one.span.start, one.rule.name) for one in report.findings] == [
        (2, "JSONArgsRecommended"),
        (2, "UndefinedVar"),
    ]


def test_files_that_are_left_out():
    lines = ["FROM scratch", "ADD ignored/x a", "COPY ./ignored b", "COPY . c", "ADD https://h/ignored d"]
    text = "\n".join(["# check=experimental=all", *lines])
    assert [one.message for one in check(text, request()).findings] == [
        'Attempting to Add file "ignored/x" that is excluded by .dockerignore',
        'Attempting to Copy file "ignored" that is excluded by .dockerignore',
    ]
    excepted = CheckRequest(ignore=dockerignore.read("ignored\n!ignored/x\n"))
    assert check(text, excepted).findings == []


def test_the_form_for_people():
    text = "# check=error=true\nFROM scratch\nCMD a\n"
    report = check(text)
    assert report.severity == "error"
    assert report.text(text).split("\n") == [
        "Check complete, 1 warning has been found!",
        "",
        "WARNING: JSONArgsRecommended - https://docs.docker.com/go/dockerfile/rule/json-args-recommended/",
        "JSON arguments recommended for CMD to prevent unintended behavior related to OS signals",
        "Dockerfile:3",
        "--------------------",
        "   1 |     # check=error=true",
        "   2 |     FROM scratch",
        "   3 | >>> CMD a",
        "   4 |     ",
        "--------------------",
        "",
        "ERROR: lint violation found for rules: JSONArgsRecommended",
    ]
    assert check("FROM scratch\n").text("") == "Check complete, no warnings found."


# The results of "docker buildx build --call outline" of dockerd 28.5.2 for these two.
OUTLINE = """# V the version
ARG V=1
ARG W=$V
ARG UNUSED=x
FROM base:$W AS one
# a what a is
ARG a=b
ARG V
RUN --mount=type=secret,id=s --mount=type=ssh true
# two a second one
FROM scratch AS two
ARG c
ARG d=$c
COPY --from=one /x /y
RUN --mount=type=secret,target=/run/secrets/t,required=true --mount=type=ssh,id=key,required true
RUN --mount=type=secret,source=u,target=/z true
FROM scratch
ARG not
"""


def shown(found):
    return (
        found.name,
        found.description,
        [(one.name, one.value, one.description, one.span.start) for one in found.args],
        [(one.name, one.required, one.span.start) for one in found.secrets],
        [(one.name, one.required, one.span.start) for one in found.agents],
    )


def test_outlines():
    first = [("V", "1", "the version", 2), ("W", "1", "", 3), ("a", "b", "what a is", 7)]
    asked = {"args": {"c": "given"}}
    assert shown(outline(OUTLINE, request(target="one", **asked))) == (
        *("one", "", first),
        [("s", False, 9)],
        [("default", False, 9)],
    )
    assert shown(outline(OUTLINE, request(target="two", **asked))) == (
        *("two", "a second one", [*first, ("c", "given", "", 12), ("d", "given", "", 13)]),
        [("s", False, 9), ("t", True, 15), ("u", False, 16)],
        [("default", False, 9), ("key", True, 15)],
    )
    assert shown(outline(OUTLINE, request(**asked))) == ("", "", [("not", "", "", 18)], [], [])
    chained = "FROM scratch AS a\nARG x=1\nFROM a AS b\nARG y=$x\nARG TARGETPLATFORM\n"
    assert shown(outline(chained, request()))[2] == [("x", "1", "", 2), ("y", "1", "", 4)]


def test_targets():
    found = [(one.name, one.description, one.default, one.base, one.span.start) for one in targets(OUTLINE)]
    assert found == [
        ("one", "", False, "base:$W", 5),
        ("two", "a second one", False, "scratch", 11),
        ("", "", True, "scratch", 17),
    ]
    with pytest.raises(DockerfileError):
        targets("RUN x\n")
