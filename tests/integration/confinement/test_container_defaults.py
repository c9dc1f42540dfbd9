"""The daemon's defaults of containers, as dockerd has them: what processes see, and what inspect says."""

from __future__ import annotations

import json
import os
import shlex
import subprocess

import pytest

from tests.support import peers
from tests.support.engines import BIN, Engine

PROFILE = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}],
}
FLAGS = (
    "--default-ulimit nofile=100:200 --default-ulimit nproc=1000 --default-shm-size 32m --no-new-privileges "
    "--default-ipc-mode shareable --label color=blue --label size=big"
)
SEEN = (
    "ulimit -n; ulimit -Hn; df /dev/shm | awk 'NR>1{print $2}'; grep NoNewPrivs /proc/self/status; "
    "mkdir /made 2>&1; ls -d /made"
)
WAYS = {
    "as it comes": "",
    "its own": "--ulimit nofile=50:60 --shm-size 16m --ipc private --security-opt no-new-privileges=false",
    "another profile": "--security-opt seccomp=builtin --security-opt no-new-privileges",
    "no profile": "--security-opt seccomp=unconfined",
    "privileged": "--privileged",
}
FIELDS = ("Ulimits", "ShmSize", "IpcMode", "SecurityOpt")


def in_order(value):
    """A value without the order of ulimits and labels, which dockerd shuffles."""
    return sorted(json.dumps(one, sort_keys=True) for one in value) if isinstance(value, list) else value


def answers(engine) -> dict[str, object]:
    """What each way to run gives: the output, and some of what inspect says."""
    found: dict[str, object] = {"labels": in_order(json.loads(engine.docker("info", "-f", "{{json .Labels}}").out))}
    for way, flags in WAYS.items():
        words = [*shlex.split(flags), "--name", "one", "busybox", "sh", "-c", SEEN]
        output = engine.docker("run", *words, check=False).out
        host = json.loads(engine.docker("inspect", "one").out)[0]["HostConfig"]
        engine.docker("rm", "-f", "one")
        found[way] = (output, {name: in_order(host[name]) for name in FIELDS})
    return found


@pytest.fixture
def profile(tmp_path):
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(PROFILE))
    return str(path)


def test_defaults_are_dockerds(own_engine, profile):
    if peers.MISSING:
        pytest.skip(peers.MISSING)
    flags = [*shlex.split(FLAGS), "--seccomp-profile", profile]
    own_engine.extra += flags
    own_engine.start()
    own_engine.add_busybox()
    theirs = Engine("dockerd", suffix="d")
    theirs.own_network = True
    theirs.extra += flags
    with theirs.running():
        theirs.add_busybox()
        assert answers(own_engine) == answers(theirs)


def test_a_container_keeps_what_it_was_made_with(own_engine, profile):
    own_engine.extra += ["--seccomp-profile", profile, "--no-new-privileges", "--default-ulimit", "nofile=100"]
    own_engine.start()
    own_engine.add_busybox()
    own_engine.ketch("create", "--name", "old", "busybox", "sh", "-c", SEEN)
    own_engine.stop()
    own_engine.extra = own_engine.extra[: own_engine.extra.index("--seccomp-profile")]
    own_engine.start()
    old = own_engine.ketch("start", "-a", "old", check=False).out.split("\n")
    new = own_engine.ketch("run", "--rm", "busybox", "sh", "-c", SEEN).out.split("\n")
    assert (old[0], old[3].split()[-1], "not implemented" in old[4]) == ("100", "1", True)
    assert (new[0] != "100", new[3].split()[-1], new[4]) == (True, "0", "/made")
    assert own_engine.ketch("exec", "old", "true", check=False).code != 0


def test_log_lines_are_json(own_engine):
    own_engine.extra += ["--log-format", "json", "--containerd", "/x"]
    own_engine.start()
    lines = [json.loads(line) for line in own_engine.log().splitlines()]
    assert all(set(line) >= {"level", "msg", "time"} for line in lines)
    assert any(line["msg"].startswith("--containerd: nothing is changed by it") for line in lines)


def test_addresses_of_a_part_of_the_default_network(own_engine):
    own_engine.extra += ["--bip", "172.31.7.1/24", "--fixed-cidr", "172.31.7.128/28"]
    own_engine.start()
    own_engine.add_busybox()
    found = own_engine.ketch("run", "--rm", "busybox", "ip", "-4", "addr", "show", "eth0").out
    address = found.partition("inet ")[2].split()[0]
    assert address.startswith("172.31.7.1")
    assert 128 <= int(address.partition("/")[0].rpartition(".")[2]) < 144
    assert address.endswith("/24")
    assert "172.31.7.1 " in own_engine.ketch("run", "--rm", "busybox", "ip", "route").out


def validated(path) -> tuple[int, str]:
    program = os.path.join(BIN, "ketchd")
    words = [program, "--config-file", str(path), "--validate"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


def test_settings_are_checked(tmp_path):
    path = tmp_path / "daemon.json"
    path.write_text(json.dumps({"live-restore": True, "features": {"buildkit": True}, "labels": ["a=b"]}))
    assert validated(path) == (0, "configuration OK\n")
    path.write_text(json.dumps({"iptables": False}))
    code, said = validated(path)
    assert (code, "iptables false: Ketch does not have that" in said, "--bridge none" in said) == (1, True, True)
