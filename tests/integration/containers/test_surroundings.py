"""What images need to run: the surroundings that Docker gives every program, on both engines."""

from __future__ import annotations

import contextlib

import pytest

from tests.support.rawapi import Api


@pytest.fixture
def api(engine):
    return Api(engine.socket)


def create(api, script: str, config: dict[str, object] | None = None, **host: object) -> str:
    """A container that runs a script; its id."""
    body = {"Image": "busybox", "Cmd": ["sh", "-c", script], "HostConfig": host, **(config or {})}
    return api.must("POST", "/containers/create", body)["Id"]


def run(engine, api, script: str, config: dict[str, object] | None = None, **host: object) -> list[str]:
    """Run a script to its end; the lines that it wrote."""
    one = create(api, script, config, **host)
    return started(engine, api, one)


def started(engine, api, one: str) -> list[str]:
    """Start, wait for the end; the lines of the last run."""
    api.must("POST", f"/containers/{one}/start")
    api.must("POST", f"/containers/{one}/wait")
    return engine.client("logs", one).out.splitlines()


SYSCTLS = (
    "cat /proc/sys/net/ipv4/ip_unprivileged_port_start; set -- $(cat /proc/sys/net/ipv4/ping_group_range); echo $*"
)


def test_any_user_may_listen_on_low_ports_and_ping(engine, api):
    free = ["0", "0 2147483647"]
    assert run(engine, api, SYSCTLS) == free
    script = f"{SYSCTLS}; (sleep 5; kill $$) & timeout 1 nc -l -p 80; echo $?"
    assert run(engine, api, script, {"User": "1000:1000"}, NetworkMode="none")[:3] == [*free, "143"]
    assert run(engine, api, SYSCTLS, Sysctls={"net.ipv4.ip_unprivileged_port_start": "99"}) == ["99", free[1]]
    with contextlib.ExitStack() as stack:
        texts = []
        for name in ("ip_unprivileged_port_start", "ping_group_range"):
            file = stack.enter_context(open(f"/proc/sys/net/ipv4/{name}", encoding="ascii"))
            texts.append(" ".join(file.read().split()))
    assert run(engine, api, SYSCTLS, NetworkMode="host") == texts


def test_files_that_say_where_a_program_is(engine, api):
    one = create(api, "stat -c '%A %u %s' /.dockerenv; readlink /etc/mtab; mount | head -1 | cut -c1-7")
    assert started(engine, api, one) == ["-rwxr-xr-x 0 0", "/proc/mounts", "overlay"]
    assert api.must("GET", f"/containers/{one}/changes") in (None, [])


def test_tun_is_among_the_devices_of_everybody(engine, api):
    script = "mknod /tmp/tun c 10 200 && exec 3<>/tmp/tun; mknod /tmp/kmsg c 1 11 && exec 4</tmp/kmsg"
    script = f"({script}) 2>&1"
    one = create(api, script, CapAdd=["MKNOD"])
    lines = started(engine, api, one)
    assert [line.rpartition("/")[2] for line in lines] == ["kmsg: Operation not permitted"]


def test_home_that_is_empty_is_that_of_the_user(engine, api):
    script = "echo $HOME; env | grep -c HOME="
    assert run(engine, api, script, {"Env": ["HOME="]}) == ["/root", "1"]
    assert run(engine, api, script, {"Env": ["HOME="], "User": "nobody"}) == ["/home", "1"]
    one = create(api, "sleep 100", {"Env": ["HOME="]})
    api.must("POST", f"/containers/{one}/start")
    assert engine.client("exec", "-u", "nobody", one, "sh", "-c", "echo $HOME").out == "/home\n"


@pytest.mark.parametrize(
    ("host", "modes"),
    [
        ({"Tmpfs": {"/a/b": "", "/a": ""}}, {"/a": "1777 0", "/a/b": "1777 0"}),
        ({"Tmpfs": {"/a/b": ""}, "ReadonlyRootfs": True}, {"/a": "755 0", "/a/b": "1777 0"}),
        ({"Tmpfs": {"/a": "uid=7,size=1m"}}, {"/a": "1777 7"}),
        ({"Tmpfs": {"/a": "mode=750"}}, {"/a": "750 0"}),
        ({"Mounts": [{"Type": "tmpfs", "Target": "/a"}]}, {"/a": "1777 0"}),
        ({"Mounts": [{"Type": "tmpfs", "Target": "/a", "TmpfsOptions": {"Mode": 0o711}}]}, {"/a": "711 0"}),
    ],
)
def test_mode_of_a_tmpfs(engine, api, host, modes):
    one = create(api, f"for p in {' '.join(modes)}; do stat -c '%n %a %u' $p; done", {"User": "1000"}, **host)
    expected = [f"{path} {mode}" for path, mode in modes.items()]
    assert started(engine, api, one) == expected
    if engine.kind == "ketch":  # dockerd gives the directory that its first start made another mode
        assert started(engine, api, one)[len(expected) :] == expected


def test_options_of_a_tmpfs(engine, api):
    image = run(engine, api, "stat -c '%a' /root /bin")
    assert run(engine, api, "stat -c '%a' /root /bin", Tmpfs={"/root": ""}) == image
    script = "grep '^tmpfs /t' /proc/mounts | cut -d' ' -f4 | tr , '\n' | sort | tr '\n' ' '"
    plain = "nodev noexec nosuid relatime rw"
    assert run(engine, api, script, Tmpfs={"/t": ""}) == [f"{plain} "]
    assert run(engine, api, script, Tmpfs={"/t": "exec,suid,dev,size=1m"}) == ["relatime rw size=1024k "]
    assert run(engine, api, script, Tmpfs={"/t": "defaults,noexec,exec,ro"}) == ["nodev nosuid relatime ro "]
    body = {"Image": "busybox", "HostConfig": {"Tmpfs": {"/t": "bogus"}}}
    status, answer = api("POST", "/containers/create", body)
    if status == 201:
        status, answer = api("POST", f"/containers/{answer['Id']}/start")
    assert status in (400, 500)
    assert answer["message"].startswith('invalid tmpfs option "bogus"')


def test_the_working_directory_exists_from_the_creation_on(engine, api):
    one = create(api, "pwd; stat -c '%a %u:%g' . ..", {"WorkingDir": "/new//place/", "User": "1000:1000"})
    assert api.must("GET", f"/containers/{one}/json")["Config"]["WorkingDir"] == "/new/place"
    found = [{"Path": "/new", "Kind": 1}, {"Path": "/new/place", "Kind": 1}]
    changes = api.must("GET", f"/containers/{one}/changes")
    assert sorted(changes, key=lambda change: change["Path"]) == found
    assert started(engine, api, one) == ["/new/place", "755 0:0", "755 0:0"]
    assert run(engine, api, "pwd", {"WorkingDir": "/tmp/"}) == ["/tmp"]
    _, answer = api("POST", "/containers/create", {"Image": "busybox", "WorkingDir": "/bin/sh"})
    assert "Cannot mkdir: /bin/sh is not a directory" in answer["message"]


def test_names_of_a_container_in_another_ones_network(engine, api):
    names = {"Hostname": "quay", "Domainname": "example.org"}
    first = create(api, "sleep 100", names)
    api.must("POST", f"/containers/{first}/start")
    second = create(api, "hostname; echo $HOSTNAME; cat /etc/hostname", NetworkMode=f"container:{first}")
    assert started(engine, api, second) == ["quay"] * 3
    config = api.must("GET", f"/containers/{second}/json")["Config"]
    assert {name: config[name] for name in names} == names


def test_hosts_and_resolvers_in_the_hosts_network(engine, api):
    host = {"NetworkMode": "host", "ExtraHosts": ["berth:10.1.2.3"], "Dns": ["10.9.9.9"], "DnsSearch": ["example.org"]}
    lines = run(engine, api, "cat /etc/hosts; grep -v '#' /etc/resolv.conf", **host)
    assert "127.0.0.1\tlocalhost" in lines
    assert "10.1.2.3\tberth" in lines
    assert "nameserver 10.9.9.9" in lines
    assert "search example.org" in lines


def test_cgroup_namespace_of_who_asks_for_none(engine, api):
    one = create(api, "grep -c ':/$' /proc/self/cgroup")
    mode = api.must("GET", f"/containers/{one}/json")["HostConfig"]["CgroupnsMode"]
    info = api.must("GET", "/info")
    assert mode == ("private" if info["CgroupVersion"] == "2" else "host")
    assert ("name=cgroupns" in info["SecurityOptions"]) == (mode == "private")
    assert (started(engine, api, one) != ["0"]) == (mode == "private")


def test_every_user_may_enter_the_root(engine, api, tmp_path):
    from tests.support.engines import busybox_tar

    done = engine.client("import", "-", "closed", stdin=busybox_tar())  # its root's mode is 0700
    try:
        assert run(engine, api, "stat -c %a /", {"Image": "closed", "User": "1000"}) == ["755"]
    finally:
        engine.remove_all()
        engine.client("rmi", done.out.strip())
