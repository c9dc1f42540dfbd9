"""Filters of the history of builds, as BuildKit 0.25 understands them."""

from __future__ import annotations

import time

import pytest

from ketch.buildkit.control import history_filters
from ketch.engine.model.building.records import BuildRecord
from ketch.rpc.status import RpcError

S = 10**9
AT = 1_790_000_000 * S  # 2026-09-21T14:13:20Z


def record(**fields) -> BuildRecord:
    return BuildRecord(
        **{"ref": "abc", "name": "x", "created": AT, "completed": AT + 5 * S, "status": "error", **fields}
    )


@pytest.mark.parametrize(
    ("texts", "wanted"),
    [
        ([], True),
        (["status==error"], True),
        (["status!=error"], False),
        (["status~=^err"], True),
        (["ref==abc,status==completed"], False),
        (["ref==abc", "status==completed"], True),
        (["duration>4s"], True),
        (["duration>5s"], False),
        (["duration>=5s"], True),
        (["duration<5s"], False),
        (["duration<=5000ms"], True),
        (["duration>4s,status==error"], True),
        (["status==completed,duration>4s"], False),
        (["startedAt<2026-09-21T14:13:21Z"], True),
        (["startedAt<2026-09-21T14:13:20Z"], False),
        (["completedAt>2026-09-21T16:13:24+02:00"], True),
        (["startedAt<1h"], False),
        (['repository=="https://a/b"'], True),
        (["repository"], True),
        (['repository=="https://a/b",duration<1m'], True),
        (["owner==me"], False),
    ],
)
def test_which_builds_are_wanted(texts, wanted, monkeypatch):
    monkeypatch.setattr(time, "time_ns", lambda: AT + 60 * S)
    one = record(attributes={"vcs:source": "https://a/b"})
    assert history_filters.parse(texts)(one) is wanted


def test_a_build_that_runs(monkeypatch):
    monkeypatch.setattr(time, "time_ns", lambda: AT + 60 * S)
    running = record(completed=0, status="running")
    assert history_filters.parse(["duration>59s"])(running)
    assert not history_filters.parse(["completedAt<1h"])(running)
    assert not history_filters.parse(["completedAt>1h"])(running)
    assert history_filters.parse(["startedAt>61s,startedAt<59s"])(running)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("duration<=x", "invalid duration x"),
        ("completedAt>=2026-11-28", "invalid time 2026-11-28"),
        ("status>error", r"parse error: \[status >\|>\|< error\]: expected an operator"),
        ("status=error", "parse error"),
        ('\\"' * 2049, "failed to parse history filters: there may be 100, of 4096 characters each"),
    ],
)
def test_what_is_no_filter(text, message):
    with pytest.raises(RpcError, match=message):
        history_filters.parse([text])
