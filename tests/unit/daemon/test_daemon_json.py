"""Files and flags of dockerd's, odd ones among them: what it takes is taken, and what it refuses is refused.

``tests/data/daemon-json.json`` has what ``dockerd --validate`` of 28.5 says of each, and what ketchd says.  They differ
where dockerd finds a mistake when it starts, or never, and where it is stricter with parts that Ketch has not.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess

import pytest

from ketch import places
from ketch.daemon.settings import load
from ketch.errors import InvalidArgument
from tests.support import peers

with open(os.path.join(os.path.dirname(__file__), "../../data/daemon-json.json"), encoding="utf-8") as f:
    CASES = json.load(f)


def loaded(tmp_path, text: str, *flags: str) -> load.Config:
    path = tmp_path / "daemon.json"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    return load.load(["--config-file", str(path), *flags])


@pytest.mark.parametrize("case", CASES, ids=lambda case: " ".join([case["file"], *case["flags"]]).strip())
def test_what_ketchd_says(tmp_path, case):
    try:
        loaded(tmp_path, case["file"], *case["flags"])
    except InvalidArgument:
        taken = False
    except SystemExit as e:
        assert e.code == 1  # as dockerd's
        taken = False
    else:
        taken = True
    assert taken == case["ketchd"]


def test_what_dockerd_says():
    if peers.MISSING:
        pytest.skip(peers.MISSING)
    lines = ["set -e; d=$(mktemp); trap 'rm $d' EXIT"]
    for case in CASES:
        flags = shlex.join(case["flags"])
        lines.append(f"printf %s {shlex.quote(case['file'])} >$d")
        lines.append(f"dockerd --validate --config-file $d {flags} >/dev/null 2>&1 && echo yes || echo no")
    script = "\n".join(lines)
    done = subprocess.run(peers.command("sh"), input=script, capture_output=True, text=True, check=True)
    said = [line == "yes" for line in done.stdout.split()]
    assert len(said) == len(CASES)
    assert [case for case, answer in zip(CASES, said, strict=True) if case["dockerd"] != answer] == []


def test_what_is_empty_or_nothing_stands_for_the_default(tmp_path):
    empty = {"mtu": 0, "shutdown-timeout": 0, "max-concurrent-downloads": 0, "log-level": "", "group": "", "hosts": []}
    found = loaded(tmp_path, json.dumps({**empty, "icc": False, "proxies": {"http-proxy": None}}))
    wanted = loaded(tmp_path, '{"icc": false}')
    assert found == wanted
    assert (found.mtu, found.shutdown_timeout, found.icc, found.proxies) == (1500, 15, False, {})


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (":2399", "tcp://localhost:2399"),
        ("tcp://:2399", "tcp://localhost:2399"),
        ("tcp://", "tcp://localhost:2375"),
        ("127.0.0.1:2399", "tcp://127.0.0.1:2399"),
        ("", places.mine().host),
        ("unix://", places.mine().host),
        ("fd://", "fd://"),
    ],
)
def test_addresses_are_completed_as_dockerd_does(tmp_path, given, meant):
    assert loaded(tmp_path, "", "-H", given).hosts == [meant]
    assert loaded(tmp_path, json.dumps({"hosts": [given]})).hosts == [meant]


def test_settings_in_older_and_other_forms(tmp_path):
    found = loaded(
        tmp_path,
        """{"host-gateway-ip": "10.0.0.1", "log-level": "TRACE", "fixed-cidr": "10.1.0.9/16",
            "default-ulimits": {"core": {"name": "core", "HARD": 1}}, "insecure-registries": ["http://r:5000"],
            "default-address-pools": [{"base": "10.2.0.1/16", "size": 24}]}""",
    )
    assert found.host_gateway_ips == ["10.0.0.1"]
    assert (found.log_level, found.fixed_cidr) == ("debug", "10.1.0.0/16")
    assert found.insecure_registries == ["r:5000"] and "insecure registry http://r:5000" in found.notes[0]
    assert found.default_address_pools[0]["base"] == "10.2.0.0/16"
    both = '{"host-gateway-ip": "10.0.0.1", "host-gateway-ips": ["10.0.0.1"]}'
    with pytest.raises(InvalidArgument, match="host-gateway-ip and host-gateway-ips"):
        loaded(tmp_path, both)


def test_tls_is_on_where_tlsverify_is_set_at_all(tmp_path):
    certificates = ["--tlscert", "/c", "--tlskey", "/k"]
    assert loaded(tmp_path, '{"tlsverify": false}', *certificates).tls is True
    assert loaded(tmp_path, "", "--tlsverify=false", *certificates).tls is True
    assert loaded(tmp_path, "", *certificates).tls is False


def test_wrong_flags_are_named_in_a_line(capsys):
    with pytest.raises(SystemExit, match="1"):
        load.load(["--nope"])
    assert capsys.readouterr().err == "ketchd: unrecognized arguments: --nope\n  see ketchd --help\n"
