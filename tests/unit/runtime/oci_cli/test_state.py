"""A container's state, as it is told."""

from __future__ import annotations

import os

from ketch.runtime.oci_cli import state as states


def test_a_container_that_has_just_been_deleted_does_not_spoil_a_list(tmp_path):
    state = states.reserve(str(tmp_path), "c1", "/bundle")
    assert state.oci()["owner"] != ""
    state.forget()
    assert not os.path.exists(state.directory)
    assert state.oci()["owner"] == ""
