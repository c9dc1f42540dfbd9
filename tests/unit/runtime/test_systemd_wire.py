"""D-Bus messages as systemd's cgroup driver writes and reads them, compared with another implementation (jeepney)."""

import jeepney
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from jeepney.low_level import Header, Parser

from ketch.runtime.cgroups.systemd import wire

_TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=20)
_LEAVES = {
    "y": st.integers(0, 255),
    "b": st.booleans(),
    "n": st.integers(-(1 << 15), (1 << 15) - 1),
    "q": st.integers(0, (1 << 16) - 1),
    "i": st.integers(-(1 << 31), (1 << 31) - 1),
    "u": st.integers(0, (1 << 32) - 1),
    "x": st.integers(-(1 << 63), (1 << 63) - 1),
    "t": st.integers(0, (1 << 64) - 1),
    "d": st.floats(allow_nan=False),
    "s": _TEXT,
    "o": st.sampled_from(["/", "/org/freedesktop/systemd1/job/17"]),
    "g": st.sampled_from(["", "s", "a(sv)"]),
}


@st.composite
def _typed(draw: st.DrawFn, depth: int = 3) -> tuple[str, object]:
    """A signature of one complete type, and a value of it."""
    kind = draw(st.sampled_from([*_LEAVES, "a", "(", "v"] if depth else list(_LEAVES)))
    if kind in _LEAVES:
        return kind, draw(_LEAVES[kind])
    if kind == "v":
        return "v", draw(_typed(depth - 1))
    if kind == "(":
        members = draw(st.lists(_typed(depth - 1), min_size=1, max_size=3))
        return "(" + "".join(name for name, _ in members) + ")", tuple(value for _, value in members)
    element, value = draw(_typed(depth - 1))
    if element == "y":
        return "ay", draw(st.binary(max_size=20))
    return "a" + element, [value] * draw(st.integers(0, 3))


_PROPERTIES = [
    ("PIDs", ("au", [17])),
    ("Delegate", ("b", True)),
    ("AllowedCPUs", ("ay", b"\x03")),
    ("None", ("as", [])),
]


@given(st.lists(_typed(), max_size=3), st.integers(1, (1 << 32) - 1))
@example([("s", "ketch-a.scope"), ("s", "fail"), ("a(sv)", _PROPERTIES), ("a(sa(sv))", [])], 3)
def test_calls_are_read_as_they_were_meant(typed, serial):
    """Jeepney reads what is written here, and what it writes is read here, all as it was given."""
    signature, values = "".join(kind for kind, _ in typed), [value for _, value in typed]
    fields = {wire.PATH: "/a/b", wire.INTERFACE: "a.b", wire.MEMBER: "Do", wire.DESTINATION: "a.c"}
    data = wire.call(serial, fields, signature, values)
    address = jeepney.DBusAddress("/a/b", "a.c", "a.b")
    theirs = jeepney.new_method_call(address, "Do", signature or None, tuple(values))
    (read,) = Parser().feed(data)
    assert list(read.body) == list(Parser().feed(theirs.serialise(serial=serial))[0].body)
    assert (read.header.serial, read.header.fields) == (serial, theirs.header.fields)
    assert wire.length(data[: wire.HEAD]) == len(data)
    ours = wire.parse(theirs.serialise(serial=serial))
    assert (ours.kind, ours.serial, ours.body) == (wire.CALL, serial, values)
    assert ours.fields == {**fields, **({wire.SIGNATURE: signature} if signature else {})}


def test_messages_in_the_other_order_of_bytes_are_read():
    """A machine's daemon may be of the other endianness (it is not; the protocol says so)."""
    header = Header(
        jeepney.Endianness.big,
        jeepney.MessageType.signal,
        0,
        1,
        -1,
        9,
        {
            jeepney.HeaderFields.member: "JobRemoved",
            jeepney.HeaderFields.signature: "uoss",
            jeepney.HeaderFields.path: "/",
        },
    )
    body = (7, "/org/job/7", "ketch-a.scope", "done")
    data = jeepney.Message(header, body).serialise()
    message = wire.parse(data)
    assert wire.length(data[: wire.HEAD]) == len(data)
    assert (message.kind, message.fields[wire.MEMBER], tuple(message.body)) == (wire.SIGNAL, "JobRemoved", body)


@given(st.binary(max_size=200))
@example(b"l\x02\x00\x01" + bytes(12))
@example(b"l\x02\x00\x01\x00\x00\x00\x00\x01\x00\x00\x00\x08\x00\x00\x00\x08\x01v" + b"\x00" * 5)
def test_what_is_no_message_is_refused(data):
    """Nothing but a ValueError comes of any bytes."""
    for read in (wire.length, wire.parse):
        try:
            read(data)
        except ValueError:
            continue


@given(st.data())
def test_cut_or_changed_messages_are_refused_or_read(data):
    """A byte more, less or other than sent never becomes another kind of error."""
    typed = data.draw(st.lists(_typed(), min_size=1, max_size=2))
    fields = {wire.PATH: "/", wire.MEMBER: "Do"}
    sent = bytearray(wire.call(1, fields, "".join(kind for kind, _ in typed), [value for _, value in typed]))
    with pytest.raises(ValueError):
        wire.parse(bytes(sent[: data.draw(st.integers(0, len(sent) - 1))]))
    with pytest.raises(ValueError):
        wire.parse(bytes(sent) + b"\0")
    at = data.draw(st.integers(0, len(sent) - 1))
    sent[at] ^= data.draw(st.integers(1, 255))
    try:
        wire.parse(bytes(sent))
    except ValueError:
        return


@pytest.mark.parametrize("signature", ["a", "(", "()", "(s", "s)", "a{", "z", "{sv", "((s)", "a" * 100 + "s"])
def test_signatures_that_are_none_are_refused(signature):
    with pytest.raises(ValueError, match="not a D-Bus signature"):
        wire.split(signature)


def test_messages_that_would_fill_the_memory_are_refused():
    """The first 16 bytes already say how long a message is."""
    with pytest.raises(ValueError, match="too long"):
        wire.length(b"l\x02\x00\x01" + (1 << 30).to_bytes(4, "little") + bytes(8))
