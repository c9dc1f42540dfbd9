"""Durations and points in time are read and written as Go does it."""

from __future__ import annotations

import datetime
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ketch.notation import durations, moments, times

NS = 10**9
LARGEST = (1 << 63) - 1
UTC = datetime.UTC
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=UTC)

# What Go's own rules say (time.ParseDuration): decimal numbers, each with its unit.
DURATIONS = {
    "0": 0,
    "5s": 5 * NS,
    "30s": 30 * NS,
    "1478s": 1478 * NS,
    "-5s": -5 * NS,
    "+5s": 5 * NS,
    "-0": 0,
    "+0": 0,
    "5.0s": 5 * NS,
    "5.6s": 5_600_000_000,
    "5.s": 5 * NS,
    ".5s": 500_000_000,
    "1.004s": 1_004_000_000,
    "100.00100s": 100_001_000_000,
    "10ns": 10,
    "11us": 11_000,
    "12\u00b5s": 12_000,
    "12\u03bcs": 12_000,
    "13ms": 13_000_000,
    "14m": 840 * NS,
    "15h": 54_000 * NS,
    "3h30m": 12_600 * NS,
    "10.5s4m": 250_500_000_000,
    "-2m3.4s": -123_400_000_000,
    "1h2m3s4ms5us6ns": 3_723_004_005_006,
    "39h9m14.425s": 140_954_425_000_000,
    "0.3333333333333333333h": 1200 * NS,
    "9007199254740993ns": 9007199254740993,
    f"{LARGEST}ns": LARGEST,
    "9223372036854775.807us": LARGEST,
    "9223372036s854ms775us807ns": LARGEST,
    f"-{LARGEST + 1}ns": -LARGEST - 1,
    "0.830103483285477580700h": 2_988_372_539_827,
}
NO_DURATIONS = (
    "",
    "3",
    "-",
    "s",
    ".",
    "-.",
    ".s",
    "+.s",
    "1d",
    "1w",
    "3S",
    " 5s",
    "5s ",
    "5 s",
    "1e3s",
    "5s-3s",
    "--5s",
    "3000000h",
    "9223372036854775808ns",
    "9223372036854ms775us808ns",
    "-9223372036854775809ns",
    "\u0663s",
    "0x1s",
)


@pytest.mark.parametrize(("text", "ns"), DURATIONS.items())
def test_durations_that_go_knows(text, ns):
    assert durations.parse(text) == ns


@pytest.mark.parametrize("text", NO_DURATIONS)
def test_invalid_durations(text):
    assert durations.parse(text) is None


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0s"),
        (1, "1ns"),
        (1100, "1.1\u00b5s"),
        (2_200_000, "2.2ms"),
        (3_300_000_000, "3.3s"),
        (245 * NS, "4m5s"),
        (245_001_000_000, "4m5.001s"),
        (18_367_001_000_000, "5h6m7.001s"),
        (480_000_000_001, "8m0.000000001s"),
        (3600 * NS, "1h0m0s"),
        (-60 * NS, "-1m0s"),
        (LARGEST, "2562047h47m16.854775807s"),
    ],
)
def test_durations_as_go_prints_them(ns, text):
    assert durations.write(ns) == text


@given(st.integers(-LARGEST - 1, LARGEST) | st.integers(-100 * NS, 100 * NS))
def test_durations_are_read_as_they_are_written(ns):
    assert durations.parse(durations.write(ns)) == ns


@given(st.text(max_size=12) | st.text("0123456789.+-hmsnu", max_size=30))
def test_no_text_breaks_the_reader_of_durations(text):
    found = durations.parse(text)
    assert found is None or -LARGEST - 1 <= found <= LARGEST


def moment_of(when: datetime.datetime) -> int:
    delta = when - EPOCH
    return (delta.days * 86_400 + delta.seconds) * NS + delta.microseconds * 1000


ZONES = st.integers(-23 * 60 - 59, 23 * 60 + 59).map(lambda m: datetime.timezone(datetime.timedelta(minutes=m)))


@given(st.datetimes(datetime.datetime(2, 1, 1), datetime.datetime(9998, 1, 1), timezones=ZONES))
def test_times_of_all_zones_are_read(when):
    assert moments.rfc3339(when.isoformat()) == moment_of(when)


@given(st.datetimes(datetime.datetime(2, 1, 1), timezones=st.just(UTC)), st.integers(0, 999))
@example(datetime.datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC), 0)
def test_times_are_read_as_they_are_written(when, further):
    ns = moment_of(when) + further
    clock = times.Clock()
    for text in (times.rfc3339(ns), times.fixed(ns), clock.rfc3339(ns), clock.fixed(ns), times.local(ns)):
        assert moments.rfc3339(text) == ns
    assert times.fixed(ns)[:19] == when.isoformat()[:19]
    assert times.rfc3339(ns) == clock.rfc3339(ns) and times.fixed(ns) == clock.fixed(ns)
    assert not times.rfc3339(ns).endswith("0Z") or "." not in times.rfc3339(ns)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2024-02-30T00:00:00Z",
        "2023-02-29T00:00:00Z",
        "2024-00-01T00:00:00Z",
        "2024-13-01T00:00:00Z",
        "2024-01-01T24:00:00Z",
        "2024-01-01T23:60:00Z",
        "2024-12-31T23:59:60Z",
        "2024-01-01T00:00:00",
        "2024-01-01",
        "2024-01-01 00:00:00Z",
        "2024-01-01T00:00:00+24:00",
        "2024-01-01T00:00:00+01:60",
        "2024-01-01T00:00:00.Z",
        "24-01-01T00:00:00Z",
        "2024-1-1T00:00:00Z",
        "2024-01-01T00:00:00Zz",
        "\u0662024-01-01T00:00:00Z",
    ],
)
def test_invalid_times(text):
    assert moments.rfc3339(text) is None


def test_leap_days_and_figures_beyond_nanoseconds():
    assert times.fixed(moments.rfc3339("2024-02-29T12:00:00.1234567899Z") or 0) == "2024-02-29T12:00:00.123456789Z"
    assert times.rfc3339(moments.rfc3339("2000-02-29T00:00:00+01:00") or 0) == "2000-02-28T23:00:00Z"


def test_unset_times_are_the_zero_time_of_go():
    assert times.rfc3339_or_never(0) == times.rfc3339_or_never(-5) == times.NEVER
    assert times.rfc3339(moments.rfc3339(times.NEVER) or 0) == times.NEVER
    assert times.rfc3339_or_never(1) == "1970-01-01T00:00:00.000000001Z"


@pytest.fixture
def zone(monkeypatch, request):
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield request.param
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("zone", "shown"), [("UTC0", "Z"), ("XXX-05:30", "+05:30"), ("XXX+03", "-03:00")], indirect=["zone"]
)
def test_local_times(zone, shown):
    assert times.local(1_700_000_000_123_456_789)[19:] == f".123456789{shown}"
    assert times.local(1_700_000_000_123_456_789, 6)[19:] == f".123456{shown}"
    assert times.local(1_700_000_000_123_456_789, 0)[19:] == shown
    assert moments.rfc3339(times.local(1_700_000_000 * NS)) == 1_700_000_000 * NS


@pytest.mark.parametrize("zone", ["XXX-01"], indirect=True)
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10m", "1970-01-01T00:20:00Z"),
        ("-1h", "1970-01-01T01:30:00Z"),
        ("0", "1970-01-01T00:00:00Z"),
        ("12.5", "1970-01-01T00:00:12.5Z"),
        ("-1", "1969-12-31T23:59:59Z"),
        ("2024-01-02", "2024-01-01T23:00:00Z"),
        ("2024-01-02Z", "2024-01-02T00:00:00Z"),
        ("2024-01-02-02:00", "2024-01-02T02:00:00Z"),
        ("2024-01-02T03", "2024-01-02T02:00:00Z"),
        ("2024-01-02T03:04", "2024-01-02T02:04:00Z"),
        ("2024-01-02T03:04:05.6", "2024-01-02T02:04:05.6Z"),
        ("2024-01-02T03:04:05Z", "2024-01-02T03:04:05Z"),
        ("2024-01-02T03+02:00", "2024-01-02T01:00:00Z"),
        ("2024-01-02T03:04+02:00", "2024-01-02T01:04:00Z"),
    ],
)
def test_since_and_until(zone, text, expected):
    found = moments.parse(text, 1800 * NS)
    assert found is not None
    assert times.rfc3339(found) == expected


@given(st.text(max_size=12) | st.text("0123456789-T:.Z+", max_size=30))
def test_no_text_breaks_the_reader_of_moments(text):
    for found in (moments.rfc3339(text), moments.parse(text, 0)):
        assert found is None or isinstance(found, int)
