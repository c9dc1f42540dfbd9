"""Properties of scopes by annotations: GVariant's text form, as far as runc's users write it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.errors import RuntimeFailure
from ketch.runtime.cgroups.systemd import annotations


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("'inactive-or-failed'", ("s", "inactive-or-failed")),
        ('"a\\"b\\n"', ("s", 'a"b\n')),
        ("true", ("b", True)),
        (" false ", ("b", False)),
        ("42", ("i", 42)),
        ("-0x10", ("i", -16)),
        ("1.5", ("d", 1.5)),
        ("1e3", ("d", 1000.0)),
        ("double 3", ("d", 3.0)),
        ("uint64 123456789", ("t", 123456789)),
        ("uint64 18446744073709551615", ("t", (1 << 64) - 1)),
        ("byte 255", ("y", 255)),
        ("int16 -3", ("n", -3)),
        ("['a', 'b']", ("as", ["a", "b"])),
        ("[uint32 1,uint32 2]", ("au", [1, 2])),
        ("[['a'], ['b']]", ("aas", [["a"], ["b"]])),
    ],
)
def test_values(text, value):
    assert annotations.parse(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "soon",
        "'a",
        "[",
        "[]",
        "['a', 1]",
        "['a' 'b']",
        "1 2",
        "uint64 -1",
        "uint64",
        "byte 256",
        "int32 4294967296",
        "uint32 'a'",
        "0x",
        "'a' b",
        "[1",
        ",",
        "[" * 5000,
        "4294967296",
    ],
)
def test_values_that_are_none(text):
    with pytest.raises(ValueError):
        annotations.parse(text)


@given(st.text(alphabet="'\"[],0123456789uintbydole truefalsx\\-+. ", max_size=30))
def test_no_text_is_another_error(text):
    try:
        annotations.parse(text)
    except ValueError:
        return


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("TimeoutStopUSec", "uint64 5", ("TimeoutStopUSec", ("t", 5))),
        ("TimeoutStopSec", "uint64 5", ("TimeoutStopUSec", ("t", 5000000))),
        ("TimeoutStopSec", "byte 5", ("TimeoutStopUSec", ("t", 5000000))),
        ("TimeoutStopSec", "1.25", ("TimeoutStopUSec", ("t", 1250000))),
        ("FOOSec", "3", ("FOOSec", ("i", 3))),
        ("CollectMode", "'inactive'", ("CollectMode", ("s", "inactive"))),
    ],
)
def test_names(name, text, expected):
    """Times that are documented in seconds are microseconds on the bus."""
    given_ = {annotations.PREFIX + name: text, "something.else": "soon"}
    assert annotations.properties(given_) == [expected]


@pytest.mark.parametrize(
    ("name", "text"), [("Xo", "1"), ("Sl3ice", "1"), ("", "1"), ("TimeoutStopSec", "true"), ("TimeoutStopSec", "-1")]
)
def test_what_is_no_property_is_refused(name, text):
    with pytest.raises(RuntimeFailure, match=r"annotation org\.systemd\.property\."):
        annotations.properties({annotations.PREFIX + name: text})
