"""An engine without root: its containers' users, network, ports, layers; what it survives, what it leaves."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

from ketch.linux import ns
from ketch.pidfd import start_time
from tests.support.run import unprivileged
from tests.support.waiting import patient, until

pytestmark = [
    pytest.mark.ketch_only,
    pytest.mark.skipif(os.geteuid() != 0, reason="the user is made by root"),
]


# A service manager that passes a listening socket.
ACTIVATION = """
import os, socket, sys
server = socket.create_server(("127.0.0.1", 0))
os.dup2(server.fileno(), 3)
os.set_inheritable(3, True)  # also if it was that already
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
os.execvp(sys.argv[1], sys.argv[1:])
"""


def processes_of_the_user() -> list[str]:
    """What runs as the user and is no zombie."""
    done = subprocess.run(["ps", "-U", str(unprivileged.UID), "-o", "stat=,args="], capture_output=True, text=True)
    return [line for line in done.stdout.splitlines() if not line.startswith("Z")]


def socket_in(pid: int) -> socket.socket:
    """A socket for datagrams in a process's network namespace."""

    def opened() -> socket.socket:
        with open(f"/proc/{pid}/ns/net", "rb") as namespace:
            ns.setns(namespace.fileno(), ns.CLONE_NEWNET)
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.settimeout(patient(10))
        return sock

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(opened).result()


def record(engine) -> dict:
    with open(f"{engine.exec_root}/namespaces.json", encoding="utf-8") as f:
        return json.load(f)


def test_root_inside_is_the_user_outside(users_engine):
    """Nothing that a container's root does is done by the machine's."""
    box = users_engine.docker("run", "-d", "busybox", "sleep", "1000").out.strip()
    pid = users_engine.inspect(box)["State"]["Pid"]
    assert os.stat(f"/proc/{pid}").st_uid == unprivileged.UID
    assert users_engine.docker("exec", box, "id", "-u").out == "0\n"
    lines = [line.split() for line in users_engine.docker("exec", box, "cat", "/proc/self/uid_map").out.splitlines()]
    assert lines == [["0", str(unprivileged.UID), "1"], ["1", str(unprivileged.FIRST_ID), str(unprivileged.IDS)]]
    users_engine.docker("exec", "-u", "1000", box, "touch", "/tmp/theirs")
    users_engine.docker("rm", "-f", box)


def test_root_inside_has_no_rights_outside(users_engine, tmp_path):
    """A file of root's that is bound is a stranger's; devices and kernel settings are out of reach."""
    secret = tmp_path / "secret"
    secret.write_text("x")
    secret.chmod(0o600)
    for path in (tmp_path, *tmp_path.parents):
        if path != path.parent and str(path).startswith("/tmp/"):
            path.chmod(path.stat().st_mode | 0o011)
    run = ("run", "--rm", "--privileged", "-v", f"{secret}:/secret", "busybox")
    assert users_engine.docker(*run, "cat", "/secret", check=False).code != 0
    for command in ("mknod /tmp/sda b 8 0", "echo x > /proc/sys/kernel/hostname_", "chown 0:0 /secret"):
        assert users_engine.docker(*run, "sh", "-c", command, check=False).code != 0, command


def test_layers(users_engine):
    """What is deleted, replaced and owned in a container is so in its image, and in what is built on it."""
    script = "rm -r /tmp && mkdir /tmp && echo 1 > /tmp/new && rm /bin/awk && touch /mine && chown 1000:1000 /mine"
    users_engine.docker("run", "--name", "made", "busybox", "sh", "-c", script)
    assert "D /bin/awk" in users_engine.docker("diff", "made").out
    users_engine.docker("commit", "made", "kept")
    dockerfile = b"FROM kept\nRUN test ! -e /bin/awk && rm /mine && touch /built\nUSER 1000\n"
    users_engine.ketch("build", "-q", "-t", "built", "-", stdin=dockerfile)
    script = "id -u; ls /tmp /mine /built /bin/awk 2>&1; true"
    shown = users_engine.docker("run", "--rm", "built", "sh", "-c", script).out
    assert shown.split("\n")[0] == "1000"
    assert "new" in shown
    assert "/mine: No such file" in shown
    assert "/bin/awk: No such file" in shown
    saved = users_engine.docker("save", "built", "-o", f"{users_engine.root}/built.tar")
    assert saved.code == 0
    users_engine.docker("rmi", "-f", "built", "kept")
    users_engine.docker("load", "-i", f"{users_engine.root}/built.tar")
    owner = users_engine.docker("run", "--rm", "-u", "0", "built", "stat", "-c", "%u", "/built").out
    assert owner == "0\n"
    users_engine.docker("rm", "-f", "made")


def test_published_ports(users_engine):
    """Of both families and protocols, in the machine's network; containers reach each other by name."""
    users_engine.docker("network", "create", "inner")
    page = "mkdir /www; echo page > /www/index.html; httpd -f -h /www"
    ports = ["-p", "127.0.0.1::80", "-p", "127.0.0.1::5353/udp"]
    users_engine.docker("run", "-d", "--name", "web", "--network", "inner", *ports, "busybox", "sh", "-c", page)
    listens = ("exec", "web", "wget", "-qO-", "http://127.0.0.1/")
    until(lambda: users_engine.docker(*listens, check=False).code == 0, "the server listens")
    found = users_engine.inspect("web")["NetworkSettings"]["Ports"]
    for one in found["80/tcp"]:
        host = f"[{one['HostIp']}]" if ":" in one["HostIp"] else one["HostIp"]
        with urllib.request.urlopen(f"http://{host}:{one['HostPort']}/", timeout=patient(10)) as answer:
            assert answer.read() == b"page\n"
    server = socket_in(users_engine.inspect("web")["State"]["Pid"])
    with server, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        server.bind(("0.0.0.0", 5353))
        client.connect(("127.0.0.1", int(found["5353/udp"][0]["HostPort"])))
        client.send(b"asked")
        asked, address = server.recvfrom(100)
        server.sendto(asked + b" answered", address)
        client.settimeout(patient(10))
        assert client.recv(100) == b"asked answered"
    fetched = users_engine.docker("run", "--rm", "--network", "inner", "busybox", "wget", "-qO-", "http://web/")
    assert fetched.out == "page\n"
    taken = users_engine.docker(
        "run", "--rm", "-p", f"127.0.0.1:{found['80/tcp'][0]['HostPort']}:80", "busybox", "true", check=False
    )
    assert "port is already allocated: container web" in taken.err
    users_engine.docker("rm", "-f", "web")
    users_engine.docker("network", "rm", "inner")


def test_the_machines_namespaces(users_engine):
    """Host network, processes and IPC are the machine's, with what the user may do there."""
    modes = ("--network", "host", "--pid", "host", "--ipc", "host")
    script = "readlink /proc/self/ns/net; test -d /proc/1 && ls /sys/class/net; ls -d /dev/mqueue"
    shown = users_engine.docker("run", "--rm", *modes, "busybox", "sh", "-c", script, check=False)
    assert shown.code == (0 if os.path.isdir("/dev/mqueue") else 1), shown.err  # not every machine has mounted it
    assert os.readlink("/proc/self/ns/net") in shown.out
    assert "lo" in shown.out


def test_what_info_says(users_engine):
    info = json.loads(users_engine.docker("info", "--format", "{{json .}}").out)
    assert "name=rootless" in info["SecurityOptions"]
    assert ["userxattr", "true"] in info["DriverStatus"]


def test_files(users_engine, tmp_path):
    """Volumes, binds, tmpfs, cp: owners are seen through the user's ids."""
    mine = f"{users_engine.root}/mine"
    os.mkdir(mine)
    os.chown(mine, unprivileged.UID, unprivileged.UID)
    script = "touch /mine/a /v/b /t/c; chown 5:5 /v/b; chown 7:7 /mine/a; stat -c %u /v/b /mine/a; mount"
    mounts = ["-v", "vol:/v", "-v", f"{mine}:/mine", "--tmpfs", "/t"]
    shown = users_engine.docker("run", "--name", "files", "--read-only", *mounts, "busybox", "sh", "-c", script).out
    assert shown.startswith("5\n7\n")
    assert os.stat(f"{mine}/a").st_uid == unprivileged.FIRST_ID + 6
    users_engine.docker("cp", "files:/v/b", str(tmp_path / "b"))
    users_engine.docker("rm", "-f", "files")
    users_engine.docker("volume", "rm", "vol")


def test_a_daemon_that_is_killed(own_users_engine):
    """Its containers go on, and the next one has them, their ports and their processes."""
    engine = own_users_engine
    serve = "mkdir /www; echo page > /www/index.html; httpd -f -h /www"
    engine.docker("run", "-d", "--name", "web", "-p", "127.0.0.1:18085:80", "busybox", "sh", "-c", serve)
    listens = ("exec", "web", "wget", "-qO-", "http://127.0.0.1/")
    until(lambda: engine.docker(*listens, check=False).code == 0, "the server listens")
    keeper = record(engine)["pid"]
    engine.stop(signal.SIGKILL)
    assert any("httpd" in line for line in processes_of_the_user())
    engine.start()
    assert record(engine)["pid"] == keeper
    with urllib.request.urlopen("http://127.0.0.1:18085/", timeout=patient(10)) as answer:
        assert answer.read() == b"page\n"
    assert engine.docker("exec", "web", "echo", "here").out == "here\n"
    engine.docker("rm", "-f", "web")
    engine.stop()
    assert not os.path.exists(f"{engine.exec_root}/namespaces.json")


def test_two_daemons_at_once(own_users_engine):
    """One has the namespaces; the other says so, and leaves nothing."""
    engine = own_users_engine
    before = record(engine)
    engine.extra += ["-H", f"unix://{engine.root}/other.sock", "--data-root", f"{engine.root}/other"]
    second = subprocess.run(
        engine.command(), env=engine.daemon_environment(), capture_output=True, text=True, timeout=patient(30)
    )
    assert second.returncode == 1
    assert "exec root" in second.stderr and "is in use by another ketchd" in second.stderr
    assert record(engine) == before
    assert engine.docker("run", "--rm", "busybox", "echo", "here").out == "here\n"


def test_a_daemon_that_cannot_start(own_users_engine):
    """The namespaces that it has made end with it."""
    engine = own_users_engine
    engine.stop()
    os.makedirs(f"{engine.root}/taken/full")
    failed = subprocess.run(
        [*engine.command(), "-H", f"unix://{engine.root}/taken"],
        env=engine.daemon_environment(),
        capture_output=True,
        text=True,
        timeout=patient(30),
    )
    assert failed.returncode == 1, failed.stderr
    assert not os.path.exists(f"{engine.exec_root}/namespaces.json")


def test_files_are_nobody_elses(own_users_engine):
    """Groups of the user's have no business there, whatever they are called."""
    engine = own_users_engine
    modes = [stat.S_IMODE(os.stat(path).st_mode) for path in (engine.socket, engine.data_root, engine.exec_root)]
    assert modes == [0o600, 0o700, 0o700]


def test_a_runtime_directory_that_goes(own_users_engine):
    """As at a logout: ketchd ends as ever, and what it has made with it."""
    engine = own_users_engine
    keeper = record(engine)["pid"]
    os.unlink(f"{engine.exec_root}/namespaces.json")
    assert engine.stop() == 0
    until(lambda: not start_time(keeper), "the keeper has ended")


def test_the_way_outside_ends(own_users_engine):
    """It is begun again, also by the next daemon."""
    engine = own_users_engine
    with open(f"{engine.exec_root}/network.json", encoding="utf-8") as f:
        first = json.load(f)["pid"]
    os.kill(first, signal.SIGKILL)

    def another() -> bool:
        with open(f"{engine.exec_root}/network.json", encoding="utf-8") as f:
            return json.load(f)["pid"] != first

    until(another, "there is another")
    engine.stop(signal.SIGKILL)
    os.kill(record(engine)["pid"], signal.SIGKILL)  # the new namespaces need one of their own
    with open(f"{engine.exec_root}/network.json", encoding="utf-8") as f:
        second = json.load(f)
    engine.start()
    with open(f"{engine.exec_root}/network.json", encoding="utf-8") as f:
        third = json.load(f)
    assert third["namespaces"] == record(engine)["name"] != second["namespaces"]
    until(lambda: not start_time(second["pid"]), "that of the former namespaces has ended")


def test_top(users_engine):
    """There is no cgroup that knows the processes: their pid namespace does."""
    users_engine.docker("run", "-d", "--name", "box", "busybox", "sh", "-c", "sleep 1000 & exec sleep 2000")
    users_engine.docker("exec", "-d", "box", "sleep", "3000")
    until(lambda: "sleep 3000" in users_engine.docker("top", "box").out, "the exec runs")
    shown = users_engine.docker("top", "box", "-o", "pid,args").out.splitlines()
    assert sorted(line.split(None, 1)[1] for line in shown[1:]) == ["sleep 1000", "sleep 2000", "sleep 3000"]
    users_engine.docker("rm", "-f", "box")


def test_sctp_is_refused(users_engine):
    refused = users_engine.docker("run", "-p", "80:80/sctp", "busybox", "true", check=False)
    assert "a rootless engine copies TCP and UDP alone" in refused.err


def test_a_keeper_that_is_killed(own_users_engine):
    """Namespaces without a container in them are made anew."""
    engine = own_users_engine
    engine.stop(signal.SIGKILL)
    keeper = record(engine)["pid"]
    os.kill(keeper, signal.SIGKILL)
    engine.start()
    assert record(engine)["pid"] != keeper
    assert engine.docker("run", "--rm", "busybox", "echo", "here").out == "here\n"


def test_a_keeper_that_is_killed_with_containers(own_users_engine):
    """Their monitors hold the namespaces as well: the next daemon finds all that is in them, and keeps them."""
    engine = own_users_engine
    serve = "mkdir /www; echo page > /www/index.html; httpd -f -h /www"
    engine.docker("run", "-d", "--name", "web", "-p", "127.0.0.1:18086:80", "busybox", "sh", "-c", serve)
    listens = ("exec", "web", "wget", "-qO-", "http://127.0.0.1/")
    until(lambda: engine.docker(*listens, check=False).code == 0, "the server listens")
    before = record(engine)
    for number in (signal.SIGKILL, signal.SIGTERM):
        os.kill(record(engine)["pid"], signal.SIGKILL)
        engine.stop(number)
        engine.start()
        after = record(engine)
        assert start_time(after["pid"]) == after["started"]
        assert [after[key] for key in ("name", "mounts")] == [before[key] for key in ("name", "mounts")]
        with urllib.request.urlopen("http://127.0.0.1:18086/", timeout=patient(10)) as answer:
            assert answer.read() == b"page\n"
    assert engine.docker("run", "--rm", "--network", "container:web", "busybox", "echo", "here").out == "here\n"
    engine.docker("rm", "-f", "web")
    engine.stop()
    assert not os.path.exists(f"{engine.exec_root}/namespaces.json")
    assert not start_time(after["pid"])


def test_a_context_of_dockers(users_engine):
    """The docker client reaches a user's engine by a context, as the documentation has it."""
    users_engine.docker("context", "create", "mine", "--docker", f"host={users_engine.host}")
    names = users_engine.docker("--context", "mine", "image", "ls", "--format", "{{.Repository}}").out.split()
    assert "busybox" in names
    users_engine.docker("context", "rm", "mine")


def test_stats_without_a_cgroup(users_engine):
    """What processes use is counted from themselves: CPU, memory, bytes, threads."""
    script = "dd if=/dev/zero of=/written bs=1M count=8 conv=fsync; sleep 1000 & while true; do :; done"
    users_engine.docker("run", "-d", "--name", "busy", "busybox", "sh", "-c", script)
    written = ("exec", "busy", "pidof", "sleep")
    until(lambda: users_engine.docker(*written, check=False).code == 0, "it has written")
    seen = json.loads(users_engine.docker("stats", "--no-stream", "--format", "{{json .}}", "busy").out)
    line = json.loads(users_engine.ketch("stats", "--no-stream", "--format", "json", "busy").out)
    for shown in (seen, line):
        assert float(shown["CPUPerc"].rstrip("%")) > 1, shown
        assert not shown["MemUsage"].startswith("0B"), shown
        assert shown["PIDs"] == "2", shown
        assert 8 < float(shown["BlockIO"].split(" / ")[1].removesuffix("MB")) < 10, shown
    users_engine.docker("rm", "-f", "busy")


def test_a_passed_socket(unstarted_users_engine):
    """It is the daemon's alone: a keeper that had it would keep the port, and clients waiting for nobody."""
    engine = unstarted_users_engine
    engine.prefix = [sys.executable, "-c", ACTIVATION]
    engine.extra += ["-H", "fd://"]
    engine.start()
    place = f"/proc/{record(engine)['pid']}/fd"
    assert not [fd for fd in os.listdir(place) if os.readlink(f"{place}/{fd}").startswith("socket:")]
    assert "API listen on" in engine.log()
    assert "fd://3" in engine.log()
