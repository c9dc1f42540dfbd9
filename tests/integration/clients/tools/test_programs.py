"""Programs of other projects on an engine: of test suites, of hooks and editors, on images, on terminals."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import pytest

from tests.support import peers
from tests.support.clients import places
from tests.support.programs import need
from tests.support.terminal import Terminal

SERVE = 'sh -c "mkdir -p /www; echo moored > /www/index.html; exec httpd -f -p 80 -h /www"'
COMPOSE = f"""
services:
  web: {{image: busybox, command: '{SERVE}', stop_grace_period: 0s, ports: ["127.0.0.1::80"]}}
"""
PYTEST_DOCKER = """
import pathlib, urllib.request
import pytest

@pytest.fixture(scope="session")
def docker_compose_file():
    return str(pathlib.Path(__file__).parent / "compose.yaml")

def test_service(docker_ip, docker_services):
    address = f"http://{docker_ip}:{docker_services.port_for('web', 80)}"
    def answers():
        try:
            return urllib.request.urlopen(address).read() == b"moored\\n"
        except OSError:
            return False
    docker_services.wait_until_responsive(check=answers, timeout=20, pause=0.05)
"""
TESTINFRA = """
import testinfra

def test_container():
    host = testinfra.get_host("docker://box")
    assert host.file("/etc/motd").content == b"hi\\n" and host.file("/etc/motd").user == "root"
    assert host.run("exit 3").rc == 3
    assert testinfra.get_host("docker://nobody@box").check_output("id -u") == "65534"
    local = testinfra.get_host("local://")
    assert local.docker("box").is_running and local.docker.server_version()
    assert [c.name for c in local.docker.get_containers(name="box")] == ["box"]
"""
TOX = """
[tox]
skipsdist = true
envlist = it
[testenv:it]
skip_install = true
docker = db, web
allowlist_externals = busybox
commands = busybox wget -qO- http://127.0.0.1:{env:WEB_PORT}/
[docker:web]
dockerfile = {toxinidir}/Dockerfile
expose = WEB_PORT=80/tcp
healthcheck_cmd = test -e /www/index.html
healthcheck_interval = 0.2
healthcheck_timeout = 1
healthcheck_retries = 30
links = db:base
volumes = bind:ro:{toxinidir}:/project
[docker:db]
dockerfile = {toxinidir}/Dockerfile
environment = A=b
"""
STRUCTURE = {
    "schemaVersion": "2.0.0",
    "commandTests": [
        {"name": "fails", "command": "sh", "args": ["-c", "echo no; exit 3"], "exitCode": 3, "expectedOutput": ["no"]},
        {"name": "set up", "setup": [["touch", "/made"]], "command": "ls", "args": ["/made"]},
    ],
    "fileExistenceTests": [{"name": "its mode", "path": "/bin/busybox", "shouldExist": True, "uid": 0}],
    "fileContentTests": [{"name": "users", "path": "/etc/passwd", "expectedContents": ["^root:.*"]}],
    "metadataTest": {"cmd": ["sh"]},
}
HOOKS = [{"id": "own", "name": "own", "language": "docker", "entry": "busybox grep -c .", "files": "txt$"}]
PRE_COMMIT = {
    "repos": [
        {
            "repo": "local",
            "hooks": [
                {
                    "id": "image",
                    "name": "image",
                    "language": "docker_image",
                    "entry": "busybox grep -c .",
                    "files": "txt$",
                }
            ],
        },
        {"repo": "./hooks", "rev": "v1", "hooks": [{"id": "own", "verbose": True}]},
    ]
}
# Hooks and tests are built with a pull of what they are based on: of nothing, here.
FROM_SCRATCH = 'FROM scratch\nCOPY busybox /bin/busybox\nRUN ["/bin/busybox", "--install", "/bin"]\n'


@pytest.fixture
def box(world):
    """A container that runs."""
    world.client("run", "-d", "--name", "box", "busybox", "sh", "-c", "echo hi > /etc/motd; echo spoken; sleep 1000")
    yield "box"
    world.client("rm", "-f", "box")


@pytest.fixture
def scratch(tmp_path):
    """A directory with a Dockerfile on which nothing has to be pulled."""
    shutil.copy(need("busybox"), tmp_path / "busybox")
    (tmp_path / "Dockerfile").write_text(f"{FROM_SCRATCH}CMD {SERVE}\n", encoding="utf-8")
    return tmp_path


def test_pytest_docker(tool, tmp_path):
    peers.need()
    (tmp_path / "compose.yaml").write_text(COMPOSE, encoding="utf-8")
    (tmp_path / "checks.py").write_text(PYTEST_DOCKER, encoding="utf-8")
    assert "1 passed" in tool("pytest", "-q", "-p", "no:cacheprovider", "checks.py", cwd=str(tmp_path))


def test_testinfra(tool, box, tmp_path):
    peers.need()
    (tmp_path / "checks.py").write_text(TESTINFRA, encoding="utf-8")
    assert "1 passed" in tool("pytest", "-q", "-p", "no:cacheprovider", "checks.py", cwd=str(tmp_path))


def test_tox_docker(tool, scratch):
    (scratch / "tox.ini").write_text(TOX, encoding="utf-8")
    assert "moored" in tool("tox", cwd=str(scratch))


def test_docker_squash(tool, world):
    """It loads the image without the layers that it has not changed."""
    dockerfile = b"FROM busybox\nRUN echo 1 > /a\nRUN rm /a; echo 2 > /b\nRUN echo 3 > /c\nCMD cat /b /c\n"
    world.client("build", "-q", "-t", "long", "-", stdin=dockerfile)
    tool("docker-squash", "-t", "short:1", "-f", "3", "long")
    (short,) = json.loads(world.client("image", "inspect", "short:1").out)
    assert len(short["RootFS"]["Layers"]) == 3
    assert world.client("run", "--rm", "short:1").out == "2\n3\n"
    world.client("rmi", "short:1", "long")


def test_container_structure_test(tool, tmp_path):
    (tmp_path / "structure.json").write_text(json.dumps(STRUCTURE), encoding="utf-8")
    said = tool("container-structure-test", "test", "--image", "busybox", "--config", f"{tmp_path}/structure.json")
    assert "Passes:      5" in said


def test_pre_commit(tool, world, tmp_path, scratch):
    """A hook whose image is there, and one whose image it builds; both as the user, on the files of the repository."""
    peers.need()
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    for name in ("busybox", "Dockerfile"):
        (scratch / name).rename(hooks / name)
    (hooks / ".pre-commit-hooks.yaml").write_text(json.dumps(HOOKS), encoding="utf-8")
    project = tmp_path / "project"
    project.mkdir()
    (project / "a.txt").write_text("one\ntwo\n", encoding="utf-8")
    config = json.dumps(PRE_COMMIT).replace("./hooks", str(hooks))
    (project / ".pre-commit-config.yaml").write_text(config, encoding="utf-8")
    git = [need("git"), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for place in (hooks, project):
        for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "all"], ["tag", "v1"]):
            subprocess.run([*git, *words], cwd=place, check=True, env={**os.environ, "HOME": world.root})
    said = tool("pre-commit", "run", "--all-files", "--verbose", cwd=str(project))
    assert said.count("Passed") == 2 and said.splitlines().count("2") == 2
    world.client("image", "prune", "-af", "--filter", "label=PRE_COMMIT")


def test_dev_container(tool, world, tmp_path):
    """As editors make them: attached to its start, files and settings by execs."""
    peers.need()
    settings = {
        "image": "busybox",
        "remoteUser": "root",
        "containerEnv": {"A": "b"},
        "mounts": ["source=dev,target=/kept,type=volume"],
        "postCreateCommand": "echo created > /kept/file",
    }
    (tmp_path / ".devcontainer.json").write_text(json.dumps(settings), encoding="utf-8")
    program = "../node_modules/.bin/devcontainer"
    said = tool(program, "up", "--workspace-folder", str(tmp_path))
    made = json.loads(said.splitlines()[-1])
    assert made["outcome"] == "success", said
    command = ["sh", "-c", "cat /kept/file; echo $A; pwd"]
    said = tool(program, "exec", "--workspace-folder", str(tmp_path), *command)
    assert said.splitlines()[-3:] == ["created", "b", f"/workspaces/{tmp_path.name}"]
    world.client("rm", "-f", made["containerId"])
    world.client("volume", "rm", "dev")


def test_commands_of_containers(tool, world):
    """What runlike and docker-autocompose read of a container."""
    peers.need()
    flags = [
        "-p",
        "127.0.0.1:18482:80",
        "-e",
        "A=b",
        "--restart",
        "on-failure:3",
        "--cap-add",
        "NET_ADMIN",
        "-m",
        "64m",
    ]
    more = ["--dns", "192.0.2.1", "--log-driver", "json-file", "--log-opt", "max-size=1m", "--add-host", "db:192.0.2.2"]
    world.client("run", "-d", "--name", "told", *flags, *more, "busybox", "sleep", "1000")
    line = tool("runlike", "told")
    for part in ("--env=A=b", "--cap-add=CAP_NET_ADMIN", "-p 127.0.0.1:18482:80", "--restart=on-failure:3"):
        assert part in line
    text = tool("autocompose", "told")
    for part in ("A=b", "127.0.0.1:18482:80/tcp", "192.0.2.1", "max-size", "db:192.0.2.2"):
        assert part in text
    world.client("rm", "-f", "told")


def test_lazydocker(world, box):
    """It shows the container, its log, its figures, and an image."""
    program = f"{places.place('tools')}/bin/lazydocker"
    with Terminal([program], world.environment()) as screen:
        screen.resize(40, 140)
        screen.expect("busybox")
        screen.expect("running")
        screen.expect("spoken")
        screen.send("q")
        assert screen.wait() == 0
