"""Commands of builds: what they see, what they leave, how they end."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import socket
import threading
import time
from contextlib import closing, suppress

import pytest

from ketch.build.providers import CommandMount
from ketch.build.tree import EMPTY, Tree
from ketch.errors import FailedPrecondition, KetchError
from ketch.oci.manifest import Platform
from ketch.runtime.cgroups import common
from tests.support.boxes.build_box import PATH
from tests.support.waiting import until

pytestmark = pytest.mark.ketch_only


# -- what is there ---------------------------------------------------------------------------------


def test_what_a_command_sees(build_box):
    """Hardly anything of the machine, and what BuildKit's commands see."""
    look = """
        exec 2>&1; pwd; id; hostname; cat /proc/self/stat | cut -d' ' -f1; cat; umask
        grep -E '^(Seccomp|CapEff|NoNewPrivs):' /proc/self/status
        ulimit -n; df -k /dev/shm | tail -1 | awk '{print $2}'
        ls -A / | grep -v -E '^(bin|dev|etc|home|proc|root|sys|tmp|usr)$'
        ip -o addr | grep -c inet; cat /etc/hosts; cat /etc/resolv.conf
        echo x >/etc/hosts; env | sort
    """
    ran = build_box.run(
        look,
        user="alice",
        cwd="/home/alice/new",
        env=["A=1"],
        proxy_env=["HTTP_PROXY=http://p"],
        secret_env={"TOKEN": "hush\udcff"},
        hosts=[("far", "10.9.8.7"), ("six", "fd00::1"), ("here", "host-gateway")],
        limits=[("nofile", 100, 200)],
        shm_size=1 << 20,
        network="none",
    )
    text = ran.both.decode(errors="surrogateescape")
    assert ran.error is None, text
    assert text.startswith("/home/alice/new\nuid=1000(alice) gid=1000(alice) groups=10(wheel),63(audio),1000(alice)\n")
    assert "\nbuildkitsandbox\n" in text
    assert "\n0022\n" in text
    assert re.search(r"CapEff:\t0000000000000000\nNoNewPrivs:\t0\nSeccomp:\t2\n100\n1024\n", text)
    names = "127.0.0.1\tlocalhost buildkitsandbox\n::1\tlocalhost ip6-localhost ip6-loopback\n10.9.8.7\tfar\n"
    assert re.search(f"\n2\n{names}fd00::1\tsix\n[0-9.]+\there\nnameserver 127.0.0.1\n", text)
    assert "can't create /etc/hosts: Read-only file system" in text
    assert text.endswith(
        "A=1\nHOME=/home/alice\nHTTP_PROXY=http://p\n"
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nPWD=/home/alice/new\nSHLVL=1\n"
        "TOKEN=hush\udcff\n"
    )
    assert build_box.layer(ran.written.root) == {"etc": "d", "home": "d", "home/alice": "d", "home/alice/new": "d"}
    # What lacked the working directory gets it, as the step's user's.
    owners = [
        os.lstat(build_box.layers.directory(ran.written.root.layers[-1]) + "/home/alice" + end) for end in ("", "/new")
    ]
    assert [(one.st_uid, one.st_gid, one.st_mode & 0o7777) for one in owners] == [(1000, 1000, 0o755)] * 2
    ran = build_box.run("stat -c %u:%g /w /w/x", user="1002:1003", cwd="/w/x")
    assert ran.out == "1002:1003\n1002:1003\n"
    # By number, without names; a group that is not there; a user who is not.
    assert build_box.run("id", user="7:8").out == "uid=7 gid=8 groups=8\n"
    ran = build_box.run("id", user="nobody")
    words = "unable to find user nobody: no matching entries in passwd file"
    assert str(ran.error) == f'process "/bin/sh -c id" did not complete successfully: {words}'


def test_networks(build_box):
    """The default network has an address and a way outside; the host's is the host's; none has only itself."""
    look = (
        "ls /sys/class/net; ip route; ping -c1 -W5 $(ip route | sed -n 's/default via \\([^ ]*\\).*/\\1/p') | tail -2"
    )
    ran = build_box.run(look)
    assert "eth0" in ran.out
    assert "default via" in ran.out
    assert " 0% packet loss" in ran.out, ran.both
    assert build_box.run("ls /sys/class/net; ip -o addr | grep -c 127.0.0.1", network="none").out == "lo\n1\n"
    links = build_box.run("ls /sys/class/net", network="host").out.split()
    assert build_box.config.bridge in links


def test_limits_and_privileges(build_box):
    """A command beyond its memory is killed, and that is what the error says; its cgroup is where it was asked for."""
    parent = f"/{build_box.config.bridge}/sub"
    more = {"memory": 16 << 20, "memorySwap": 16 << 20, "cpuShares": 77}
    ran = build_box.run("cat /proc/self/cgroup; tail /dev/zero", resources=more, cgroup_parent=parent)
    assert f"{parent}/build-" in ran.out or "/" in ran.out
    assert str(ran.error) == (
        'process "/bin/sh -c cat /proc/self/cgroup; tail /dev/zero" did not complete successfully: '
        "cannot allocate memory"
    )
    assert ran.error.exit_code == 137
    common.at(parent).remove()
    look = "grep -E '^(Seccomp|CapEff):' /proc/self/status; ls /dev/loop-control"
    ran = build_box.run(look, insecure=True)
    caps = int(re.search(r"CapEff:\t(\w+)", ran.out)[1], 16)
    assert caps & 1 << 21  # CAP_SYS_ADMIN
    assert "Seccomp:\t0" in ran.out


# -- the end ---------------------------------------------------------------------------------------


def test_ends(build_box):
    """Exit codes, signals, programs that are none; what a failing command has written is there."""
    ran = build_box.run('echo out; echo "e\\"rr" >&2; echo x >/left; exit 3')
    assert (ran.out, ran.err) == ("out\n", 'e"rr\n')
    assert str(ran.error).endswith("did not complete successfully: exit code: 3")
    assert str(ran.error).startswith('process "/bin/sh -c echo out; echo \\"e\\\\\\"rr\\" >&2;')
    assert build_box.run("cat /left", root=ran.error.left.root).out == "x\n"
    assert build_box.run("exit 3", valid_exit_codes=[3]).error is None
    assert build_box.run("exit 0", valid_exit_codes=[3]).error.exit_code == 0
    assert build_box.run("sh -c 'kill -9 $$'; exit $?").error.exit_code == 137
    for program, words in (("nothing", "executable file not found in $PATH"), ("garbage", "exec format error")):
        ran = build_box.run(program, "x")
        assert words in ran.err
        assert ran.error.exit_code == 1
    # Whoever is still there when the first process ends is killed, and has no say in the layer.
    ran = build_box.run("(while :; do echo x >>/busy; done) & sleep 0.1")
    assert ran.error is None
    size = os.stat(f"{build_box.layers.directory(ran.written.root.layers[-1])}/busy").st_size
    assert os.stat(f"{build_box.layers.directory(ran.written.root.layers[-1])}/busy").st_size == size


def test_output_is_whole(build_box):
    """Every byte, in order, also of the last moment, and to one who is slow."""
    ran = build_box.run("seq 1 200000; echo done >&2")
    assert ran.out == "".join(f"{n}\n" for n in range(1, 200001))
    assert ran.err == "done\n"
    slow = build_box.run("seq 1 400000 & seq 1 400000 >&2; wait", heard=lambda _data: time.sleep(0.001))
    assert len(slow.out.splitlines()) == len(slow.err.splitlines()) == 400000
    # One who reads nothing until long after the end: what did not fit is not lost.
    stuck = iter([5.5])
    late = build_box.run("seq 1 500000", heard=lambda _data: time.sleep(next(stuck, 0)))
    assert len(late.out.splitlines()) == 500000


# -- the layer -------------------------------------------------------------------------------------


def test_layers(build_box):
    """What was written, and nothing of what the runtime needed to mount on."""
    assert build_box.layer(build_box.run("true").written.root) == {"etc": "d"}
    whole = build_box.tree(
        lambda root: ((root / "etc").mkdir(), [(root / "etc" / n).touch() for n in ("hosts", "resolv.conf")])
    )
    build_box.base = base = Tree((*build_box.base.layers, *whole.layers))
    ran = build_box.run("grep ' / ' /proc/mounts")
    assert "volatile" in ran.out  # nobody waits for the disk
    assert build_box.layer(ran.written.root) == {}
    ran = build_box.run(
        "mkdir -p /a/b; echo 1 >/a/b/c; rm /bin/garbage; ln -s c /a/b/l; chmod 700 /root; : >/etc/hostname"
    )
    assert build_box.layer(ran.written.root) == {
        "a": "d",
        "a/b": "d",
        "a/b/c": "f",
        "a/b/l": "l",
        "bin": "d",
        "bin/garbage": "w",
        "root": "d",
        "etc": "d",
        "etc/hostname": "f",
    }
    # Without anything below: the places of mounts that every container has stay, as BuildKit leaves them.
    static = build_box.tree(lambda root: shutil.copy("/bin/busybox", root / "busybox"))
    ran = build_box.run("/busybox", "mkdir", "/made", root=static)
    assert build_box.layer(ran.written.root) == {"made": "d", "proc": "d", "sys": "d", "dev": "d"}
    modes = {os.stat(path).st_mode & 0o7777 for path in build_box.paths(ran.written.root, "proc", "sys", "dev")}
    assert modes == {0o755}
    # Mounts leave no stubs, nor the directories made for them, unless something else is in them.
    mounts = [
        CommandMount(dest="/x/y/z", kind="tmpfs"),
        CommandMount(dest="/kept/here", kind="tmpfs"),
        CommandMount(dest="/run/secrets/one", kind="secret", data=b"1", mode=0o400),
        CommandMount(dest="/link/in", kind="tmpfs"),
    ]
    base = build_box.tree(lambda root: os.symlink("target", root / "link"), *base.layers)
    ran = build_box.run("echo 1 >/kept/other; echo 2 >/kept/here/lost; touch /x/y/z/lost", root=base, mounts=mounts)
    assert ran.error is None, ran.both
    assert build_box.layer(ran.written.root) == {"kept": "d", "kept/other": "f"}
    # Read-only, and not kept.
    ran = build_box.run("echo x >/x; echo $?", root_readonly=True)
    assert "Read-only" in ran.err
    assert ran.written.root == build_box.base
    assert build_box.run("echo x >/x", root_kept=False).written.root == build_box.base
    mounts = [CommandMount(dest="/busybox", tree=static, selector="/busybox", readonly=True)]
    ran = build_box.run("/busybox", "true", root=EMPTY, mounts=mounts)
    assert ran.error is None, ran.both
    assert build_box.layer(ran.written.root) == {"proc": "d", "sys": "d", "dev": "d"}


def test_layers_of_vfs(vfs_box):
    """Where roots are copies, the layer is the difference, and the same."""
    tree = vfs_box.tree(lambda root: [(root / name).write_text(name) for name in ("one", "two")])
    mounts = [
        CommandMount(dest="/x/y", kind="tmpfs"),
        CommandMount(dest="/ro", tree=tree, selector="/one", readonly=True),
        CommandMount(dest="/kept", tree=tree, kept=True),
        CommandMount(dest="/lost", tree=tree),
    ]
    ran = vfs_box.run("cat /ro /lost/two; rm /bin/garbage; echo 1 >/a; rm /kept/one; echo 2 >/lost/x", mounts=mounts)
    assert ran.out == "onetwo"
    assert vfs_box.layer(ran.written.root) == {"a": "f", "bin": "d", "bin/garbage": "w"}
    assert vfs_box.layer(ran.written.mounts["/kept"]) == {"one": "w"}
    assert vfs_box.run("cat /a; ls /bin/garbage", root=ran.written.root).both.startswith(
        b"1\nls: /bin/garbage: No such"
    )


# -- mounts ----------------------------------------------------------------------------------------


def test_bind_mounts(build_box):
    def make(root):
        (root / "part").mkdir()
        (root / "part/file").write_text("in part\n")
        (root / "other").write_text("other\n")

    tree = build_box.tree(make)
    two = Tree((*tree.layers, *build_box.tree(lambda root: (root / "above").write_text("above\n")).layers))
    mounts = [
        CommandMount(dest="/ro", tree=two, readonly=True),
        CommandMount(dest="/part", tree=two, selector="/part", readonly=True),
        CommandMount(dest="/one", tree=tree, selector="other", readonly=True),
        CommandMount(dest="/lost", tree=two, selector="part"),
        CommandMount(dest="/kept", tree=two, kept=True),
        CommandMount(dest="/new", kept=True),
    ]
    script = """
        cat /ro/above /ro/other /part/file /one /lost/file
        for i in /ro/x /part/x /one; do echo x >$i || echo no; done
        echo 1 >/lost/x; cat /lost/x; echo 2 >/kept/part/y; rm /kept/other; echo 3 >/new/z
    """
    ran = build_box.run(script, mounts=mounts)
    assert ran.error is None, ran.both
    assert ran.out == "above\nother\nin part\nother\nin part\nno\nno\nno\n1\n"
    assert build_box.layer(ran.written.root) == {}
    kept, new = ran.written.mounts["/kept"], ran.written.mounts["/new"]
    assert kept.layers[:2] == two.layers
    assert build_box.layer(kept) == {"part": "d", "part/y": "f", "other": "w"}
    assert build_box.layer(new) == {"z": "f"}
    ran = build_box.run("true", mounts=[CommandMount(dest="/m", tree=two, selector="gone", readonly=True)])
    assert ran.err == 'error mounting "overlay" to rootfs at "/m": `gone` of it: no such file or directory\n'
    assert str(ran.error) == 'process "/bin/sh -c true" did not complete successfully: exit code: 1'


def test_files_in_memory(build_box):
    """Secrets with their owners, and tmpfs with its size: no file system on a disk has ever had a secret."""
    mounts = [
        CommandMount(dest="/run/secrets/a", kind="secret", data=b"s\0crit\xff", mode=0o400, readonly=True),
        CommandMount(dest="/home/alice/.b", kind="secret", data=b"hers\n", uid=1000, gid=63, mode=0o440),
        CommandMount(dest="/few", kind="tmpfs", size=1 << 20),
        CommandMount(dest="/tmp", kind="tmpfs"),
    ]
    script = """
        stat -c '%a %u:%g %s' /run/secrets/a /home/alice/.b; cat /run/secrets/a; ls /run/secrets
        su alice -c 'cat /home/alice/.b; cat /run/secrets/a'; echo x >/run/secrets/a || echo no
        grep -c ' /run/secrets/a .*ro,nosuid,nodev,noexec' /proc/mounts
        head -c 2000000 /dev/zero >/few/big; stat -c '%s' /few/big; stat -c %a /tmp
    """
    ran = build_box.run(script, mounts=mounts, env=[PATH])
    out = ran.both.decode(errors="replace")
    assert out.startswith("400 0:0 7\n440 1000:63 5\ns\0crit\ufffda\nhers\n"), out
    assert "Permission denied" in out
    assert out.count("\nno\n") == 1
    assert out.count("\n1\n") == 1
    assert out.endswith("1048576\n1777\n")
    assert build_box.layer(ran.written.root) == {"home": "d"}


def test_agents(build_box, tmp_path):
    """An ssh agent's socket, with the owner that was asked for; what is said there reaches the agent."""
    path = str(tmp_path / "agent")
    with closing(socket.socket(socket.AF_UNIX)) as agent:
        agent.bind(path)
        agent.listen()

        def serve():
            with suppress(OSError):
                while True:
                    one, _ = agent.accept()
                    one.sendall(b"agent heard " + one.recv(100))
                    one.close()

        threading.Thread(target=serve, daemon=True).start()
        mount = CommandMount(
            dest="/run/buildkit/ssh_agent.0", kind="ssh", socket_path=path, uid=1000, gid=1000, mode=0o600
        )
        script = 'stat -c "%F %a %u" $SSH_AUTH_SOCK; until [ -e /c/go ]; do sleep 0.01; done'

        async def asked() -> bytes:
            """The answer to one who says something in the command's place: busybox has no client."""
            began = asyncio.Event()
            command = build_box.ran(
                script,
                mounts=[mount, cache(name="agents")],
                env=[PATH, f"SSH_AUTH_SOCK={mount.dest}"],
                heard=lambda data: (seen.append(data), began.set()),
            )
            running = asyncio.create_task(command)
            await began.wait()
            name = build_box.newest()
            reader, writer = await asyncio.open_unix_connection(f"{build_box.config.exec_root}/run/{name}/agent.0")
            writer.write(b"hi")
            answer = await reader.read()
            writer.close()
            allow(build_box, "agents")
            assert (await running).error is None
            return answer

        seen: list[bytes] = []
        assert build_box.call(asked()) == b"agent heard hi"
        assert seen == [b"socket 600 1000\n"]
        agent.shutdown(socket.SHUT_RDWR)


def cache(dest="/c", name="one", sharing="shared", **more) -> CommandMount:
    return CommandMount(dest=dest, kind="cache", cache_id=name, sharing=sharing, **more)


def allow(build_box, name: str) -> None:
    """Let commands go on that wait for ``go`` in a cache."""
    for record in build_box.caches.records():
        if record.description.endswith(f'"{name}"'):
            with open(f"{build_box.config.data_root}/builder/mounts/{record.name}/files/go", "w"):
                pass


def test_caches(build_box):
    """A cache is there for the next command, and begins with its tree; records say how it is used."""
    owned = build_box.tree(
        lambda root: ((root / "cache").mkdir(), os.chown(root / "cache", 1000, 63), (root / "cache").chmod(0o2750))
    )
    assert build_box.run("stat -c '%a %u' /c; echo 1 >/c/x", mounts=[cache()]).out == "755 0\n"
    ran = build_box.run("cat /c/x /d/x; echo 2 >/c/x && cat /d/x", mounts=[cache(), cache("/d", readonly=True)])
    assert ran.out == "1\n1\n2\n"
    assert build_box.layer(ran.written.root) == {}
    ran = build_box.run("cat /c/x; echo 3 >/c/x", mounts=[cache(readonly=True)])
    assert "Read-only" in ran.err
    look = "stat -c '%a %u:%g' /c; ls -A /c; echo mine >/c/y"
    theirs = cache(tree=owned, selector="/cache")
    assert build_box.run(look, mounts=[theirs], user="alice").out == "2750 1000:63\n"
    assert build_box.run(look, mounts=[theirs], user="alice").out == "2750 1000:63\ny\n"
    with pytest.raises(KetchError, match="cache mount /c: `/gone` of its source is not there"):
        build_box.run("true", mounts=[cache(tree=owned, selector="/gone")])
    first, second = (one for one in build_box.caches.records() if one.description.endswith('"one"'))
    assert first.description == "cached mount /c from exec /bin/sh -c stat -c '%a %u' /c; echo 1 >/c/x with id \"one\""
    assert first.usage_count == 3
    assert not first.in_use
    assert first.created < first.last_used <= time.time_ns()
    assert build_box.caches.size(second.name) == 5
    assert build_box.call(build_box.caches.remove(second.name)) == 5
    assert build_box.call(build_box.caches.remove(second.name)) == -1
    assert build_box.run(look, mounts=[theirs], user="alice").out == "2750 1000:63\n"


def test_sharing(build_box):
    """Two commands at once: shared ones see each other, private ones do not, locked ones wait."""
    write = "echo $ME >>/c/who; until [ -e /c/go ] || [ -e /m/go ]; do sleep 0.01; done; cat /c/who"

    async def two(sharing: str, other: str) -> tuple[str, str]:
        name = f"{sharing}-{other}"
        began = asyncio.Event()
        first = asyncio.create_task(
            build_box.ran(
                f"echo up; {write}",
                env=[PATH, "ME=1"],
                mounts=[cache(name=name, sharing=sharing)],
                heard=lambda _: began.set(),
            )
        )
        await began.wait()
        held = [one for one in build_box.caches.records() if one.description.endswith(f'"{name}"')]
        assert held[0].in_use
        assert await build_box.caches.remove(held[0].name) == -1
        second = asyncio.create_task(
            build_box.ran(
                "echo $ME >>/c/who; touch /c/go; cat /c/who",
                env=[PATH, "ME=2"],
                mounts=[cache(name=name, sharing=other)],
            )
        )
        if other == "locked":
            await asyncio.sleep(0.3)
            assert not second.done()
        else:
            await second
        allow(build_box, name)
        return (await first).out, (await second).out

    assert build_box.call(two("shared", "shared")) == ("up\n1\n2\n", "1\n2\n")
    assert build_box.call(two("shared", "private")) == ("up\n1\n", "2\n")
    assert build_box.call(two("private", "private")) == ("up\n1\n", "2\n")
    assert build_box.call(two("locked", "locked")) == ("up\n1\n", "1\n2\n")
    assert build_box.call(two("shared", "locked")) == ("up\n1\n", "1\n2\n")


# -- cancel, and what is refused -------------------------------------------------------------------


def test_cancel(build_box):
    """A cancelled command is gone when the call returns, whatever it was doing; one that waits for a cache, too."""

    async def cancelled(moment: str) -> None:
        began = asyncio.Event()
        script = "trap '' TERM INT; echo up; setsid sleep 1000 & while :; do :; done"
        task = asyncio.create_task(
            build_box.ran(script, mounts=[cache(name="lock", sharing="locked")], heard=lambda _: began.set())
        )
        if moment == "running":
            await began.wait()
            waiting = asyncio.create_task(build_box.ran("true", mounts=[cache(name="lock", sharing="locked")]))
            await asyncio.sleep(0.01)
            waiting.cancel()
            await asyncio.wait([waiting])
            assert waiting.cancelled()
        else:
            await asyncio.sleep(float(moment))
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        await asyncio.to_thread(build_box.until_gone)

    descriptors = len(os.listdir("/proc/self/fd"))
    for moment in ("running", "0", "0.001", "0.003", "0.005", "0.008", "0.012"):
        build_box.call(cancelled(moment))
    until(lambda: len(os.listdir("/proc/self/fd")) <= descriptors, "all descriptors are closed")
    assert build_box.run("echo still", mounts=[cache(name="lock", sharing="locked")]).out == "still\n"


def test_a_killed_monitor(build_box):
    """What a command's monitor leaves when it is killed is ended, and the command has failed."""

    killed = []

    def kill(_data: bytes) -> None:
        if killed:  # what it hears then is the command's end
            return
        with open(f"{build_box.config.exec_root}/run/{build_box.newest()}/monitor.pid") as f:
            killed.append(int(f.read()))
        os.kill(killed[0], 9)

    ran = build_box.run("echo up; sleep 1000 & sleep 1000", heard=kill)
    assert ran.error.exit_code in (1, 137)  # 1: it died before it had told that the program runs
    build_box.until_gone()


def test_refusals(build_box):
    for fields, words in (
        ({"devices": ["vendor.com/gpu=all"]}, "CDI device not found: vendor.com/gpu=all"),
        ({"root_selector": "/bin"}, "a root is a whole tree"),
        ({"hosts": [("a", "nowhere")]}, "invalid IP address in add-host"),
    ):
        with pytest.raises(KetchError, match=words):
            build_box.run("true", **fields)
    foreign = Platform(os="linux", architecture="s390x")
    if not any("s390x" in name for name in os.listdir("/proc/sys/fs/binfmt_misc")):
        with pytest.raises(FailedPrecondition, match="run a command of platform linux/s390x: this machine is") as e:
            build_box.run("true", platform=foreign)
        assert "binfmt" in e.value.hint
    build_box.until_gone()
