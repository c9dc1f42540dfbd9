"""Output of commands from the daemon's answers: stats, df, events, info, version; and exit codes."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from ketch.cli import catalog, main
from ketch.cli.commands.containers import stats
from ketch.cli.commands.system import df, events, info, version
from ketch.cli.errors import UsageError
from ketch.cli.gotemplate.parse import parse_error
from ketch.client.errors import error_in
from ketch.errors import KetchError, NotFound, ProgramNotExecutable, ProgramNotFound, RuntimeFailure

READING: dict[str, Any] = {
    "id": "f" * 64,
    "name": "/web",
    "memory_stats": {"usage": 3 << 20, "limit": 1 << 30, "stats": {"total_inactive_file": 1 << 20}},
    "cpu_stats": {"cpu_usage": {"total_usage": 3_000}, "system_cpu_usage": 20_000, "online_cpus": 2},
    "precpu_stats": {"cpu_usage": {"total_usage": 1_000}, "system_cpu_usage": 10_000},
    "networks": {"eth0": {"rx_bytes": 1500, "tx_bytes": 10}, "eth1": {"rx_bytes": 500, "tx_bytes": 0}},
    "blkio_stats": {"io_service_bytes_recursive": [{"op": "Read", "value": 4096}, {"op": "write", "value": 5}]},
    "pids_stats": {"current": 3},
}


def test_a_row_of_stats() -> None:
    row = stats.row("web", READING, whole=False)
    assert row == {
        "BlockIO": "4.1kB / 5B",
        "CPUPerc": "40.00%",
        "Container": "web",
        "ID": "f" * 12,
        "MemPerc": "0.20%",
        "MemUsage": "2MiB / 1GiB",
        "Name": "web",
        "NetIO": "2kB / 10B",
        "PIDs": "3",
    }
    assert stats.row("web", READING, whole=True)["ID"] == "f" * 64


def test_stats_of_what_does_not_run() -> None:
    row = stats.row("x", {"id": "a" * 64, "name": "/x"}, whole=False)
    assert (row["CPUPerc"], row["MemUsage"], row["PIDs"]) == ("0.00%", "0B / 0B", "0")


@pytest.mark.parametrize(
    ("memory", "used"),
    [
        ({"usage": 10, "stats": {"inactive_file": 4}}, 6),
        ({"usage": 10, "stats": {"total_inactive_file": 3, "inactive_file": 4}}, 7),
        ({"usage": 10, "stats": {"inactive_file": 20}}, 10),
        ({}, 0),
    ],
)
def test_page_cache_is_not_memory_in_use(memory: dict[str, Any], used: int) -> None:
    assert stats.memory_used(memory) == used


def test_df_counts_as_docker_does() -> None:
    usage = {
        "LayersSize": 3000,
        "Images": [
            {"Size": 2000, "SharedSize": 500, "Containers": 1},
            {"Size": 1500, "SharedSize": 500, "Containers": 0},
        ],
        "Containers": [{"State": "running", "SizeRw": 10}, {"State": "exited", "SizeRw": 30}, {"State": "paused"}],
        "Volumes": [{"UsageData": {"Size": 5, "RefCount": 1}}, {"UsageData": {"Size": 15, "RefCount": 0}}],
    }
    rows = [tuple(row[k] for k in ("Type", "TotalCount", "Active", "Size", "Reclaimable")) for row in df.summary(usage)]
    assert rows == [
        ("Images", "2", "1", "3kB", "1.5kB (50%)"),
        ("Containers", "3", "2", "40B", "30B (75%)"),
        ("Local Volumes", "2", "1", "20B", "15B (75%)"),
        ("Build Cache", "0", "0", "0B", "0B"),
    ]


def test_df_of_nothing() -> None:
    empty = {"LayersSize": 0, "Images": None, "Containers": None, "Volumes": None}
    assert {row["Reclaimable"] for row in df.summary(empty)} == {"0B"}


@pytest.mark.parametrize(("zone", "stamp"), [("UTC", "01:00:01.000000007Z"), ("XYZ-5:30", "06:30:01.000000007+05:30")])
def test_a_line_of_events(zone: str, stamp: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        event = {
            "Type": "container",
            "Action": "start",
            "timeNano": 3_601_000_000_007,
            "Actor": {"ID": "abc", "Attributes": {"name": "n", "image": "i"}},
        }
        assert events.line(event) == f"1970-01-01T{stamp} container start abc (image=i, name=n)"
        event["Actor"] = {"ID": "abc", "Attributes": None}
        assert events.line(event).endswith(" container start abc")
    finally:
        monkeypatch.undo()
        time.tzset()


def test_versions_of_the_servers_parts() -> None:
    engine = {
        "Name": "Engine",
        "Version": "1",
        "Details": {
            "ApiVersion": "1.51",
            "MinAPIVersion": "1.24",
            "Os": "linux",
            "Arch": "arm64",
            "GoVersion": "none",
            "GitCommit": "",
            "BuildTime": "",
            "Experimental": "false",
        },
    }
    assert version.component_facts(engine) == [
        ("Version", "1"),
        ("API version", "1.51 (minimum version 1.24)"),
        ("OS/Arch", "linux/arm64"),
        ("Experimental", "false"),
    ]
    other = {"Name": "x", "Version": "2", "Details": {"B": "1", "A": "2"}}
    assert version.component_facts(other) == [("Version", "2"), ("A", "2"), ("B", "1")]
    assert version.component_facts({"Name": "x", "Version": "2"}) == [("Version", "2")]


def test_times_of_builds() -> None:
    assert version.readable("2026-05-07T21:09:36.000000000+00:00") == "Thu May  7 21:09:36 2026"
    assert version.readable("once") == "once"


INFO: dict[str, Any] = {
    "Containers": 3,
    "ContainersRunning": 1,
    "ContainersPaused": 0,
    "ContainersStopped": 2,
    "Images": 4,
    "ServerVersion": "0.1",
    "Driver": "overlay2",
    "DriverStatus": [["Backing Filesystem", "ext4"]],
    "LoggingDriver": "local",
    "CgroupDriver": "cgroupfs",
    "CgroupVersion": "2",
    "Plugins": {"Volume": ["local"], "Network": ["bridge", "host"], "Authorization": None, "Log": None},
    "Swarm": {"LocalNodeState": "inactive"},
    "Runtimes": {"z": {}, "a": {}},
    "DefaultRuntime": "a",
    "InitBinary": "tini",
    "SecurityOptions": ["name=seccomp,profile=builtin", "name=rootless"],
    "KernelVersion": "6",
    "OperatingSystem": "D",
    "OSType": "linux",
    "Architecture": "x86_64",
    "NCPU": 2,
    "MemTotal": 1 << 30,
    "Name": "vm",
    "ID": "i",
    "DockerRootDir": "/d",
    "Labels": ["a=b"],
    "HttpProxy": "http://p",
    "LiveRestoreEnabled": True,
    "RegistryConfig": {"InsecureRegistryCIDRs": ["127.0.0.0/8"], "IndexConfigs": {"r": {"Secure": False}}},
}


def test_the_page_of_info() -> None:
    lines = list(info.lines(INFO))
    assert lines[:4] == ["Containers: 3", " Running: 1", " Paused: 0", " Stopped: 2"]
    page = "\n".join(lines) + "\n"
    assert "Plugins:\n Volume: local\n Network: bridge host\n Log: \nSwarm: inactive\n" in page
    assert "Runtimes: a z\nDefault Runtime: a\nInit Binary: tini\nSecurity Options:\n" in page
    assert "Security Options:\n seccomp\n  Profile: builtin\n rootless\nKernel Version: 6\n" in page
    assert "Total Memory: 1GiB\n" in page
    assert "HTTP Proxy: http://p\nLabels:\n a=b\nExperimental: false\n" in page
    assert page.endswith("Insecure Registries:\n r\n 127.0.0.0/8\nLive Restore Enabled: true\n")


def test_other_programs_commits_are_shown_when_there_are_any() -> None:
    page = list(info.lines({**INFO, "RuncCommit": {"ID": "r1"}, "InitCommit": {"ID": ""}}))
    assert page[page.index("runc version: r1") - 1 :][:3] == [
        "containerd version: ",
        "runc version: r1",
        "init version: ",
    ]


@pytest.mark.parametrize(
    ("command", "error", "code"),
    [
        ("ps", NotFound("No such container: x"), 1),
        ("run", NotFound("No such image: x"), 125),
        ("run", ProgramNotFound("why"), 127),
        ("run", ProgramNotExecutable("why"), 126),
        ("run", RuntimeFailure("mount `/a`: no such file or directory"), 125),
        ("run", UsageError("invalid value"), 125),
        ("exec", ProgramNotFound("why"), 127),
        ("exec", NotFound("No such container: x"), 1),
        ("inspect", parse_error("unclosed action"), 64),
        ("ps", parse_error("unclosed action"), 1),
    ],
)
def test_exit_codes(command: str, error: Any, code: int) -> None:
    assert main.failure_code(command, error) == code


@pytest.mark.parametrize(
    ("status", "message", "code"),
    [
        (400, 'exec: "x": executable file not found in $PATH: unknown', 127),
        (400, 'exec: "/x": stat /x: no such file or directory: unknown', 127),
        (400, 'exec: "/etc": is a directory: unknown', 126),
        (400, "invalid reference format", 125),
        (500, "mount /a to /b: no such file or directory", 125),
        (404, "No such image: executable file not found", 125),
    ],
)
def test_exit_codes_of_run_with_a_daemon_that_says_no_kind(status: int, message: str, code: int) -> None:
    error = error_in(status, json.dumps({"message": message}).encode())
    assert error.kind == ""
    assert main.failure_code("run", error) == code


def test_a_kind_counts_more_than_a_status_and_a_text() -> None:
    body = {"message": "no such file or directory", "kind": "invalid_argument"}
    assert main.failure_code("run", error_in(400, json.dumps(body).encode())) == 125
    unknown = error_in(404, json.dumps({**body, "kind": "of_a_later_version"}).encode())
    assert isinstance(unknown, NotFound)
    assert isinstance(error_in(502, b"<html>Bad Gateway"), KetchError)


@pytest.mark.parametrize(
    "line",
    ["ps --bogus", "images -Z", "events --since", "ps -n x", "stats --no-stream=maybe", "inspect", "history"],
)
def test_invalid_flags_need_no_daemon(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = line.split()
    code = main.run(["-H", "unix:///nonexistent/socket", *arguments])
    out, err = capsys.readouterr()
    assert (code, out) == (1 if arguments[-1] in ("inspect", "history") else 125, "")
    assert err.startswith("ketch: ")
    assert "connect" not in err


@pytest.mark.parametrize("name", sorted(catalog.COMMANDS))
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run([name, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"Usage:  ketch {name}")


@pytest.mark.parametrize(("group", "name"), [(g, n) for g, names in catalog.GROUPS.items() for n in sorted(names)])
def test_every_grouped_command_explains_itself(group: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run([group, name, "--help"]) == 0
    assert capsys.readouterr().out.startswith("Usage:  ketch ")
