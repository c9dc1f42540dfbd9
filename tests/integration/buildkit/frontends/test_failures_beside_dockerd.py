"""Failures as the user of ``docker buildx`` sees them, beside dockerd's."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import pytest

pytestmark = pytest.mark.usefixtures("no_images_left")

# name: (Dockerfile, further words)
CASES = {
    "step": ("FROM base:1\nRUN echo before\nRUN echo words && exit 7\n", []),
    "exec form": ('FROM base:1\nRUN ["sh", "-c", "exit 3"]\n', []),
    "no program": ('FROM base:1\nRUN ["/nothing"]\n', []),
    "heredoc": ("FROM base:1\nRUN <<EOF\necho one\nexit 4\nEOF\n", []),
    "missing file": ("FROM scratch\nCOPY a /a\nCOPY nothing /b\n", []),
    "file of a stage": ("FROM base:1 AS one\nRUN true\nFROM scratch\nCOPY --from=one /nothing /\n", []),
    "file for a mount": ("FROM base:1\nRUN --mount=type=bind,source=nothing,target=/m true\n", []),
    "left out": ("FROM scratch\nCOPY left.o /\n", []),
    "missing image": ("FROM 127.0.0.1:1/nothing:1\n", []),
    "missing image of a stage": ("FROM scratch\nCOPY --from=127.0.0.1:1/nothing:1 /a /\n", []),
    "image name": ("FROM UPPER/case\nRUN true\n", []),
    "missing target": ("FROM scratch AS one\nCOPY a /\n", ["--target", "tow"]),
    "instruction": ("FROM scratch\nCOPPY a /\n", []),
    "no source": ("FROM scratch\nCOPY a\n", []),
    "empty": ("", []),
    "no FROM": ("RUN true\n", []),
    "flag": ("FROM scratch\nCOPY --frm=a a /\n", []),
    "mount": ("FROM base:1\nRUN --mount=type=tempfs,target=/x true\n", []),
    "mount option": ("FROM base:1\nRUN --mount=type=tmpfs,tagret=/x true\n", []),
    "ARG": ("FROM scratch\nARG A-B\nARG\n", []),
    "ARG of FROM": ("ARG A\nFROM $A\n", []),
    "variable": ("FROM scratch\nARG A\nCOPY ${A:?is needed} /\n", []),
    "modifier": ("FROM scratch\nARG A\nCOPY ${A!x} /\n", []),
    "circle": ("FROM two AS one\nFROM one AS two\n", []),
    "copied circle": ("FROM scratch AS one\nCOPY --from=two /a /\nFROM scratch AS two\nCOPY --from=one /a /\n", []),
    "itself": ("FROM scratch AS one\nCOPY --from=one /a /\n", []),
    "later stage": ("FROM scratch\nCOPY --from=1 /a /\n", []),
    "secret": ("FROM base:1\nRUN --mount=type=secret,id=s,required=true cat /run/secrets/s\n", []),
    "ssh": ("FROM base:1\nRUN --mount=type=ssh,required=true true\n", []),
    "URL": ("FROM scratch\nADD http://127.0.0.1:1/file /\n", []),
    "checksum form": ("FROM scratch\nADD --checksum=md5:1 http://127.0.0.1:1/file /\n", []),
    "checksum of a file": (f"FROM scratch\nADD --checksum=sha256:{'0' * 64} a /\n", []),
    "chmod": ("FROM scratch\nCOPY --chmod=9 a /\n", []),
    "WORKDIR": ("FROM scratch\nWORKDIR\n", []),
    "USER": ("FROM base:1\nUSER nobody-here\nRUN true\n", []),
    "onto a file": ("FROM scratch\nCOPY a /a\nCOPY a /a/b\n", []),
    "network": ("FROM base:1\nRUN --network=some true\n", []),
    "entitlement": ("FROM base:1\nRUN --network=host true\n", []),
    "platform": ("FROM --platform=x/y/z/w scratch\n", []),
    "wanted platform": ("FROM scratch\n", ["--platform", "linux/x/y/z"]),
    "file": ("FROM scratch\n", ["--file", "/nowhere/Dockerfile"]),
    "context": ("FROM scratch\nCOPY --from=more a /\n", ["--build-context", "more=docker-image://127.0.0.1:1/x"]),
    "check": ("# check=error=true\nFROM scratch\nCOPY a /\nMAINTAINER me\n", []),
    "escape": ("# escape=x\nFROM scratch\n", []),
    "EXPOSE": ("FROM scratch\nEXPOSE 99999999\n", []),
    "HEALTHCHECK": ("FROM scratch\nHEALTHCHECK --interval=x CMD true\n", []),
    "STOPSIGNAL": ("FROM scratch\nSTOPSIGNAL NOSUCH\n", []),
    "ONBUILD": ("FROM scratch\nONBUILD FROM x\n", []),
    "syntax": ("# syntax=127.0.0.1:1/front:1\nFROM scratch\n", []),
    "given syntax": ("FROM scratch\n", ["--build-arg", "BUILDKIT_SYNTAX=127.0.0.1:1/front:1"]),
    "unterminated": ("FROM scratch\nCOPY <<EOF /a\ntext\n", []),
    "no call": ("FROM scratch\n", ["--call", "nothing"]),
    "tag": ("FROM scratch\nCOPY a /\n", ["--tag", "UPPER"]),
}
# What Ketch says below the error: what to do.
ADVICE = {
    "copied circle": "one → two → one",
    "itself": "one → one",
    "secret": "give it with --secret id=s,src=FILE",
    "ssh": "give an agent with --ssh default",
    "checksum form": "write sha256:… in full",
    "entitlement": "give --allow network.host",
    "platform": "use e.g. linux/amd64",
}
LINES_ADDED = {"later stage", "entitlement", "escape"}  # where dockerd shows no lines of the file


@pytest.fixture(scope="module")
def base(engine, dockerd):
    """The same image in both engines."""
    for one in (engine, dockerd):
        one.docker("tag", "busybox", "base:1")


@pytest.fixture
def context(tmp_path):
    for name in ("a", "b", "left.o"):
        (tmp_path / name).write_text(name)
    (tmp_path / ".dockerignore").write_text("*.o\n")
    return tmp_path


def failed(engine, top, words):
    """What buildx wrote of a build that must fail, below its progress, and the errors of steps in that."""
    words = ("buildx", "build", "--progress=plain", "--provenance=false", *words, str(top))
    done = engine.docker(*words, check=False, timeout=60)
    assert done.code == 1, done.err
    lines = [_plain(line) for line in done.err.split("\n")]
    progress = [number for number, line in enumerate(lines) if re.match(r"#[0-9]+ ", line)]
    errors = [line.partition(" ")[2] for line in lines if re.match(r"#[0-9]+ (ERROR|WARN)", line)]
    return lines[progress[-1] + 1 if progress else 0 :], errors


def _plain(line):
    line = re.sub(r"^[0-9]+\.[0-9]{3} (.*: (?=no such file))?", "TIME ", line)  # what runc says, crun does not
    line = re.sub(r"(checksum of ref) [^ ]+:", r"\1 REF:", line)
    # Of the two calls of a build that has failed, the client reports the one that it hears of first.
    line = line.replace("failed to run Build function: ", "failed to solve: ")
    return re.sub(r"(failed to do request): .*", r"\1", line)  # whom they ask is each engine's own affair


def without_lines(lines):
    """Without the lines of the file."""
    return [line for line in lines if not re.match(r"Dockerfile:[0-9]+$|-{20}$| +[0-9]+ \| ", line)]


@pytest.mark.parametrize("name", CASES)
def test_the_same_words(engine, dockerd, base, context, name):
    text, words = CASES[name]
    (context / "Dockerfile").write_text(text)
    with ThreadPoolExecutor(2) as pool:
        (ours, our_errors), (theirs, their_errors) = pool.map(
            lambda one: failed(one, context, words), (engine, dockerd)
        )
    if name in ADVICE:
        assert ours[-2].strip() == ADVICE[name]
        del ours[-2]
    if name in LINES_ADDED:
        assert without_lines(ours) != ours
        ours, theirs = without_lines(ours), without_lines(theirs)
    if name == "platform":  # dockerd shows the same lines twice
        assert theirs[:5] == theirs[5:10]
        del theirs[:5]
    assert [line for line in ours if line.strip()] == [line for line in theirs if line.strip()]
    # One is shown twice when other steps are shown in between; a warning about a step that buildx has done with when it
    # comes, of either engine on a slow machine, not at all.
    warned = [{line for line in lines if line.startswith("WARN")} for lines in (our_errors, their_errors)]
    assert set(our_errors) - warned[0] == set(their_errors) - warned[1]
    assert warned[0] == warned[1] or not all(warned)


def test_root_on_nothing(engine, dockerd, context):
    (context / "Dockerfile").write_text("FROM scratch\nCOPY --chown=root:root a /\n")
    for one in (engine, dockerd):
        one.docker("buildx", "build", str(context), timeout=60)
