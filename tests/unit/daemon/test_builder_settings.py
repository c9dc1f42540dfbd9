"""``builder`` in daemon.json: dockerd's keys and their forms."""

from __future__ import annotations

import pytest

from ketch.daemon.settings import builder
from ketch.daemon.settings.config import Config
from ketch.engine.model.building.records import HistoryLimits
from ketch.errors import InvalidArgument

HOUR = 3600 * 10**9


def read(**found) -> Config:
    config = Config(builder=found)
    builder.check(config)
    return config


def test_limits_of_the_history():
    assert builder.history(read()) == HistoryLimits(max_entries=50, max_age=48 * HOUR)
    assert builder.history(read(history={"maxAge": "10h", "maxEntries": 5})) == HistoryLimits(
        max_entries=5, max_age=10 * HOUR
    )
    assert builder.history(read(history={"maxAge": "3600"})).max_age == HOUR
    assert builder.history(read(history={"maxEntries": -1})).max_entries == 50


def test_entitlements_that_are_denied():
    assert builder.denied(read()) == frozenset()
    found = read(entitlements={"network-host": False, "security-insecure": True, "device": False})
    assert builder.denied(found) == {"network.host", "device"}


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"history": {"maxAge": "x"}}, "invalid duration x"),
        ({"history": {"maxAge": 3600}}, "Expected `str`, got `int`"),
        ({"history": {"maxage": "1h"}}, "unknown field `maxage`"),
        ({"entitlements": {"x": True}}, "unknown field `x`"),
        ({"entitlements": {"device": "yes"}}, "Expected `bool"),
        ({"gc": {"defaultMaxUsedSpace": "x"}}, "defaultMaxUsedSpace"),
    ],
)
def test_what_is_refused(found, message):
    with pytest.raises(InvalidArgument, match=message):
        read(**found)
