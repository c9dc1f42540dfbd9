"""JSON texts without the package json: the same values, texts and errors."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.notation import documents

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
WRONG = ["", " ", "x", "[1] 2", "{", '{"a"}', '{"a":1,}', '"\n"', '"\\x"', "[1,", b"\xff", "\ufeff[]", "[" * 100_000]


@given(VALUES)
def test_written_and_read_as_by_json(value: object) -> None:
    text = json.dumps(value)
    assert documents.dumps(value) == text
    assert documents.loads(text) == documents.loads(f" \r\n\t{text}\n".encode()) == value


@given(st.text(alphabet='[]{}",:0123456789eE+-.\\u nulltrefas'))
def test_texts_are_read_or_refused_as_by_json(text: str) -> None:
    try:
        expected = json.loads(text)
    except ValueError as e:
        with pytest.raises(type(e)) as caught:
            documents.loads(text)
        assert str(caught.value) == str(e)
    else:
        assert repr(documents.loads(text)) == repr(expected)


@pytest.mark.parametrize("text", WRONG)
def test_errors_are_those_of_json_which_is_not_loaded(text: str | bytes) -> None:
    with pytest.raises((ValueError, RecursionError)) as expected:
        json.loads(text)
    program = """if True:
        import sys
        from ketch.notation import documents
        text = sys.stdin.buffer.read()
        documents.loads("[1]")
        assert "json" not in sys.modules
        try:
            documents.loads(text if text.startswith(b"\\xff") else text.decode())
        except (ValueError, RecursionError) as e:
            print(type(e).__name__, e)
    """
    data = text if isinstance(text, bytes) else text.encode()
    said = subprocess.run([sys.executable, "-I", "-c", program], input=data, check=True, capture_output=True).stdout
    kind, _, words = said.decode().rstrip("\n").partition(" ")
    assert kind == type(expected.value).__name__
    if kind != "RecursionError":  # from Python 3.14 on it says how much of the stack was used
        assert words == str(expected.value)


def test_what_has_no_text_is_refused() -> None:
    with pytest.raises(TypeError, match="Object of type set is not JSON serializable"):
        documents.dumps({"a": {1}})
