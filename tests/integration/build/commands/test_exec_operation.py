"""RUN as an operation of a graph: the message becomes a command, what it leaves the vertex's outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from ketch.build.cache.contents import ContentDigests
from ketch.build.cache.maps import exec_map
from ketch.build.llb import ops_pb2 as pb
from ketch.build.llb.operations import NOTHING, MountInput, execute, output_at, source
from ketch.build.ops.exec import ExecOperation
from ketch.errors import InvalidArgument, KetchError, NotFound
from ketch.oci import platform as platforms
from tests.support.boxes.build_box import PATH

if TYPE_CHECKING:
    from ketch.build.tree import Tree

pytestmark = pytest.mark.ketch_only
HERE = platforms.host()
PLATFORM = pb.Platform(OS=HERE.os, Architecture=HERE.architecture)
BASE, OTHER = source("docker-image://base", platform=PLATFORM), source("docker-image://other", platform=PLATFORM)


class Client:
    """A client with some secrets, and without an agent."""

    id = "one"

    def __init__(self, **secrets: bytes) -> None:
        self.secrets = secrets

    async def secret(self, name: str) -> bytes | None:
        return self.secrets.get(name)

    async def ssh_agent(self, _name: str) -> str | None:
        return None


class Work:
    """A vertex at work for some clients."""

    def __init__(self, lease: Any, sessions: list[Client]) -> None:
        self.lease, self.sessions, self.log, self.followed = lease, sessions, self, False
        self.text = b""

    def write(self, _stream: int, data: bytes) -> None:
        self.text += data


def run(build_box, command: pb.ExecOp, mounts: list[MountInput], inputs: list[Tree], *clients: Client, **metadata: Any):
    """Run a command as an operation; returns the vertex, its outputs, and what it said."""
    vertex = execute(command, [MountInput(pb.Mount(dest="/"), BASE), *mounts], PLATFORM, pb.OpMetadata(**metadata))
    work = Work(build_box.lease, [*clients])

    async def both():
        operation = ExecOperation(vertex, build_box.executor, contents)
        [found] = await operation.cache_maps(work)
        assert found.digest == exec_map(vertex.op, contents).digest
        return await operation.run(work, inputs)

    contents = ContentDigests(build_box.layers)
    return vertex, build_box.call(both()), work.text.decode()


def script(text: str, **more: Any) -> pb.ExecOp:
    """A command for the shell."""
    return pb.ExecOp(meta=pb.Meta(args=["/bin/sh", "-c", text], env=[PATH], cwd="/tmp", **more.pop("meta", {})), **more)


def test_a_command_with_everything(build_box):
    other = build_box.tree(lambda root: ((root / "in").mkdir(), (root / "in/file").write_text("other\n")))
    text = """
        exec 2>&1; cat /o/file /s /a; echo $TOKEN $HTTPS_PROXY $https_proxy; pwd; hostname; id -u; ulimit -n
        grep far /etc/hosts; df -k /few | tail -1 | awk '{print $2}'; ls /sys/class/net; cat /c/x
        echo 1 >/root-file; echo 2 >/kept/kept-file; echo 3 >/lost/lost-file; echo 4 >rel/x; exit 3
    """
    meta = {
        "user": "0",
        "hostname": "here",
        "proxy_env": pb.ProxyEnv(https_proxy="http://p"),
        "extraHosts": [pb.HostIP(Host="far", IP="10.1.1.1")],
        "ulimit": [pb.Ulimit(Name="nofile", Soft=99, Hard=99)],
        "validExitCodes": [0, 3],
    }
    mounts = [
        MountInput(pb.Mount(dest="/o", selector="/in", readonly=True), OTHER),
        MountInput(pb.Mount(dest="/kept"), OTHER),
        MountInput(pb.Mount(dest="/lost", output=NOTHING), OTHER),
        MountInput(pb.Mount(dest="rel", output=NOTHING, mountType=pb.TMPFS)),
        MountInput(pb.Mount(dest="/few", mountType=pb.TMPFS, TmpfsOpt=pb.TmpfsOpt(size=1 << 20))),
        MountInput(pb.Mount(dest="/c", mountType=pb.CACHE, cacheOpt=pb.CacheOpt(ID="op", sharing=pb.LOCKED))),
        MountInput(pb.Mount(dest="/s", mountType=pb.SECRET, secretOpt=pb.SecretOpt(ID="s", mode=0o444))),
        MountInput(pb.Mount(dest="/t", mountType=pb.SECRET, secretOpt=pb.SecretOpt(ID="none", optional=True))),
        MountInput(pb.Mount(dest="/a", mountType=pb.SSH, SSHOpt=pb.SSHOpt(optional=True))),
    ]
    command = script(
        text,
        meta=meta,
        network=pb.NONE,
        secretenv=[pb.SecretEnv(ID="t", name="TOKEN"), pb.SecretEnv(ID="none", name="NONE", optional=True)],
        cdiDevices=[pb.CDIDevice(name="vendor.com/gpu=all", optional=True)],
    )
    clients = [Client(), Client(s=b"secret\n", t=b"token")]
    vertex, outputs, said = run(build_box, command, mounts, [build_box.base, other], *clients)
    assert said.split("\n")[:-1] == [
        "other",
        "secret",
        "cat: can't open '/a': No such file or directory",
        "token http://p http://p",
        "/tmp",
        "here",
        "0",
        "99",
        "10.1.1.1\tfar",
        "1024",
        "lo",
        "cat: can't open '/c/x': No such file or directory",
    ]
    assert len(outputs) == 2
    root, kept = outputs[output_at(vertex, "/").output], outputs[output_at(vertex, "/kept").output]
    assert build_box.layer(root).keys() >= {"root-file"}
    assert build_box.layer(kept) == {"kept-file": "f"}
    assert kept.layers[:-1] == other.layers


def test_limits_of_the_build(build_box):
    resources = pb.LinuxResources(memory=16 << 20, memorySwap=16 << 20)
    with pytest.raises(KetchError, match="did not complete successfully: cannot allocate memory"):
        run(build_box, script("tail /dev/zero"), [], [build_box.base], Client(), linux_resources=resources)


def test_what_is_missing(build_box):
    secret = MountInput(pb.Mount(dest="/s", mountType=pb.SECRET, secretOpt=pb.SecretOpt(ID="foo")))
    agent = MountInput(pb.Mount(dest="/a", mountType=pb.SSH, SSHOpt=pb.SSHOpt()))
    for command, mounts, kind, words in (
        (script("true"), [secret], NotFound, "^secret foo: not found$"),
        (script("true", secretenv=[pb.SecretEnv(ID="bar", name="B")]), [], NotFound, "^secret bar: not found$"),
        (script("true", secretenv=[pb.SecretEnv(ID="nul", name="B")]), [], InvalidArgument, "NUL byte"),
        (script("true"), [agent], NotFound, "^unset ssh forward key default$"),
        (script("true", cdiDevices=[pb.CDIDevice(name="v/c=d")]), [], KetchError, "CDI device not found: v/c=d"),
        (script("true"), [MountInput(pb.Mount(dest="/o", output=NOTHING), OTHER)], InvalidArgument, "missing input 1"),
    ):
        with pytest.raises(kind, match=words):
            run(build_box, command, mounts, [build_box.base], Client(nul=b"a\0b"))
