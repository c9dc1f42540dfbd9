"""Truth values, signals, machines and the frames of output are read and written as Docker's programs do it."""

from __future__ import annotations

import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.notation import architectures, booleans, signals, stream_frames

TRUE = ("1", "t", "T", "true", "TRUE", "True")
FALSE = ("0", "f", "F", "false", "FALSE", "False")


@pytest.mark.parametrize("text", (*TRUE, *FALSE))
def test_booleans_that_go_knows(text):
    assert booleans.parse(text) is (text in TRUE)


@given(st.text(max_size=6) | st.sampled_from(("yes", "no", "on", "tRUE", "fALSE", " true", "01", "")))
def test_other_texts_are_no_booleans(text):
    if text not in (*TRUE, *FALSE):
        assert booleans.parse(text) is None


@given(st.booleans())
def test_booleans_are_read_as_they_are_written(value):
    assert booleans.parse(booleans.write(value)) is value


@given(st.sampled_from(list(signal.Signals)), st.booleans(), st.sampled_from((str.upper, str.lower, str.title)))
def test_signals_of_the_kernel(number, long, case):
    assert signals.parse(case(number.name if long else number.name[3:])) == number
    assert signals.parse(str(int(number))) == number


@given(st.integers(0, 15), st.integers(0, 14))
def test_real_time_signals(up, down):
    assert signals.parse(f"SIGRTMIN+{up}") == signals.parse(f"rtmin+{up}") == signal.SIGRTMIN + up
    assert signals.parse(f"SIGRTMAX-{down}") == signals.parse(f"RTMAX-{down}") == signal.SIGRTMAX - down


@pytest.mark.parametrize(
    "text",
    ["", "0", "65", "-1", "SIG", "SIG9", "_DFL", "SIG_IGN", "ITIMER_REAL", "RTMIN+31", "RTMIN-1", "RTMAX+1", "\u0661"],
)
def test_invalid_signals(text):
    assert signals.parse(text) is None


@given(st.text(max_size=12))
def test_no_text_breaks_the_reader_of_signals(text):
    assert signals.parse(text) in {None, *range(1, 65)}


@pytest.mark.parametrize(
    ("machine", "name"),
    [
        ("x86_64", "amd64"),
        ("X86-64", "amd64"),
        ("aarch64", "arm64"),
        ("i686", "386"),
        ("armv7l", "arm"),
        ("armhf", "arm"),
        ("loongarch64", "loong64"),
        ("amd64", "amd64"),
        ("riscv64", "riscv64"),
        ("s390x", "s390x"),
    ],
)
def test_names_of_machines(machine, name):
    assert architectures.goarch(machine) == name
    assert architectures.goarch(name) == name


@given(st.sampled_from((stream_frames.STDOUT, stream_frames.STDERR)), st.binary(max_size=70_000))
def test_frames_of_output(stream, data):
    framed = stream_frames.frame(stream, data)
    assert framed[:4] == bytes((stream, 0, 0, 0)) and int.from_bytes(framed[4:8], "big") == len(data)
    assert framed[8:] == data and stream_frames.HEADER.size == 8
    assert stream_frames.frames(stream, [data, b"", data[:300]]) == b"".join(
        stream_frames.frame(stream, piece) for piece in (data, b"", data[:300])
    )
