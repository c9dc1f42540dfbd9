"""The stream of the old API: which lines, in which order, whatever the order of the work."""

from __future__ import annotations

import pytest

from ketch.build.classic import steps
from ketch.build.classic.stream import ClassicStream
from ketch.build.dockerfile.convert.places import Places
from ketch.build.dockerfile.errors import DockerfileError, Span
from ketch.build.errors import CommandFailed
from ketch.build.progress import LogLine, SolveStatus, VertexState
from ketch.errors import NotFound

AT = "2024-01-02T03:04:05Z"
TEXT = "FROM busybox AS a\nRUN one\nFROM scratch AS unused\nCOPY x /\nFROM a\nENV A=b\nRUN two\nCMD three\n"
BASE, IMAGE = "sha256:" + "ba5e" * 16, "sha256:" + "1" * 64
ONE, TWO = "sha256:" + "a" * 64, "sha256:" + "b" * 64


class Vertex:
    def __init__(self, digest):
        self.digest = digest


def stream(text=TEXT, **more):
    places = Places()
    for digest, line in ((ONE, 2), (TWO, 7)):
        places.add(Vertex(digest), Span(line, line))
    found = ClassicStream(text, **more)
    assert found.status(state("of a step that is no instruction")) == []
    return found, found.begin(places, [0, 2], {0: BASE, 2: ""})


def texts(items):
    return "".join(item.get("stream", "") for item in items)


def state(digest, *, ended=True, cached=False, error=""):
    return SolveStatus(
        vertexes=[VertexState(digest=digest, started=AT, completed=AT if ended else None, cached=cached, error=error)]
    )


def log(digest, data, kind=1):
    return SolveStatus(logs=[LogLine(vertex=digest, stream=kind, data=data, timestamp=AT)])


def test_steps_in_the_order_of_the_file_whatever_the_order_of_the_work():
    found, first = stream()
    assert texts(first) == "Step 1/6 : FROM busybox AS a\n ---> ba5eba5eba5e\nStep 2/6 : RUN one\n"
    assert (
        found.status(state(TWO, ended=False)) == found.status(log(TWO, b"second\n")) == found.status(state(TWO)) == []
    )
    assert texts(found.status(state(ONE, ended=False))) == " ---> Running in aaaaaaaaaaaa\n"
    assert texts(found.status(log(ONE, b"out"))) == "out"
    assert texts(found.status(log(ONE, b"err", 2))) == "\x1b[91merr\x1b[0m"
    after = texts(found.status(state(ONE))).splitlines()
    assert after[0] == " ---> Removed intermediate container aaaaaaaaaaaa"
    assert [line for line in after[1:] if not line.startswith(" ---> ")] == [
        "Step 3/6 : FROM a",
        "Step 4/6 : ENV A=b",
        "Step 5/6 : RUN two",
        "second",
        "Step 6/6 : CMD three",
    ]
    end = found.finish(IMAGE, ["x:y"], ["B", "A"])
    assert texts(end) == (
        " ---> 111111111111\n[Warning] One or more build-args [A B] were not consumed\n"
        "Successfully built 111111111111\nSuccessfully tagged x:y\n"
    )
    assert {"aux": {"ID": IMAGE}} in end


def test_what_is_cached_is_said_also_of_steps_that_nobody_asked_for():
    found, _ = stream()
    told = texts(found.status(state(TWO, cached=True)))
    told += texts(found.finish(IMAGE, [], []))
    assert told.count(" ---> Using cache\n") == 2 and "Running in" not in told
    again, first = stream()
    same = texts(first) + texts(again.status(state(TWO, cached=True))) + texts(again.finish(IMAGE, [], []))
    assert same.endswith(told)  # and the ids of steps are the same


def test_labels_of_the_build_are_steps_and_a_target_is_the_last_stage():
    found = steps.read(TEXT, "a", {"z": "1", "b": "2"})
    assert [step.text for step in found] == ["FROM busybox AS a", "RUN one", "LABEL b=2", "LABEL z=1"]
    with pytest.raises(DockerfileError, match="target stage"):
        ClassicStream(TEXT, "nobody")


def test_a_command_that_fails_has_its_code_and_its_output_before_it():
    found, _ = stream()
    found.status(state(TWO, ended=False))
    found.status(log(TWO, b"last words\n"))
    found.status(state(TWO, error="x"))
    items = found.fail(CommandFailed("/bin/sh -c two", 3))
    assert texts(items).splitlines()[-1] == "last words"
    message = "The command '/bin/sh -c two' returned a non-zero code: 3"
    assert items[-1] == {"errorDetail": {"code": 3, "message": message}, "error": message}


def test_an_image_that_cannot_be_had_fails_in_its_step():
    items = ClassicStream("FROM nowhere\nRUN x\n").fail(NotFound("pull access denied"))
    assert texts(items) == "Step 1/2 : FROM nowhere\n"
    assert items[-1] == {"errorDetail": {"message": "pull access denied"}, "error": "pull access denied"}


def test_what_is_pulled_stands_below_the_headline_of_the_first_stage():
    found = ClassicStream("ARG A\nFROM x\nRUN y\n")
    assert texts(found.first_line()) == "Step 1/3 : ARG A\nStep 2/3 : FROM x\n"
    assert found.first_line() == []
    assert texts(found.begin(Places(), [0], {0: BASE})) == " ---> ba5eba5eba5e\nStep 3/3 : RUN y\n"


def test_output_that_waits_for_its_turn_is_bounded():
    found, _ = stream()
    found.status(state(TWO, ended=False))
    for _ in range(200):
        found.status(log(TWO, b"x" * (64 << 10)))
    assert len(texts(found.status(state(ONE)))) < 6 << 20


def test_instructions_of_base_images_are_announced():
    found = ClassicStream("FROM a\nFROM b\nRUN x\n")
    items = found.begin(Places(), [0, 1], {0: BASE, 1: BASE}, {0: 1, 1: 5})
    assert texts(items) == (
        "Step 1/3 : FROM a\n# Executing 1 build trigger\n ---> ba5eba5eba5e\n"
        "Step 2/3 : FROM b\n# Executing 5 build triggers\n ---> ba5eba5eba5e\nStep 3/3 : RUN x\n"
    )


def test_an_instruction_that_is_refused_is_told():
    """No build has begun: the steps before it have no results."""
    found = ClassicStream("FROM a\nRUN x\nEXPOSE 99999\n")
    items = found.fail(DockerfileError("invalid containerPort: 99999", span=Span(3, 3)))
    assert texts(items) == "Step 1/3 : FROM a\nStep 3/3 : EXPOSE 99999\n"
    assert texts(ClassicStream("FROM a\n").fail(DockerfileError("x", span=Span(1, 1)))) == "Step 1/1 : FROM a\n"
