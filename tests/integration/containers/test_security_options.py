"""Security options: ``info``, ``inspect`` and the program's actual confinement agree."""

from __future__ import annotations

import json
import os

import pytest

from ketch.runtime.security import apparmor

# What holds the program, in three lines. A kernel without such labels refuses to tell.
LOOK = """
grep Seccomp: /proc/self/status
readlink /proc/self/ns/cgroup
cat /proc/self/attr/current 2>/dev/null || echo unconfined
"""


def looked(engine, *flags: str) -> dict[str, bool]:
    """Whether each holds a container with these flags."""
    engine.client("run", "--name", "box", *flags, "busybox", "sh", "-c", LOOK)
    seccomp, namespace, label = engine.client("logs", "box").out.splitlines()
    inspected = json.loads(engine.client("inspect", "box").out)[0]
    engine.client("rm", "box")
    confined = label.strip("\0") not in ("unconfined", "")
    assert confined == (inspected["AppArmorProfile"] not in ("", "unconfined"))
    own = namespace != os.readlink("/proc/self/ns/cgroup")
    assert own == (inspected["HostConfig"]["CgroupnsMode"] == "private")
    users = inspected["HostConfig"].get("IDMappings") is not None
    return {"seccomp": seccomp.split()[1] == "2", "cgroupns": own, "apparmor": confined, "userns": users}


def test_info_says_what_containers_get(engine):
    options = json.loads(engine.client("info", "--format", "{{json .SecurityOptions}}").out)
    said = {option.partition(",")[0].removeprefix("name=") for option in options}
    assert said <= {"seccomp", "cgroupns", "apparmor", "userns"}
    assert {name for name, holds in looked(engine).items() if holds} == said
    freed = ("--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined", "--cgroupns", "host")
    assert not any(looked(engine, *freed, "--userns", "host").values())


@pytest.mark.ketch_only
def test_a_profile_that_it_would_not_get_is_refused(engine):
    """Nobody believes his container confined by a profile that is not set."""
    without_apparmor = ["apparmor=docker-default", "apparmor=ketch-default"] if not apparmor.enabled() else []
    for option in ("label=type:svirt_lxc_net_t", *without_apparmor):
        done = engine.client("run", "--rm", "--security-opt", option, "busybox", "true", check=False)
        assert done.code == 125
        assert f'invalid --security-opt 2: "{option}"' in done.err
