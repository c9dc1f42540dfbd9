"""What `ketch daemon start` tells of a daemon that has ended at once, from its log."""

from __future__ import annotations

import pytest

from ketch.cli.ketchd import last_words, put_aside

OLD = "2026-01-01 00:00:00,000 INFO stopping; running containers stay up\n"


@pytest.mark.parametrize(
    ("log", "reason", "hint"),
    [
        (
            f"{OLD}ketchd: start ketchd: it cannot load x\n  install: apt install x\n",
            "it cannot load x",
            "install: apt install x",
        ),
        (
            f"{OLD}ketchd: listen on unix:///s: something answers there already\n",
            "listen on unix:///s: something answers there already",
            "",
        ),
        (
            'Traceback (most recent call last):\n  File "x.py", line 1, in <module>\nValueError: no\n',
            "ValueError: no",
            "",
        ),
        ("", "it printed nothing", "is there space left for its log?"),
    ],
)
def test_last_words(log, reason, hint):
    assert last_words(log) == (reason, hint)


def test_a_large_log_is_put_aside(tmp_path):
    path = tmp_path / "ketchd.log"
    put_aside(str(path), 3)
    path.write_text("old")
    put_aside(str(path), 3)
    assert path.read_text() == "old"
    for text in ("older", "newer"):
        path.write_text(text)
        put_aside(str(path), 3)
        assert not path.exists()
        assert (tmp_path / "ketchd.log.1").read_text() == text
