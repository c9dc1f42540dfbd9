"""Ansible's collection community.docker: one playbook, each task of which is a case.

Idempotence is what its modules are about: a second run finds everything as it should be, by what the engine shows.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import peers
from tests.support.clients import places
from tests.support.waiting import patient

if TYPE_CHECKING:
    from collections.abc import Callable

_PLUGINS = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../support/clients/ansible"))

Result = dict[str, Any]


@dataclass
class Task:
    """A task of the playbook, and what its result is to be."""

    name: str
    module: str
    options: dict[str, Any]
    wanted: Callable[[Result], object]
    host: str = ""

    def play(self) -> dict[str, Any]:
        """In the playbook's own form."""
        module = self.module if "." in self.module else f"community.docker.{self.module}"
        task = {"name": self.name, module: self.options, "ignore_errors": True, "ignore_unreachable": True}
        return {**task, "delegate_to": self.host} if self.host else task


def changed(result: Result) -> bool:
    """Whether it did something."""
    return result["changed"] is True and not result.get("failed")


def same(result: Result) -> bool:
    """Whether all was as it should be."""
    return result["changed"] is False and not result.get("failed")


def fails(text: str) -> Callable[[Result], bool]:
    """Whether it failed for a reason that holds the text."""
    return lambda result: bool(result.get("failed")) and text in result["msg"]


SERVICE = {
    "name": "service",
    "image": "busybox",
    "command": ["sleep", "1000"],
    "state": "started",
    "pull": "never",
    "env": {"A": "b", "NUMBER": "7"},
    "labels": {"app": "demo"},
    "networks": [{"name": "lan", "ipv4_address": "10.68.0.10", "aliases": ["site"]}],
    "published_ports": ["127.0.0.1:18080:80", "127.0.0.1:18053:53/udp"],
    "exposed_ports": ["9000-9002"],
    "volumes": ["pages:/www", "/tmp:/host:ro"],
    "tmpfs": ["/scratch:size=1m"],
    "memory": "64m",
    "memory_swap": "64m",
    "cpu_shares": 512,
    "cpuset_cpus": "0",
    "capabilities": ["NET_ADMIN"],
    "cap_drop": ["MKNOD"],
    "devices": ["/dev/null:/dev/xnull:rwm"],
    "dns_servers": ["10.68.0.1"],
    "dns_search_domains": ["test"],
    "etc_hosts": {"db.test": "10.1.2.3"},
    "groups": ["10"],
    "hostname": "laborer",
    "domainname": "example.test",
    "init": True,
    "ipc_mode": "private",
    "log_driver": "json-file",
    "log_options": {"max-size": "1m", "max-file": "2"},
    "oom_score_adj": 100,
    "pids_limit": 100,
    "read_only": True,
    "restart_policy": "on-failure",
    "restart_retries": 3,
    "security_opts": ["no-new-privileges"],
    "shm_size": "8m",
    "stop_signal": "SIGTERM",
    "stop_timeout": 1,
    "sysctls": {"net.ipv4.ip_forward": "0"},
    "ulimits": ["nofile:100:200"],
    "user": "1:1",
    "working_dir": "/tmp",
    "healthcheck": {"test": ["CMD", "true"], "interval": "1s", "timeout": "2s", "retries": 3, "start_period": "1s"},
}
GONE = {"name": "service", "state": "absent", "force_kill": True}
OTHER = {"name": "other", "image": "busybox", "command": "sleep 1000", "pull": "never", "force_kill": True}
MOUNTS = [
    {"type": "volume", "source": "pages", "target": "/v", "read_only": True},
    {"type": "tmpfs", "target": "/t", "tmpfs_size": "1m", "tmpfs_mode": "0700"},
    {"type": "bind", "source": "/tmp", "target": "/b"},
]
NETWORK = {
    "name": "lan",
    "ipam_config": [{"subnet": "10.68.0.0/24", "gateway": "10.68.0.1", "iprange": "10.68.0.0/25"}],
    "labels": {"side": "back"},
    "driver_options": {"com.docker.network.bridge.enable_icc": "true"},
}


WEB = {"image": "busybox", "command": "sleep 1000", "stop_grace_period": "0s", "pull_policy": "never"}
COMPOSE = {"name": "kt-ansible", "services": {"web": WEB}}


ARCHIVE = "{{ lookup('env', 'KETCH_PROJECT') }}/copy.tar"
PROJECT = {"project_src": "{{ lookup('env', 'KETCH_PROJECT') }}"}
TASKS = [
    Task("host info", "docker_host_info", {}, lambda r: r["host_info"]["OSType"] == "linux" and same(r)),
    Task(
        "host info, verbose",
        "docker_host_info",
        {"containers": True, "images": True, "disk_usage": True, "verbose_output": True},
        lambda r: r["images"][0]["RepoTags"] == ["busybox:latest"] and "BuildCache" in r["disk_usage"],
    ),
    Task("not in a container", "current_container_facts", {}, same),
    # Volumes
    Task("volume", "docker_volume", {"name": "pages", "labels": {"a": "b"}}, changed),
    Task("volume again", "docker_volume", {"name": "pages", "labels": {"a": "b"}}, same),
    Task(
        "volume with other labels",
        "docker_volume",
        {"name": "pages", "labels": {"a": "c"}, "recreate": "options-changed"},
        lambda r: changed(r) and r["volume"]["Labels"] == {"a": "c"},
    ),
    Task("volume info", "docker_volume_info", {"name": "pages"}, lambda r: r["volume"]["Driver"] == "local"),
    Task("volume of another driver", "docker_volume", {"name": "odd", "driver": "nope"}, fails("nope")),
    # Networks
    Task("network", "docker_network", NETWORK, changed),
    Task("network again", "docker_network", NETWORK, same),
    Task(
        "network info",
        "docker_network_info",
        {"name": "lan"},
        lambda r: (
            r["network"]["IPAM"]["Config"]
            == [{"Subnet": "10.68.0.0/24", "IPRange": "10.68.0.0/25", "Gateway": "10.68.0.1"}]
        ),
    ),
    Task(
        "network that overlaps",
        "docker_network",
        {"name": "over", "ipam_config": [{"subnet": "10.68.0.0/25"}]},
        fails("overlap"),
    ),
    Task("network, internal", "docker_network", {"name": "in", "internal": True, "attachable": True}, changed),
    # Containers
    Task("container", "docker_container", SERVICE, changed),
    Task("container again", "docker_container", SERVICE, same),
    Task(
        "container info",
        "docker_container_info",
        {"name": "service"},
        lambda r: (
            r["container"]["State"]["Running"]
            and r["container"]["NetworkSettings"]["Networks"]["lan"]["IPAddress"] == "10.68.0.10"
        ),
    ),
    Task("update in place", "docker_container", {**SERVICE, "memory": "96m", "memory_swap": "96m"}, changed),
    Task("new environment", "docker_container", {**SERVICE, "env": {"A": "c"}}, changed),
    Task(
        "other network besides",
        "docker_container",
        {**SERVICE, "env": {"A": "c"}, "networks": [*SERVICE["networks"], {"name": "in"}]},
        changed,
    ),
    Task(
        "only the first network",
        "docker_container",
        {**SERVICE, "env": {"A": "c"}, "comparisons": {"networks": "strict"}},
        changed,
    ),
    Task("network's containers", "docker_network", {"name": "in", "connected": ["service"]}, changed),
    Task(
        "wait for health",
        "docker_container",
        {"name": "service", "state": "healthy", "image": "busybox", "comparisons": {"*": "ignore"}},
        lambda r: not r.get("failed"),
    ),
    Task(
        "pause",
        "docker_container",
        {"name": "service", "paused": True, "image": "busybox", "comparisons": {"*": "ignore"}},
        changed,
    ),
    Task(
        "stop",
        "docker_container",
        {"name": "service", "state": "stopped", "image": "busybox", "comparisons": {"*": "ignore"}},
        changed,
    ),
    Task("remove", "docker_container", GONE, changed),
    Task(
        "job",
        "docker_container",
        {**OTHER, "name": "job", "command": ["sh", "-c", "echo done"], "detach": False, "cleanup": True},
        lambda r: changed(r) and r["container"]["Output"] == "done\n" and r["status"] == 0,
    ),
    Task(
        "job that fails",
        "docker_container",
        {**OTHER, "name": "job", "command": ["sh", "-c", "echo why >&2; exit 3"], "detach": False, "cleanup": True},
        lambda r: r["failed"] and r["status"] == 3 and r["container"]["Output"] == "why\n",
    ),
    Task("host's network", "docker_container", {**OTHER, "network_mode": "host", "pid_mode": "host"}, changed),
    Task(
        "mounts",
        "docker_container",
        {**OTHER, "mounts": MOUNTS},
        changed,
    ),
    Task(
        "mounts again",
        "docker_container",
        {**OTHER, "mounts": MOUNTS},
        same,
    ),
    Task("no image", "docker_container", {**OTHER, "name": "no", "image": "never.test/x:1"}, fails("never.test/x")),
    Task("no program", "docker_container", {**OTHER, "name": "no", "command": "nope"}, fails("nope")),
    # In containers
    Task(
        "exec",
        "docker_container_exec",
        {
            "container": "other",
            "argv": ["sh", "-c", "echo $A $(pwd) $(id -u); cat"],
            "env": {"A": "b"},
            "chdir": "/etc",
            "user": "1",
            "stdin": "typed",
        },
        lambda r: (r["stdout"], r["rc"]) == ("b /etc 1\ntyped", 0),
    ),
    # Without a terminal, but read as if there were one.
    Task(
        "exec as on a terminal",
        "docker_container_exec",
        {"container": "other", "argv": ["echo", "plain"], "tty": True},
        lambda r: r["stdout"] == "plain",
    ),
    Task(
        "exec that fails",
        "docker_container_exec",
        {"container": "other", "command": "sh -c 'echo e >&2; exit 3'"},
        lambda r: (r["stderr"], r["rc"]) == ("e", 3),
    ),
    Task(
        "exec of nothing",
        "docker_container_exec",
        {"container": "other", "argv": ["nope"]},
        lambda r: r["rc"] == 127,
    ),
    Task(
        "copy into",
        "docker_container_copy_into",
        {
            "container": "other",
            "content": "text\n",
            "container_path": "/root/file",
            "mode": 0o640,
            "owner_id": 5,
            "group_id": 6,
        },
        changed,
    ),
    Task(
        "copy into again",
        "docker_container_copy_into",
        {
            "container": "other",
            "content": "text\n",
            "container_path": "/root/file",
            "mode": 0o640,
            "owner_id": 5,
            "group_id": 6,
        },
        same,
    ),
    Task(
        "a task in the container",
        "ansible.builtin.raw",
        {"_raw_params": "echo $((6 * 7))"},
        lambda r: r.get("stdout", "").strip() == "42",
        host="other",
    ),
    Task("remove the other", "docker_container", {"name": "other", "state": "absent", "force_kill": True}, changed),
    # Images
    Task("tag", "docker_image_tag", {"name": "busybox", "repository": ["copy:1", "copy:2"]}, changed),
    Task("export", "docker_image_export", {"name": "copy:1", "path": ARCHIVE}, changed),
    Task("remove a tag", "docker_image_remove", {"name": "copy:1"}, changed),
    Task("load", "docker_image_load", {"path": ARCHIVE}, lambda r: r["image_names"] == ["copy:1"]),
    Task("pull from nowhere", "docker_image_pull", {"name": "127.0.0.1:1/never:1"}, fails("127.0.0.1:1")),
    Task("remove the rest", "docker_image_remove", {"name": "copy:1"}, changed),
    # Compose
    Task("compose", "docker_compose_v2", PROJECT, changed),
    Task("compose again", "docker_compose_v2", PROJECT, same),
    Task(
        "compose exec",
        "docker_compose_v2_exec",
        {**PROJECT, "service": "web", "argv": ["echo", "hi"]},
        lambda r: r["stdout"] == "hi",
    ),
    Task(
        "compose scale",
        "docker_compose_v2",
        {**PROJECT, "scale": {"web": 2}},
        lambda r: changed(r) and len(r["containers"]) == 2,
    ),
    Task("compose stop", "docker_compose_v2", {**PROJECT, "state": "stopped"}, changed),
    Task("compose down", "docker_compose_v2", {**PROJECT, "state": "absent"}, changed),
    # At the end
    Task(
        "prune",
        "docker_prune",
        {"containers": True, "networks": True, "volumes": True, "volumes_filters": {"all": True}, "images": True},
        lambda r: "lan" in r["networks"] and r["volumes"] == ["pages"] and "images_space_reclaimed" in r,
    ),
    Task("swarm info", "docker_swarm_info", {}, fails("swarm manager")),
]


@pytest.fixture(scope="module")
def run(world, tmp_path_factory):
    """Runs a program of Ansible's; returns what it printed."""
    peers.need()
    place = places.place("ansible")
    home = tmp_path_factory.mktemp("ansible")
    settings = {
        "ANSIBLE_HOME": f"{home}/home",
        "ANSIBLE_COLLECTIONS_PATH": f"{place}/collections",
        "ANSIBLE_CALLBACK_PLUGINS": _PLUGINS,
        "ANSIBLE_STDOUT_CALLBACK": "results",
        "ANSIBLE_PIPELINING": "1",
        "ANSIBLE_LOCALHOST_WARNING": "0",
        "ANSIBLE_INVENTORY_UNPARSED_WARNING": "0",
        "ANSIBLE_PYTHON_INTERPRETER": f"{place}/bin/python",
        "LC_ALL": "C.UTF-8",
    }

    def call(program: str, *args: str, **environment: str) -> str:
        done = subprocess.run(
            [f"{place}/bin/{program}", *args],
            env={**world.environment(), **settings, **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=patient(240),
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return call


@pytest.fixture(scope="module")
def results(run, tmp_path_factory) -> dict[str, Result]:
    """{task: its result}, of the playbook."""
    directory = tmp_path_factory.mktemp("playbook")
    (directory / "compose.yaml").write_text(json.dumps(COMPOSE), encoding="utf-8")
    (directory / "file").write_text("of the host\n", encoding="utf-8")
    hosts = {
        "other": {
            "ansible_connection": "community.docker.docker_api",
            "ansible_host": "other",
            "ansible_docker_docker_host": "{{ lookup('env', 'DOCKER_HOST') }}",
        }
    }
    play = {
        "hosts": "localhost",
        "connection": "local",
        "gather_facts": False,
        "tasks": [task.play() for task in TASKS],
    }
    (directory / "play.json").write_text(json.dumps([play]), encoding="utf-8")
    (directory / "hosts.json").write_text(json.dumps({"all": {"hosts": hosts}}), encoding="utf-8")
    run(
        "ansible-playbook",
        "-i",
        f"{directory}/hosts.json",
        f"{directory}/play.json",
        KETCH_RESULTS=f"{directory}/out",
        KETCH_PROJECT=str(directory),
    )
    lines = (directory / "out").read_text(encoding="utf-8").splitlines()
    return {one["name"]: one for one in map(json.loads, lines)}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("task", TASKS, ids=[task.name.replace(" ", "-") for task in TASKS])
def test_task(results, task):
    result = results[task.name]
    assert task.wanted(result), json.dumps({k: v for k, v in result.items() if k != "invocation"})


def test_inventory(run, world, tmp_path):
    (tmp_path / "our.docker.yml").write_text(
        "plugin: community.docker.docker_containers\nconnection_type: docker-api\n"
        "docker_host: "
        + world.host
        + "\nverbose_output: true\ngroups: {front: docker_config.Labels.tier == 'front'}\n",
        encoding="utf-8",
    )
    world.client("run", "-d", "--name", "listed", "-l", "tier=front", "busybox", "sleep", "1000")
    found = json.loads(
        run("ansible-inventory", "-i", f"{tmp_path}/our.docker.yml", "--list"),
        # Texts from elsewhere are marked as such.
        object_hook=lambda one: one.get("__ansible_unsafe", one),
    )
    assert found["front"]["hosts"] == ["listed"]
    assert found["_meta"]["hostvars"]["listed"]["docker_state"]["Running"] is True
    world.client("rm", "-f", "listed")
