"""Flags of `create` and `run`: `ketch` asks for what the real `docker` asks for, and refuses what it refuses."""

from __future__ import annotations

import json
import os
import shlex

import pytest

SAME = """
--env-file {d}/env -e HOME -e NOPE_X -e A= -e A=1 -e A=2 -e 'A B=1'
--label-file {d}/labels -l x -l y= -l 'z=a b' -l x=2
--stop-timeout 0 --stop-signal 9
--health-cmd x --health-interval 5s --health-timeout 1m --health-retries 4 --health-start-period 2s
--health-start-interval 3s --no-healthcheck=false
--no-healthcheck
-a stdin
-a STDOUT -i
-it
-i
--rm --restart no
--restart on-failure:0
--restart on-failure:2
--restart unless-stopped --name ''
--expose 80 --expose 90/udp --expose 100-102
-P --expose 80
-p 80 -p 81:82/udp -p 127.0.0.1:90-92:100-102
-p 90-92:100 -p [::1]:80:80
--ulimit nofile=10 --ulimit nproc=1:2 --ulimit core=-1
--device /dev/null --device /dev/zero:/dev/x --device /dev/full:r --device /dev/random:/dev/y:rw
--device vendor.com/class=name --device /dev/null --device a.b/c_d=e:f
--gpus all
--gpus 2
--gpus device=0,driver=nvidia
--gpus '"device=0,1","capabilities=utility,compute"'
--gpus 'count=all,"options=a=b,c=d"' --device vendor.com/class=name
--device-cgroup-rule 'c 1:3 rwm' --device-read-bps /dev/null:1mb
--init
--init=false
-v /a -v named:/b -v /tmp:/c:ro --tmpfs /d --tmpfs /e:size=1m
--mount type=tmpfs,dst=/x,tmpfs-size=1m,tmpfs-mode=1777 --mount dst=/y
-m 64m
-m 64m --memory-swap -1 --memory-swappiness 10 --memory-reservation 32m
--cpus 1.5
--cpu-shares 5 --cpuset-cpus 0 --cpu-quota 5000 --cpu-period 10000
--pids-limit 0
--pids-limit -1 --shm-size 1g
--oom-kill-disable --oom-score-adj 20
--network host -p 80:80
--network none
--mac-address 02:00:00:00:00:01
-h host.name --domainname x
--add-host a:1.2.3.4 --add-host b=::1 --add-host c:host-gateway
--dns 1.2.3.4 --dns-search . --dns-option a
--log-driver none
--log-opt max-size=1m
--security-opt no-new-privileges --security-opt seccomp=unconfined
--security-opt no-new-privileges:false --security-opt systempaths=unconfined
--cap-add net_admin --cap-add CAP_SYS_TIME --cap-add net_admin --cap-drop ALL
--userns host --uts host --ipc host --pid host --cgroupns host
--sysctl net.ipv4.ip_forward=1
--group-add a --group-add 1 --annotation a=b --annotation c
--privileged --read-only
-w /abs -u 0:0
--entrypoint ''
--entrypoint /a
--platform linux/amd64 --pull missing --quiet
--cgroup-parent /x
"""
REFUSED = {  # exit code: flags; those of the first kind are not even sent
    125: """
    --network name=n,link-local-ip=169.254.1.1 --link-local-ip 169.254.1.2
    --env-file {d}/whitespace
    --env-file {d}/no-name
    --env-file {d}/no-utf8
    --env-file {d}/none
    -e =x
    --label-file {d}/whitespace
    -l ''
    -l =x
    --no-healthcheck --health-cmd x
    --health-interval 3
    --health-interval -3s
    --health-retries -1 --health-cmd x
    -a nope
    --rm --restart always
    --restart on-failure:x
    --expose x
    --expose 90-80
    -p 1-2:3-5
    -p x
    -p 70000
    -p 127.0.0.1:80
    -p nohost:80:80
    -p 80/icmp
    --ulimit nofile=3:2
    --ulimit nope=1
    --ulimit nofile
    --device /dev/null:/a:q
    --device ''
    --gpus none
    --gpus count=1,count=2
    --gpus x=1
    --mount type=tmpfs
    --memory-swappiness 101
    --cpus x
    --add-host a
    --dns nope
    --security-opt seccomp=/nope
    --userns x
    --uts x
    --pid x
    --cgroupns x
    --sysctl a=b
    --pull x
    --nope
    """,
    1: """
    --stop-signal NOPE
    --restart always:3
    --restart nope
    --name a/b
    --name x
    --device /dev/none
    -v /a:/b:rw,ro
    -v /:/
    --mount type=bind,src=/nope,dst=/x
    --mount type=nope,dst=/x
    --tmpfs a
    -m 5m
    -m 64m --memory-swap 32m
    --cpus 1000
    --cpuset-cpus 99
    --oom-score-adj 2000
    --ip 172.17.0.9
    --log-driver nope
    --log-opt x
    --cap-add NOPE
    --ipc x
    --runtime nope
    -w rel
    --volumes-from nope
    --platform linux/arm64
    --platform nope
    --pull always
    --cidfile {d}/env
    """,
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """What the flags name."""
    directory = tmp_path_factory.mktemp("flags")
    (directory / "env").write_bytes(
        '\ufeff# comment\nA=1\n\n  B=two words  \nHOME\nUNSET_X\nC="quoted"\r\nD=a=b\n\t#x\nE=\n'.encode()
    )
    (directory / "labels").write_text("a=1\n#c\nHOME\nd= e \n", encoding="utf-8")
    (directory / "whitespace").write_text("HOME=1\nx y=1\n", encoding="utf-8")
    (directory / "no-name").write_text("=x\n", encoding="utf-8")
    (directory / "no-utf8").write_bytes(b"A=\xff\n")
    return directory


def lines(text: str, directory) -> list[list[str]]:
    return [shlex.split(line.replace("{d}", str(directory))) for line in text.split("\n") if line.strip()]


def configuration(facts: dict) -> dict:
    """What was asked for; the terminal's size is the client's own."""
    config, host = facts["Config"], facts["HostConfig"]
    if config["Hostname"] == facts["Id"][:12]:
        config["Hostname"] = ""
    host.pop("ConsoleSize")
    config["Env"] = {item.partition("=")[0]: item for item in config["Env"]}  # docker sends its flags in any order
    host["Binds"] = sorted(host["Binds"] or ())  # docker sends both in any order
    host["Ulimits"] = sorted(host["Ulimits"] or (), key=lambda limit: limit["Name"])
    asked = ("IPAMConfig", "Aliases", "DriverOpts", "Links")
    networks = {n: {k: s[k] for k in asked} for n, s in facts["NetworkSettings"]["Networks"].items()}
    mounts = sorted((m["Destination"], m["Type"], m["RW"]) for m in facts["Mounts"])
    return {"config": config, "host": host, "networks": networks, "mounts": mounts, "platform": facts["Platform"]}


@pytest.mark.ketch_only
@pytest.mark.parametrize("part", range(3))
def test_the_same_is_asked_for(engine, files, part):
    chosen = lines(SAME, files)[part::3]
    found = {}
    for client in (engine.docker, engine.ketch):
        ids = [client("create", *flags, "busybox", "x").out.strip() for flags in chosen]
        found[client.name] = [configuration(facts) for facts in json.loads(engine.docker("inspect", *ids).out)]
        engine.docker("rm", "-fv", *ids)
    for flags, theirs, ours in zip(chosen, found["docker"], found["ketch"], strict=True):
        assert ours == theirs, flags
    engine.docker("volume", "rm", "-f", "named")


@pytest.mark.ketch_only
@pytest.mark.parametrize("part", range(4))
def test_the_same_is_refused(engine, files, part):
    for code, text in REFUSED.items():
        for flags in lines(text, files)[part::4]:
            answers = [c("create", *flags, "busybox", check=False) for c in (engine.docker, engine.ketch)]
            assert [a.code for a in answers] == [code, code], (flags, *(a.err for a in answers))
            assert any(line.startswith("ketch: ") for line in answers[1].err.splitlines()), flags
    assert engine.docker("ps", "-aq").out == ""


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("whitespace", "variable 'x y' contains whitespaces (line 2)"),
        ("no-name", "no variable name on line '=x' (line 1)"),
        ("no-utf8", "invalid utf8 bytes at line 1"),
    ],
)
def test_the_wrong_line_is_named(engine, files, name, words):
    assert words in engine.ketch("run", "--env-file", str(files / name), "busybox", check=False).err


def test_cidfile(client, tmp_path):
    path = tmp_path / "id"
    made = client("create", "--cidfile", str(path), "busybox").out.strip()
    assert path.read_text(encoding="ascii") == made
    again = client("run", "--cidfile", str(path), "busybox", "true", check=False)
    assert again.code in (125, 126, 127) and "container ID file found" in again.err
    other = tmp_path / "other"
    assert client("create", "--cidfile", str(other), "--name", "a/b", "busybox", check=False).code == 1
    assert not other.exists()
    # A container that cannot start has an id all the same.
    assert client("run", "--cidfile", str(other), "busybox", "/nothing", check=False).code == 127
    assert len(other.read_text(encoding="ascii")) == 64


def test_pull_and_platform_say_what_is_wrong(engine):
    for flags, words in (
        (("--pull", "never", "nope"), "No such image: nope"),
        (("127.0.0.1:1/nope",), "Unable to find image '127.0.0.1:1/nope:latest' locally"),
        (("--pull", "always", "127.0.0.1:1/nope"), "connection refused"),
        (("--pull", "never", "--platform", "linux/arm64", "busybox"), "match the specified platform (linux/arm64)"),
        (("--rm", "--restart", "always", "busybox"), "cannot specify both --restart and --rm"),
    ):
        failed = engine.ketch("run", *flags, check=False)
        assert failed.code == 125 and words in failed.err, flags
    assert engine.ketch("run", "--rm", "--platform", f"linux/{os.uname().machine}", "busybox", "true").code == 0


def test_verbs(client):
    """`wait` of several, `kill -s`, `stop` and `restart` with a signal, `port` of one port, `rm` of several."""
    trap = "trap 'exit 7' USR1; trap 'exit 8' USR2; echo up; while :; do sleep 0.02; done"
    for name in ("one", "two"):
        client("run", "-d", "--name", name, "-p", "127.0.0.1::80", "busybox", "sh", "-c", trap)
        with client.piped("logs", "-f", name) as logs:
            logs.expect("up")
    assert client("port", "one", "80").out == client("port", "one", "80/tcp").out
    assert client("port", "one", "80").out.startswith("127.0.0.1:")
    assert client("port", "one", "81", check=False).code == 1
    with client.piped("wait", "one", "two") as wait:
        client("kill", "-s", "USR1", "one")
        wait.expect("7\n")
        client("stop", "-t", "5", "-s", "SIGUSR2", "two")
        wait.expect("8\n")
    client("restart", "-t", "0", "-s", "KILL", "one")
    client("rename", "one", "three")
    assert client("ps", "-q", "--no-trunc", "-l").out == client("inspect", "-f", "{{.Id}}", "two").out
    assert client("ps", "-n", "1", "--format", "{{.Names}}").out == "two\n"
    gone = client("rm", "-f", "three", "two", "nobody", check=False)
    assert "three\ntwo\n" in gone.out and "nobody" in gone.err
