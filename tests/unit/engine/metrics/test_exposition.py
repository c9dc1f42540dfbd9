"""Prometheus' text format: read back by its own client's parser, whatever is in labels."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from ketch.engine.metrics import process
from ketch.engine.stats.counters import BOUNDS_S, Counters, Histogram, timed
from ketch.errors import Conflict
from ketch.notation.metrics import exposition
from ketch.notation.metrics.exposition import Family, Point


def read(*families: Family):
    """The samples as (name, labels, value)."""
    found = text_string_to_metric_families(exposition.write(families))
    return [(s.name, s.labels, s.value) for family in found for s in family.samples]


@given(st.text(st.characters(exclude_categories=["Cs"])), st.floats(allow_nan=False) | st.integers(0, 2**53))
def test_any_label_and_value_is_read_back(text, value):
    family = Family("a_total", "counter", "Some text.", [Point({"name": text, "other": "x"}, value)])
    assert read(family) == [("a_total", {"name": text, "other": "x"}, value)]


def test_families_without_samples_are_left_out():
    assert read(Family("a", "gauge", "A.", []), Family("b", "gauge", "B.", [Point({}, 1)])) == [("b", {}, 1.0)]


def test_buckets_have_those_below_them():
    histogram = Histogram()
    for seconds in (0.005, 0.3, 11.0):
        histogram.observe(seconds)
    samples = exposition.of_histogram({"action": "start"}, BOUNDS_S, histogram.buckets, histogram.total_s)
    found = {(name, labels.get("le")): value for name, labels, value in read(Family("h", "histogram", "H.", samples))}
    assert [found["h_bucket", f"{bound:g}"] for bound in BOUNDS_S] == [1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2]
    assert (found["h_bucket", "+Inf"], found["h_count", None], found["h_sum", None]) == (3, 3, 11.305)


def test_what_fails_is_not_timed():
    class Service:
        counters = Counters()

        @timed("create")
        async def create(self, error: Exception | None) -> str:
            if error:
                raise error
            return "made"

    assert asyncio.run(Service().create(None)) == "made"
    with pytest.raises(Conflict):
        asyncio.run(Service().create(Conflict("no")))
    assert sum(Service.counters.actions["create"].buckets) == 1


def test_the_process_has_what_every_prometheus_client_tells():
    found = {name: value for name, _, value in read(*process.families())}
    assert found["process_open_fds"] >= 3
    assert found["process_resident_memory_bytes"] > 1 << 20
    assert found["process_start_time_seconds"] > 1.6e9
