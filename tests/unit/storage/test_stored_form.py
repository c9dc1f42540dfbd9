"""The records of version 1 with every field that they had, as they stand in databases: each of them is still read.

A field that gets another name, or another type, would be lost in the rows that are there, and needs a new version of
the records with an upgrade; fields that are added need neither, and may be added to the file, too.
"""

from __future__ import annotations

import json
import os

import msgspec
import pytest

from ketch.engine.model import store
from ketch.engine.volumes import store as volumes
from ketch.images import schema as images
from ketch.network.model import schema as networks

with open(os.path.join(os.path.dirname(__file__), "../../data/records-1.json"), encoding="utf-8") as f:
    RECORDS = json.load(f)
FORMS = {
    "containers": store.FORM,
    "volumes": volumes.FORM,
    "networks": networks.NETWORKS,
    "network_endpoints": networks.ENDPOINTS,
    "images": images.FORM,
}


@pytest.mark.parametrize("table", FORMS)
def test_every_field_is_read(table):
    value, unknown = FORMS[table].read(msgspec.json.encode(RECORDS[table]))
    assert unknown is None, f"fields of stored {table} have other names or places now"
    again = json.loads(FORMS[table].encode(value))
    assert {name: again[name] for name in RECORDS[table]} == RECORDS[table]


def test_nothing_is_left_out():
    assert set(RECORDS) == set(FORMS)
