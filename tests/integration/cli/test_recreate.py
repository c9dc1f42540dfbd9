"""``inspect --as run|compose``: what it prints makes the same container again."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess

import pytest

from tests.support.engines import BIN
from tests.support.waiting import patient

pytestmark = pytest.mark.ketch_only
SLEEP = "busybox sleep 1000"
LINES = [
    f"run -d {SLEEP}",
    "run -d busybox",
    "run busybox true",
    "run -i busybox cat",
    "create -it busybox",
    "create -a stdout busybox true",
    "run -d -i busybox cat",
    f"run -d -t -e A=1 -e 'B=two words' -e 'C=it'\\''s $HOME' -e PATH=/bin -e D= {SLEEP}",
    f"run -d -l a=1 -l 'b=x y' -l c= -h boat --domainname sea.test -u 1000:1000 -w /tmp {SLEEP}",
    f"run -d --stop-signal INT --stop-timeout 0 {SLEEP}",
    "run -d --entrypoint sleep busybox 1000",
    "run -d --entrypoint '' busybox sleep 1000",
    f"run -d -p 127.0.0.1::80 -p 127.0.0.1::81/udp -p 127.0.0.1::8000-8002 --expose 9 --expose 10-12/udp {SLEEP}",
    f"run -d -P --expose 80 {SLEEP}",
    f"run -d -v rt-data:/data -v /tmp:/host:ro -v /anonymous --tmpfs /a --tmpfs /b:size=1m,mode=700 {SLEEP}",
    f"run -d --mount type=bind,src=/tmp,dst=/h,ro,bind-recursive=disabled --mount type=tmpfs,dst=/t {SLEEP}",
    f"run -d --mount type=volume,src=rt-data,dst=/d,volume-nocopy --mount type=image,src=busybox,dst=/i {SLEEP}",
    f"run -d --restart on-failure:3 --init {SLEEP}",
    f"run -d --restart unless-stopped --init=false {SLEEP}",
    f"run --rm -d --cap-add NET_ADMIN --cap-drop CHOWN --security-opt no-new-privileges {SLEEP}",
    f"run -d --security-opt systempaths=unconfined --security-opt no-new-privileges:false {SLEEP}",
    f"run -d --privileged --read-only {SLEEP}",
    "run -d --security-opt seccomp={seccomp} " + SLEEP,
    f"run -d -m 64m --memory-reservation 32m --cpus 0.5 --pids-limit 100 --cpu-shares 512 --cpuset-cpus 0 {SLEEP}",
    f"run -d -m 64m --memory-swap 80m --cpu-period 50000 --cpu-quota 25000 --oom-score-adj 100 {SLEEP}",
    f"run -d -m 65m --memory-swap -1 --shm-size 12345k --ulimit nofile=100:200 --ulimit core=0 {SLEEP}",
    f"run -d --dns 127.0.0.2 --dns-search sea.test --dns-option ndots:2 --add-host a:10.0.0.1 --add-host b:::1 {SLEEP}",
    f"run -d --device /dev/null:/dev/nothing:r --device /dev/zero --device-cgroup-rule 'c 1:3 rwm' {SLEEP}",
    f"run -d --health-cmd 'test -e /x || :' --health-interval 90s --health-retries 2 --health-timeout 1500ms {SLEEP}",
    f"run -d --health-cmd true --health-start-period 1m --health-start-interval 2s --health-on-failure kill {SLEEP}",
    f"run -d --no-healthcheck --log-driver local --log-opt max-size=1m --log-opt max-file=2 {SLEEP}",
    f"run -d --log-driver none --group-add 10 --group-add 20 --annotation a=b --sysctl net.ipv4.ip_forward=1 {SLEEP}",
    f"run -d --network none {SLEEP}",
    f"run -d --network host --pid host --ipc host --uts host --cgroupns host {SLEEP}",
    f"run -d --network container:rt-other --ipc container:rt-shared --pid container:rt-other {SLEEP}",
    f"run -d --volumes-from rt-other:ro {SLEEP}",
    f"run -d --network rt-net --network-alias one --ip 10.77.0.9 --mac-address 02:00:00:00:00:09 {SLEEP}",
    f"run -d --network name=rt-net,alias=x,gw-priority=5 --network name=rt-two,alias=y,gw-priority=-1 {SLEEP}",
    f"run -d --network rt-two --network bridge {SLEEP}",
    f"run -d --mac-address 02:00:00:00:00:07 {SLEEP}",
]
SECCOMP = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["kexec_load"], "action": "SCMP_ACT_ERRNO"}]}


def configurations(engine, names: list[str]) -> list[dict]:
    """What somebody asked for of containers, comparable."""
    return [_configuration(facts) for facts in json.loads(engine.ketch("inspect", *names).out)]


def _configuration(facts: dict) -> dict:
    config, host = facts["Config"], facts["HostConfig"]
    if config["Hostname"] == facts["Id"][:12]:
        config["Hostname"] = ""
    for key in ("ConsoleSize", "ContainerIDFile"):
        host.pop(key)
    asked = ("IPAMConfig", "Aliases", "DriverOpts", "GwPriority", "Links")
    networks = {n: {k: v for k, v in s.items() if k in asked} for n, s in facts["NetworkSettings"]["Networks"].items()}
    mounts = [
        {k: v for k, v in m.items() if k not in ("Source", "Name") or m["Type"] == "bind"} for m in facts["Mounts"]
    ]
    return {"Config": config, "HostConfig": host, "Networks": networks, "Mounts": mounts, "Command": facts["Args"]}


@pytest.fixture
def others(engine):
    """What the command lines name: networks, a volume, containers that are joined."""
    ketch = engine.ketch
    ketch("network", "create", "--subnet", "10.77.0.0/24", "rt-net")
    ketch("network", "create", "rt-two")
    ketch("run", "-d", "--name", "rt-other", "-v", "/shared", *SLEEP.split())
    ketch("run", "-d", "--name", "rt-shared", "--ipc", "shareable", *SLEEP.split())
    yield
    engine.remove_all()
    ketch("volume", "rm", "-f", "rt-data")


def make(engine, lines: list[str], directory) -> list[str]:
    """Carry these out; returns the containers' names."""
    profile = directory / "seccomp.json"
    profile.write_text(json.dumps(SECCOMP), encoding="utf-8")
    names = [f"box{number}" for number in range(len(lines))]
    for name, line in zip(names, lines, strict=True):
        command, *rest = shlex.split(line.replace("{seccomp}", str(profile)))
        engine.ketch(command, "--name", name, *rest)
    return names


def again(engine, *names: str) -> None:
    """Remove them, and carry out what ``--as run`` prints, in a shell, under other names."""
    lines = engine.ketch("inspect", "--as", "run", *names).out.splitlines()
    engine.ketch("rm", "-fv", *names)
    script = ["set -e"]
    for name, line in zip(names, lines, strict=True):
        assert line.startswith("ketch run ")
        line = line.replace(f"--name {name} ", f"--name new{name} ", 1)
        # What runs in the foreground here would have to end.
        script.append(line if "--detach" in line else line.replace("ketch run", "ketch create", 1))
    environment = {**engine.environment(), "PATH": f"{BIN}:{os.environ['PATH']}", "HOME": "/nowhere"}
    done = subprocess.run(
        ["sh", "-c", "\n".join(script)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=patient(60),
        check=False,
    )
    assert done.returncode == 0, "\n".join(script) + done.stdout + done.stderr


@pytest.mark.parametrize("part", range(4))
def test_run_again(engine, others, tmp_path, part):
    lines = LINES[part::4]
    names = make(engine, lines, tmp_path)
    before = configurations(engine, names)
    again(engine, *names)
    after = configurations(engine, [f"new{name}" for name in names])
    for line, was, now in zip(lines, before, after, strict=True):
        assert now == was, line


def test_little_is_said(engine):
    engine.ketch("run", "-d", "--name", "web", "-p", "8089:80", "-e", "A=b c", "-m", "64m", "busybox", "sleep", "9")
    assert engine.ketch("inspect", "--as", "run", "web").out == (
        "ketch run --detach --name web --env 'A=b c' --publish 8089:80 --memory 64m busybox sleep 9\n"
    )
    assert engine.ketch("container", "inspect", "--as", "compose", "web").out == (
        "services:\n  web:\n    image: busybox\n    container_name: web\n    command:\n      - sleep\n"
        '      - "9"\n    environment:\n      - A=b c\n    ports:\n      - "8089:80"\n    network_mode: bridge\n'
        "    mem_limit: 67108864\n"
    )
    assert engine.ketch("inspect", "--as", "letter", "web", check=False).code == 1
    assert engine.ketch("inspect", "--as", "run", "nobody", check=False).code == 1


def test_later_changes_are_included(engine, others):
    ketch = engine.ketch
    ketch("run", "-d", "--name", "first", "-e", "A=1", "busybox", "sleep", "1000")
    ketch("network", "connect", "--alias", "late", "rt-two", "first")
    ketch("update", "-e", "B=2", "-m", "64m", "--memory-swap", "128m", "--restart", "always", "first")
    ketch("restart", "-t", "0", "first")
    before = configurations(engine, ["first"])
    again(engine, "first")
    assert configurations(engine, ["newfirst"]) == before


# -- compose -----------------------------------------------------------------------------------------

COMPOSED = [
    line
    for line in LINES
    if line.startswith("run -d")
    and "-i " not in line
    and "gw-priority" not in line
    and "on-failure kill" not in line
    and "--rm" not in line
    and "systempaths" not in line
    and "-P" not in line
    and "start-interval" not in line
    and "seccomp" not in line
    and "other:ro" not in line
    and "00:07" not in line
    and "--network bridge" not in line
]


def comparable(found: dict) -> dict:
    """Without what Compose always says: streams, its labels and aliases, its own form of binds and of empty values."""
    config, host = found["Config"], found["HostConfig"]
    for key in ("AttachStdout", "AttachStderr", "AttachStdin", "StdinOnce", "Volumes"):  # the last are in `Mounts`
        config.pop(key)
    config["Labels"] = {k: v for k, v in config["Labels"].items() if not k.startswith("com.docker.compose.")}
    config["Env"] = sorted(config["Env"])
    host["MemorySwappiness"] = None if host["MemorySwappiness"] == -1 else host["MemorySwappiness"]
    for key in ("ExtraHosts", "Ulimits"):  # maps in Compose
        host[key] = sorted(map(str, host[key] or ()))
    binds = [b.removesuffix(":rw") for b in host.pop("Binds") or ()]
    mounts = [f"{m['Source']}:{m['Target']}" for m in host.pop("Mounts", None) or () if m["Type"] == "bind"]
    targets = sorted(text.split(":")[1] for text in (*binds, *mounts))
    for settings in found["Networks"].values():
        settings["Aliases"] = sorted(a for a in settings["Aliases"] or () if not a.startswith("box"))
        for key in ("IPAMConfig", "DriverOpts", "Links"):
            settings[key] = settings[key] or None
    return {
        "Config": {k: v for k, v in config.items() if v},
        "HostConfig": {k: v for k, v in host.items() if v},
        "Networks": found["Networks"],
        "Binds": targets,
        "Mounts": sorted((m["Destination"], m["Type"], m["RW"]) for m in found["Mounts"]),
        "Command": found["Command"],
    }


@contextlib.contextmanager
def composed(engine, directory, text: str):
    """Bring up a Compose file; down again at the end."""
    (directory / "compose.yaml").write_text(text, encoding="utf-8")

    def compose(*args: str) -> None:
        done = engine.docker("compose", "-p", "kt", *args, cwd=directory, check=False, timeout=60)
        assert done.code == 0, text + done.out + done.err

    compose("up", "-d")
    yield
    compose("down", "-t", "0", "-v")


def test_settings_that_compose_lacks_are_reported(engine, others):
    ketch = engine.ketch
    ketch("run", "-d", "--rm", "--name", "box", "-P", "--network", "rt-two", "--network", "bridge", *SLEEP.split())
    shown = ketch("inspect", "--as", "compose", "box")
    assert [line.partition("box: ")[2] for line in shown.err.splitlines()] == [
        "Compose has no words for --rm; left out",
        "Compose has no words for --publish-all; left out",
        "Compose has no words for the default bridge beside other networks; left out",
    ]
    assert "bridge" not in shown.out


def test_compose_again(engine, others, tmp_path):
    """All in one file, which is what somebody who moves a machine's containers does."""
    names = make(engine, COMPOSED, tmp_path)
    before = [comparable(one) for one in configurations(engine, names)]
    text = engine.ketch("inspect", "--as", "compose", *names).out
    engine.ketch("rm", "-fv", *names)
    with composed(engine, tmp_path, text):
        after = [comparable(one) for one in configurations(engine, names)]
        for line, was, now in zip(COMPOSED, before, after, strict=True):
            assert now == was, line
