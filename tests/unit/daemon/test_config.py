"""ketchd's settings: flags over file over defaults."""

from __future__ import annotations

import json

import pytest

from ketch import places
from ketch.daemon.settings import config, load
from ketch.errors import InvalidArgument


@pytest.fixture(autouse=True)
def no_system_file(monkeypatch, tmp_path):
    monkeypatch.setattr(places.ROOT, "config", str(tmp_path / "absent.json"))


def test_defaults():
    settings = load.load([])
    assert settings.hosts == [places.ROOT.host]
    assert settings.data_root == "/var/lib/ketch"
    assert settings.exec_root == "/run/ketch"


def test_flags_and_file_are_joined(tmp_path):
    path = tmp_path / "daemon.json"
    path.write_text(json.dumps({"data-root": "/srv/k", "debug": True}))
    settings = load.load(["--config-file", str(path), "--exec-root", "/run/k", "--log-opt", "max-file=3"])
    assert (settings.data_root, settings.exec_root, settings.log_level) == ("/srv/k", "/run/k", "debug")
    assert settings.log_opts == {"max-file": "3"}


def test_the_same_setting_twice_is_refused(tmp_path):
    path = tmp_path / "daemon.json"
    path.write_text('{"data-root": "/srv/k"}')
    with pytest.raises(InvalidArgument, match="specified both as a flag and in .*: data-root"):
        load.load(["--config-file", str(path), "--data-root", "/srv/other"])


@pytest.mark.parametrize("text", ["", " \n", "{}", "\ufeff{}", "null", '{"dns": null, "mtu": null, "iptables": null}'])
def test_files_that_say_nothing(tmp_path, text):
    path = tmp_path / "daemon.json"
    path.write_text(text)
    assert load.load(["--config-file", str(path)]) == load.load([])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "read configuration"),
        ("[]", "not a JSON object"),
        ('{"dta-root": "x"}', "unknown keys: dta-root"),
        ('{"dta-root": null}', "unknown keys: dta-root"),
    ],
)
def test_bad_files(tmp_path, text, complaint):
    path = tmp_path / "daemon.json"
    path.write_text(text)
    with pytest.raises(InvalidArgument, match=complaint):
        load.load(["--config-file", str(path)])


@pytest.mark.parametrize(
    "host", ["tcp://127.0.0.1:0", "tcp://localhost:2375", "tcp://[::1]:2375", "unix:///tmp/x.sock"]
)
def test_loopback_needs_no_tls(host):
    assert load.load(["-H", host]).hosts == [host]


@pytest.mark.parametrize("host", ["tcp://0.0.0.0:2375", "tcp://192.0.2.1:2375", "tcp://[::]:2375"])
def test_plain_tcp_beyond_loopback_is_refused_unless_asked_for(host):
    with pytest.raises(InvalidArgument, match="refused"):
        load.load(["-H", host])
    assert load.load(["-H", host, "--insecure-tcp"]).insecure_tcp
    with pytest.raises(InvalidArgument, match="without a certificate"):
        load.load(["-H", host, "--tls"])


@pytest.mark.parametrize("size", ["-5", "60", "70000"])
def test_sizes_that_no_packet_can_have(size):
    with pytest.raises(InvalidArgument, match="not between 68 and 65535"):
        load.load(["--mtu", size])


@pytest.mark.parametrize("host", ["http://x", "/var/run/x", "tcp://127.0.0.1:http", "tcp://127.0.0.1:70000"])
def test_bad_addresses(host):
    with pytest.raises(InvalidArgument):
        load.load(["-H", host])


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("tcp://127.0.0.1", ("127.0.0.1", 2375)),
        ("tcp://[::1]:80", ("::1", 80)),
        ("tcp://:1", ("0.0.0.0", 1)),
    ],
)
def test_tcp_addresses(host, expected):
    assert config.tcp_address(host) == expected
