"""A state database that a newer Ketch has written, in the hands of this one: what is new in it stays, or no start."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess

import pytest

from tests.support.boxes.damage import database, refused
from tests.support.rawapi import Api
from tests.support.waiting import patient

pytestmark = pytest.mark.ketch_only
TABLES = {
    "containers": "name",
    "volumes": "name",
    "networks": "name",
    "network_endpoints": "network_id",
    "images": "id",
}


def rows(engine) -> dict[tuple[str, str], dict]:
    """Every record, by table and key."""
    with contextlib.closing(sqlite3.connect(database(engine))) as db:
        return {
            (table, key): json.loads(record)
            for table, column in TABLES.items()
            for key, record in db.execute(f"SELECT {column}, record FROM {table}")
        }


def edit(engine, change) -> None:
    """``change`` every record of a daemon that was stopped, as another version of it might have written them."""
    with contextlib.closing(sqlite3.connect(database(engine))) as db, db:
        for table, column in TABLES.items():
            for key, record in db.execute(f"SELECT {column}, record FROM {table}").fetchall():
                changed = json.dumps(change(table, json.loads(record)), separators=(",", ":")).encode()
                db.execute(f"UPDATE {table} SET record = ? WHERE {column} = ?", (changed, key))
    with contextlib.suppress(FileNotFoundError):
        os.unlink(database(engine) + "-mark")  # edited on purpose


def with_more(table: str, record: dict) -> dict:
    record["Newer"] = {"of": table, "list": [1, {"a": None}]}
    if table == "containers":
        record["host"]["GpuPolicy"] = record["state"]["phase"] = "shared"
        record["mounts"][0]["Freshness"] = 7
        for one in record["networks"].values():
            one["Lane"] = 3
    elif table == "networks":
        for pool in record["pools"]:
            pool["scope"] = "site"
    elif table == "images":
        record["config"]["config"] = {**record["config"].get("config", {}), "Sealed": True}
    return record


def test_fields_of_a_newer_version_are_kept(own_engine):
    own_engine.start()
    own_engine.add_busybox()
    api = Api(own_engine.socket)
    client = own_engine.client
    client("network", "create", "net")
    client("volume", "create", "data")
    host = {"Binds": ["data:/data"], "NetworkMode": "net"}
    api.must(
        "POST", "/containers/create", {"Image": "busybox", "Cmd": ["sleep", "1000"], "HostConfig": host}, name="one"
    )
    own_engine.stop()
    before = rows(own_engine)
    assert {record["schema"] for record in before.values()} == {1}
    edit(own_engine, with_more)
    own_engine.start()
    client("start", "one")
    client("rename", "one", "two")
    client("update", "--memory", "32m", "--memory-swap", "64m", "two")
    client("tag", "busybox", "other")
    client("restart", "-t", "0", "two")
    client("stop", "-t", "0", "two")
    own_engine.stop()
    after = rows(own_engine)
    container = after["containers", "two"]
    assert container["host"]["Memory"] == 32 << 20
    assert container["state"]["status"] == "exited"
    assert container["Newer"] == {"of": "containers", "list": [1, {"a": None}]}
    assert container["host"]["GpuPolicy"] == container["state"]["phase"] == "shared"
    assert container["mounts"][0]["Freshness"] == 7
    assert container["networks"]["net"]["Lane"] == 3
    for (table, key), record in after.items():
        if table != "network_endpoints":  # those of before were gone with the run
            assert record["Newer"]["of"] == table, key
    networks = [record for (table, _), record in after.items() if table == "networks" and record["pools"]]
    assert all(pool["scope"] == "site" for record in networks for pool in record["pools"])
    assert [record["config"]["config"]["Sealed"] for (table, _), record in after.items() if table == "images"] == [True]


def test_records_of_before_they_had_versions(own_engine):
    own_engine.start()
    own_engine.add_busybox()
    own_engine.client("create", "--name", "one", "-v", "data:/data", "busybox", "true")
    own_engine.stop()

    def older(_table: str, record: dict) -> dict:
        del record["schema"]
        for field in ("pending", "own_hosts", "name_servers", "anonymous", "labels", "retired", "forms"):
            record.pop(field, None)
        return record

    edit(own_engine, older)
    own_engine.start()
    own_engine.client("start", "-a", "one")
    own_engine.client("rename", "one", "two")
    own_engine.stop()
    assert rows(own_engine)["containers", "two"]["schema"] == 1


@pytest.mark.parametrize("table", ["containers", "volumes", "networks", "images"])
def test_records_of_a_newer_form_are_refused(own_engine, table):
    own_engine.start()
    own_engine.add_busybox()
    own_engine.client("create", "--name", "one", "-v", "data:/data", "busybox", "true")
    own_engine.stop()
    edit(own_engine, lambda of, record: {**record, "schema": 2} if of == table else record)
    said = refused(own_engine)
    assert f"in its table `{table}` is of version 2, this program knows 1" in said
    assert "newer version of ketch" in said
    repair = [*own_engine.command(), "--repair"]
    done = subprocess.run(repair, capture_output=True, text=True, timeout=patient(30), check=False)
    assert done.returncode == 1, "a repair by this version would lose what it cannot read"
    assert "version 2" in done.stderr
    assert "Traceback" not in done.stderr
    assert {record["schema"] for (of, _), record in rows(own_engine).items() if of == table} == {2}
    edit(own_engine, lambda _table, record: {**record, "schema": 1})
    own_engine.start()
    own_engine.client("start", "-a", "one")
