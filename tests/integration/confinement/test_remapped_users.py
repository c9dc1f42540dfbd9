"""``--userns-remap`` and ``--userns-default auto``, with the answers of a dockerd that remaps."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.engines import Engine
from tests.support.rawapi import Api

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# An /etc of the daemon's own, in which it may write.
_OWN_ETC = 'mount -t overlay overlay -o "lowerdir=/etc,upperdir=$0/upper,workdir=$0/work" /etc && exec "$@"'
_MAP = ["sh", "-c", "cat /proc/self/uid_map | awk '{print $1, $3}'"]

HOSTS: list[dict[str, Any]] = [
    {},
    {"UsernsMode": "private"},
    {"UsernsMode": "host"},
    {"Privileged": True},
    {"Privileged": True, "UsernsMode": "host"},
    {"Privileged": True, "NetworkMode": "host"},
    {"NetworkMode": "host"},
    {"NetworkMode": "host", "UsernsMode": "host"},
    {"PidMode": "host"},
    {"PidMode": "host", "UsernsMode": "host"},
    {"UTSMode": "host"},
    {"CgroupnsMode": "host"},
    {"ReadonlyRootfs": True},
    {"CapAdd": ["ALL"]},
    {"Sysctls": {"net.ipv4.ip_forward": "1"}},
    {"Tmpfs": {"/t": "uid=5"}},
    {"IpcMode": "none"},
    {"Ulimits": [{"Name": "nofile", "Soft": 99, "Hard": 99}]},
]


def _remapped(one: Engine, place: Path) -> None:
    for name in ("upper", "work"):
        (place / name).mkdir()
    one.prefix = ["unshare", "--mount", "sh", "-c", _OWN_ETC, str(place)]
    one.extra += ["--userns-remap", "default"]


@pytest.fixture(scope="module")
def remapped(file_engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """A daemon whose containers share the ids of dockremap, who got them at its start."""
    place = tmp_path_factory.mktemp("etc")
    _remapped(file_engine, place)
    file_engine.start()
    file_engine.add_busybox()
    for name in ("subuid", "subgid"):
        assert (place / "upper" / name).read_text().splitlines()[-1].startswith("dockremap:")
    return file_engine


@pytest.fixture(scope="module")
def remapped_dockerd() -> Iterator[Engine]:
    one = Engine("dockerd", suffix="d")
    one.own_network = True
    os.chmod(one.root, 0o711)  # dockerd's remapped root looks for its files
    one.prefix = ["sh", "-c", 'cp -a /etc /run/etc && mount --bind /run/etc /etc && exec "$@"', "sh"]
    one.extra += ["--userns-remap", "default"]
    with one.running():
        yield one


def _outcome(engine: Engine, host: dict[str, Any]) -> tuple[object, ...]:
    """What a container with these settings is told, or how many ids it has."""
    api = Api(engine.socket)
    status, answer = api("POST", "/containers/create", {"Image": "busybox", "Cmd": _MAP, "HostConfig": host})
    if status != 201:
        return status, answer["message"]
    path = f"/containers/{answer['Id']}"
    try:
        status, answer = api("POST", f"{path}/start")
        if status != 204:
            return status, answer["message"]
        api.must("POST", f"{path}/wait")
        _, text = api("GET", f"{path}/logs", stdout=1, stderr=1)
        shown = api.must("GET", f"{path}/json")["HostConfig"]["UsernsMode"]
        return text[8:].decode().strip(), shown
    finally:
        api("DELETE", path, force=1)


def test_what_is_had_and_what_is_refused_is_as_with_dockerd(remapped, remapped_dockerd):
    def security(engine: Engine) -> bool:
        return "name=userns" in Api(engine.socket).must("GET", "/info")["SecurityOptions"]

    assert security(remapped)
    assert security(remapped_dockerd)
    for host in HOSTS:
        assert _outcome(remapped, host) == _outcome(remapped_dockerd, host), host


def test_all_containers_have_the_same_users(remapped):
    lines = set()
    for _ in range(2):
        lines.add(remapped.ketch("run", "--rm", "busybox", "cat", "/proc/self/uid_map").out)
    [line] = lines
    inside, outside, size = map(int, line.split())
    assert (inside, size) == (0, 65536)
    assert outside >= 100000
    assert (
        remapped.ketch("run", "--rm", "--userns", "host", "busybox", "cat", "/proc/self/uid_map").out.split()[1] == "0"
    )


def test_a_container_keeps_its_users_when_the_default_changes(remapped):
    remapped.ketch("create", "--name", "before", "busybox", "cat", "/proc/self/uid_map")
    before = remapped.ketch("start", "-a", "before").out
    remapped.ketch("create", "--name", "plain", "--userns", "host", "busybox", "cat", "/proc/self/uid_map")
    remapped.stop()
    at = remapped.extra.index("--userns-remap")
    flags, remapped.extra = remapped.extra, remapped.extra[:at] + remapped.extra[at + 2 :]
    remapped.start()
    assert remapped.ketch("start", "-a", "before").out == before
    assert remapped.ketch("start", "-a", "plain").out.split()[1] == "0"
    assert remapped.ketch("run", "--rm", "busybox", "cat", "/proc/self/uid_map").out.split()[1] == "0"
    remapped.stop()
    remapped.extra = flags
    remapped.start()
    remapped.remove_all()


def test_a_user_who_is_not_there_is_an_error_of_the_start(own_engine):
    own_engine.extra += ["--userns-remap", "nosuch"]
    with pytest.raises(AssertionError, match='Error during uid lookup for "nosuch"'):
        own_engine.start()
    own_engine.process = None


_DOCKERFILE = """
FROM busybox
RUN id -u > /who; cut -c1-30 /proc/self/uid_map > /map; touch /mine; chown 5:6 /mine; ! mknod /node c 1 3
RUN --mount=type=cache,target=/cache,uid=3 touch /cache/x && stat -c %u:%g /cache /cache/x > /cached
RUN --mount=type=secret,id=one,uid=7,mode=0400 stat -c '%u %a' /run/secrets/one > /secret
RUN --mount=type=bind,target=/context,rw stat -c %u:%g /context/Dockerfile > /bound && touch /context/new
RUN stat -c %u:%g /etc/hosts /etc/resolv.conf > /files
COPY --chown=8:9 Dockerfile /copied
USER 1000:1001
RUN --mount=type=tmpfs,target=/t,size=1m stat -c %u:%g /t /dev/stdout >/dev/stderr
"""


def test_commands_of_builds_have_users_of_their_own(own_engine, tmp_path):
    """And what they make has the owners that they saw, for everybody."""
    own_engine.user_namespaces("--userns-default", "auto")
    own_engine.start()
    own_engine.add_busybox()
    (tmp_path / "Dockerfile").write_text(_DOCKERFILE)
    (tmp_path / "one").write_text("hidden")
    own_engine.ketch("build", "--secret", f"id=one,src={tmp_path}/one", "-t", "built", str(tmp_path))
    look = "cat /who /cached /secret /bound /files; stat -c %u:%g /mine /copied /; cat /map"
    for mode in ("auto", "host"):
        out = own_engine.ketch("run", "--rm", "-u", "0", "--userns", mode, "built", "sh", "-c", look).out.splitlines()
        assert out[:-1] == ["0", "3:0", "0:0", "7 400", "0:0", "0:0", "0:0", "5:6", "8:9", "0:0"]
        assert int(out[-1].split()[1]) >= 1 << 31
    for option, words in {
        "--security=insecure": "privileged mode is incompatible with user namespaces",
        "--network=host": "cannot share the host's network namespace when user namespaces are enabled",
    }.items():
        (tmp_path / "Dockerfile").write_text(f"FROM busybox\nRUN {option} true\n")
        failed = own_engine.ketch(
            "build", "--allow", "network.host", "--allow", "security.insecure", str(tmp_path), check=False
        )
        assert failed.code == 1
        assert words in failed.err
    own_engine.ketch("run", "-d", "--name", "web", "busybox", "sleep", "1000")
    (tmp_path / "Dockerfile").write_text(
        "FROM busybox\nRUN ls /sys/class/net && readlink /proc/self/ns/user >/dev/stderr\n"
    )
    shared = own_engine.ketch("build", "--progress", "plain", "--network", "container:web", str(tmp_path))
    assert own_engine.ketch("exec", "web", "readlink", "/proc/self/ns/user").out.strip() in shared.out + shared.err


def test_two_daemons_do_not_give_out_the_same_ids(own_engine, file_engine):
    """The one that asks second is told who was first."""
    if file_engine.process is None:
        file_engine.start()
    own_engine.user_namespaces()
    own_engine.start()
    own_engine.add_busybox()
    own_engine.ketch("run", "--rm", "--userns", "auto", "busybox", "true")
    other = Engine("ketch", suffix="o")
    other.extra = own_engine.extra
    with contextlib.ExitStack() as undo:
        undo.callback(other.delete)
        other.start()
        other.add_busybox()
        failed = other.ketch("run", "--rm", "--userns", "auto", "busybox", "true", check=False)
        assert failed.code == 125
        assert f"the daemon of process {own_engine.process.pid} gives them out" in failed.err
        assert "--userns-pool" in failed.err
        other.remove_all()
    assert os.path.exists(f"/proc/{own_engine.process.pid}")
