"""How Docker's world writes values: each kind is read and written by the rules of the Go function that others use."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.notation import booleans

GO_TRUE = ("1", "t", "T", "true", "TRUE", "True")
GO_FALSE = ("0", "f", "F", "false", "FALSE", "False")


@pytest.mark.parametrize("text", (*GO_TRUE, *GO_FALSE))
def test_booleans_that_go_knows(text):
    assert booleans.parse(text) is (text in GO_TRUE)


@given(st.text(max_size=6) | st.sampled_from(("yes", "no", "on", "tRUE", "fALSE", " true", "01", "")))
def test_other_texts_are_no_booleans(text):
    if text not in (*GO_TRUE, *GO_FALSE):
        assert booleans.parse(text) is None


@given(st.booleans())
def test_booleans_are_read_as_they_are_written(value):
    assert booleans.parse(booleans.write(value)) is value
