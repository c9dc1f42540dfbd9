"""Messages of ketch-runtime: what is on stderr, and what is in the log that its callers read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from ketch.errors import InvalidArgument
from ketch.runtime.oci_cli.diagnostics import Diagnostics

if TYPE_CHECKING:
    from pathlib import Path

AWKWARD = 'exec: "a\nb": no such file'


def say_all(diagnostics: Diagnostics) -> None:
    diagnostics.debug("called")
    diagnostics.warn("odd")
    diagnostics.fail(AWKWARD, "try again")


@pytest.mark.parametrize("debug", [False, True])
def test_a_log_of_json(tmp_path: Path, capsys: pytest.CaptureFixture[str], debug: bool) -> None:
    diagnostics = Diagnostics()
    diagnostics.configure(str(tmp_path / "log"), "json", debug=debug)
    say_all(diagnostics)
    entries = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    expected = [("debug", "called")] * debug + [("warning", "odd"), ("error", AWKWARD)]
    assert [(entry["level"], entry["msg"]) for entry in entries] == expected
    assert {tuple(entry) for entry in entries} == {("level", "msg", "time")}
    errors = capsys.readouterr().err
    assert errors == f"ketch-runtime: warning: odd\nketch-runtime: {AWKWARD}\n  try again\n"


def test_a_log_of_text_is_appended_to(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("before\n")
    diagnostics = Diagnostics()
    diagnostics.configure(str(tmp_path / "log"), "text", debug=False)
    say_all(diagnostics)
    first, *lines = (tmp_path / "log").read_text().splitlines()
    assert first == "before"
    assert [line.partition("level=")[2] for line in lines] == [
        'warning msg="odd"',
        'error msg="exec: \\"a\\nb\\": no such file"',
    ]


def test_without_a_log_all_is_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    diagnostics = Diagnostics()
    diagnostics.configure("", "text", debug=True)
    say_all(diagnostics)
    assert 'level=debug msg="called"' in capsys.readouterr().err


def test_what_cannot_be_logged_is_said_all_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    diagnostics = Diagnostics()
    diagnostics.configure("/none/log", "text", debug=False)
    diagnostics.fail("why", None)
    expected = "ketch-runtime: why\nketch-runtime: write log `/none/log`: no such file or directory\n"
    assert capsys.readouterr().err == expected
    with pytest.raises(InvalidArgument, match="neither text nor json"):
        diagnostics.configure("", "xml", debug=False)
