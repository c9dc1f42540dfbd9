"""Resource usage: every column of ``stats``, and the stream for many containers."""

from __future__ import annotations

import json
import socket
import time

import docker.errors
import pytest

from tests.support.boxes import loop_disk
from tests.support.engines import API
from tests.support.programs import need_links
from tests.support.waiting import patient

SLEEP = ("busybox", "sleep", "1000")
# 20 MiB of memory, 30 MiB of page cache that nobody needs any more, 2 MiB written to the disk itself; then only work.
# The files are on a block device, wherever the engine's own are.
WORKER = (
    "dd if=/dev/zero of=/dev/shm/x bs=1M count=20 && dd if=/dev/zero of=/disk/big bs=1M count=30 conv=fsync && "
    "dd if=/dev/zero of=/disk/direct bs=1M count=2 oflag=direct && "
    "ping -c 2 -i 0.1 $(ip route | awk '/default/{print $3}') && "
    "echo ready && while :; do :; done"
)
FIELDS = {
    "id",
    "name",
    "status",
    "cpu_percent",
    "cpu_ns",
    "memory_bytes",
    "memory_limit_bytes",
    "pids",
    "pids_limit",
    "read_bytes",
    "written_bytes",
    "networks",
}


@pytest.fixture
def worker(engine, disk):
    """The id of a container that uses a known amount of everything."""
    # Newer kernels (v1) count the traffic with a disk only where there is a limit on it.
    limit = f"{loop_disk.device_of(disk)}:1gb"
    flags = ("--name", "worker", "-m", "200m", "--shm-size", "64m", "--pids-limit", "50", "--device-write-bps", limit)
    container_id = engine.docker("run", "-d", *flags, "-v", f"{disk}:/disk", "busybox", "sh", "-c", WORKER).out.strip()
    with engine.docker.piped("logs", "-f", "worker") as logs:
        logs.expect("ready")
    yield container_id
    engine.docker("rm", "-f", "worker")


@pytest.fixture
def disk(tmp_path):
    """A directory on a block device."""
    if loop_disk.device_of(str(tmp_path)) is not None:
        yield str(tmp_path)
        return
    with loop_disk.ext4(str(tmp_path / "image"), str(tmp_path / "disk"), 64 << 20) as place:
        yield place


def stream(docker_py, **params):
    """The lines of ``/ketch/stats``, decoded."""
    url = docker_py.api._url("/ketch/stats").replace(f"/v{API}", "")
    response = docker_py.api._get(url, params=params, stream=True)
    docker_py.api._raise_for_status(response)
    return map(json.loads, response.iter_lines())


def size(text: str) -> float:
    """``20.5MiB`` or ``2kB`` in bytes."""
    number = text.rstrip("kKMGTiB")
    unit = text[len(number) :].rstrip("B")
    factor = 1024 if unit.endswith("i") else 1000
    return float(number) * factor ** "kMGT".find(unit[0].replace("K", "k")) * factor if unit else float(number)


def test_every_column(client, worker):
    row = json.loads(client("stats", "--no-stream", "--no-trunc", "--format", "json", "worker").out)
    assert (row["ID"], row["Name"], row["Container"]) == (worker, "worker", "worker")
    assert 10 < float(row["CPUPerc"].rstrip("%")) < 130
    used, limit = map(size, row["MemUsage"].split(" / "))
    assert limit == 200 << 20
    assert 20 << 20 < used < 35 << 20  # without the page cache
    assert float(row["MemPerc"].rstrip("%")) == pytest.approx(100 * used / limit, abs=0.5)
    received, sent = map(size, row["NetIO"].split(" / "))
    assert received > 150 and sent > 150
    assert size(row["BlockIO"].split(" / ")[1]) >= 2_000_000
    assert row["PIDs"] == "1"


def test_a_reading(docker_py, worker):
    reading = docker_py.containers.get("worker").stats(stream=False)
    cpu, before = reading["cpu_stats"], reading["precpu_stats"]
    used = cpu["cpu_usage"]["total_usage"] - before["cpu_usage"]["total_usage"]
    machine = cpu["system_cpu_usage"] - before["system_cpu_usage"]
    assert 0 < used <= machine < cpu["online_cpus"] * 3e9
    memory = reading["memory_stats"]
    assert memory["limit"] == 200 << 20
    assert memory["usage"] > memory["stats"].get("total_inactive_file", memory["stats"].get("inactive_file")) > 10 << 20
    assert reading["pids_stats"] == {"current": 1, "limit": 50}
    assert list(reading["networks"]) == ["eth0"]
    written = [e["value"] for e in reading["blkio_stats"]["io_service_bytes_recursive"] if e["op"].lower() == "write"]
    assert sum(written) >= 2 << 20
    first = docker_py.api._result(
        docker_py.api._get(docker_py.api._url("/containers/worker/stats"), params={"stream": 0, "one-shot": 1}), True
    )
    assert first["precpu_stats"].get("system_cpu_usage", 0) == 0
    assert first["cpu_stats"]["cpu_usage"]["total_usage"] > used


def test_stopped_containers_show_zeros(client):
    client("run", "--name", "done", "busybox", "true")
    form = "{{.Name}} {{.CPUPerc}} {{.MemUsage}} {{.MemPerc}} {{.NetIO}} {{.BlockIO}} {{.PIDs}}"
    assert client("stats", "--no-stream", "--format", form).out.strip() == ""
    zeros = "done 0.00% 0B / 0B 0.00% 0B / 0B 0B / 0B 0\n"
    assert client("stats", "--no-stream", "--all", "--format", form).out == zeros
    assert client("stats", "--no-stream", "--format", form, "done").out == zeros


def test_containers_come_and_go(client):
    client("run", "-d", "--name", "early", *SLEEP)
    with client.piped("stats", "--format", "<{{.Name}}>") as stats:
        stats.expect("<early>")
        client("run", "-d", "--name", "late", *SLEEP)
        stats.expect("<late>")
        client("rm", "-f", "late")
        stats.expect(r"<early>[^<]*<early>")
        client("rm", "-f", "early")


def test_a_name_that_nobody_has(client):
    failed = client("stats", "--no-stream", "never", check=False)
    assert failed.code == 1
    assert "No such container: never" in failed.err


@pytest.mark.ketch_only
def test_one_stream_for_many(engine, docker_py, worker):
    engine.docker("run", "-d", "--name", "idle", *SLEEP)
    engine.docker("run", "--name", "done", "busybox", "true")
    lines = stream(docker_py, interval=0.2)
    first, second = next(lines), next(lines)
    assert [c["name"] for c in first["containers"]] == ["idle", "worker"]
    assert (first["seconds"], first["containers"][0]["cpu_percent"]) == (0, None)
    assert second["seconds"] > 0.1
    idle, busy = second["containers"]
    assert set(busy) == FIELDS
    assert busy["id"] == worker
    assert busy["cpu_percent"] > 10 > idle["cpu_percent"]
    assert 20 << 20 < busy["memory_bytes"] < 35 << 20
    assert (busy["memory_limit_bytes"], busy["pids"], busy["pids_limit"]) == (200 << 20, 1, 50)
    assert busy["written_bytes"] >= 2 << 20
    assert busy["networks"]["eth0"]["rx_packets"] >= 2
    assert idle["networks"]["eth0"]["tx_packets"] <= busy["networks"]["eth0"]["tx_packets"]
    # Those that come, stop and start again are followed; so is the network of one that lives in another's.
    engine.docker("run", "-d", "--name", "guest", "--network", "container:worker", *SLEEP)
    engine.docker("restart", "-t", "0", "idle")
    for line in lines:
        seen = {c["name"]: c for c in line["containers"]}
        if {"guest", "idle"} <= set(seen) and seen["idle"]["cpu_percent"] is not None and seen["idle"]["pids"] == 1:
            break
    assert seen["guest"]["networks"] == seen["worker"]["networks"]
    engine.docker("rm", "-f", "guest")
    assert any("guest" not in {c["name"] for c in line["containers"]} for line in lines)


@pytest.mark.ketch_only
def test_containers_of_the_stream(engine, docker_py):
    engine.docker("run", "-d", "--name", "one", "--label", "a=b", *SLEEP)
    engine.docker("run", "-d", "--name", "two", *SLEEP)
    engine.docker("run", "--name", "done", "busybox", "true")

    def names(**params):
        (line,) = stream(docker_py, stream=0, interval=0.1, **params)
        return [(c["name"], c["status"], c["pids"]) for c in line["containers"]]

    assert names() == [("two", "running", 1), ("one", "running", 1)]
    assert names(all=1)[0] == ("done", "exited", 0)
    assert names(filters=json.dumps({"label": ["a=b"]})) == [("one", "running", 1)]
    assert names(container=["done", "two"]) == [("done", "exited", 0), ("two", "running", 1)]
    lines = stream(docker_py, container="two", interval=0.1)
    assert next(lines)["containers"]
    engine.docker("rm", "-f", "two")
    assert any(line["containers"] == [] for line in lines)
    with pytest.raises(docker.errors.NotFound):
        next(stream(docker_py, container="never"))
    for wrong in ({"interval": "0"}, {"interval": "soon"}, {"filters": '{"colour":["red"]}'}):
        with pytest.raises(docker.errors.APIError, match="invalid"):
            next(stream(docker_py, **wrong))


@pytest.mark.ketch_only
def test_interfaces_without_an_end_on_the_host(engine, docker_py):
    need_links("macvlan")
    engine.docker("network", "create", "-d", "macvlan", "--subnet", "10.91.0.0/24", "flat")
    engine.docker("run", "-d", "--name", "one", "--network", "flat", *SLEEP)
    engine.docker("run", "-d", "--name", "two", "--network", "flat", "--ip", "10.91.0.77", *SLEEP)
    engine.docker("exec", "one", "ping", "-c", "2", "-W", "2", "10.91.0.77")
    (line,) = stream(docker_py, stream=0, interval=0.1)
    assert all(c["networks"]["eth0"]["rx_bytes"] > 150 for c in line["containers"])
    reading = docker_py.containers.get("one").stats(stream=False)
    assert reading["networks"]["eth0"]["tx_packets"] >= 2


@pytest.mark.ketch_only
def test_many_interfaces_are_told_apart(engine, docker_py):
    """Above a handful of interfaces all links are read at once: each container still has its own counters."""
    for number in range(10):
        engine.docker("run", "-d", "--name", f"c{number}", *SLEEP)
    engine.docker("exec", "c3", "ping", "-c", "5", "-i", "0.1", "-s", "1000", "127.0.0.1")
    gateway = engine.docker("exec", "c3", "sh", "-c", "ip route | awk '/default/{print $3}'").out.strip()
    engine.docker("exec", "c3", "ping", "-c", "5", "-i", "0.1", "-s", "1000", gateway)
    (line,) = stream(docker_py, stream=0, interval=0.1)
    sent = {c["name"]: c["networks"]["eth0"]["tx_bytes"] for c in line["containers"]}
    assert len(sent) == 10
    assert sent["c3"] > 5000 > max(v for k, v in sent.items() if k != "c3")
    one = docker_py.containers.get("c3").stats(stream=False)["networks"]["eth0"]
    assert one["tx_bytes"] >= sent["c3"]


@pytest.mark.ketch_only
def test_a_stream_ends_with_its_client(private_engine):
    """When nobody looks any more the daemon reads no counters any more."""
    private_engine.docker("run", "-d", "--name", "one", *SLEEP)
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(patient(10))
        client.connect(private_engine.socket)
        client.sendall(b"GET /ketch/stats?interval=0.1 HTTP/1.1\r\nHost: ketch\r\n\r\n")
        seen = b""
        while seen.count(b'"name":"one"') < 3:
            seen += client.recv(65536)
        assert bytes_read_within_half_a_second(private_engine) > 1000
    deadline = time.monotonic() + patient(10)
    while bytes_read_within_half_a_second(private_engine) > 1000:
        assert time.monotonic() < deadline, "the daemon goes on for a client that is gone"
    private_engine.docker("rm", "-f", "one")


def bytes_read_within_half_a_second(engine) -> int:
    """What the daemon has read from files meanwhile (proc_pid_io(5))."""

    def so_far() -> int:
        with open(f"/proc/{engine.process.pid}/io", encoding="ascii") as f:
            return int(f.readline().split()[1])

    before = so_far()
    time.sleep(0.5)
    return so_far() - before
