"""``run``: what the program inside sees, and what the caller gets back. Through both clients."""

from __future__ import annotations

import json
import re
import shlex
import signal

import pytest


def test_output_and_exit_code(client):
    result = client("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7", check=False)
    assert (result.code, result.out, result.err) == (7, "out\n", "err\n")


def test_interactive_terminal(client):
    with client.terminal("run", "-it", "--rm", "--hostname", "berth", "busybox", "sh") as t:
        t.expect(r"/ # ")
        t.send("hostname; tty; echo pid $$\n")
        t.expect(r"berth\r\n/dev/(pts/0|console)\r\npid 1\r\n")
        t.send("exit 42\n")
        assert t.wait() == 42


def test_detached_prints_the_id(client):
    result = client("run", "-d", "--name", "web", "busybox", "sleep", "100")
    assert len(result.out.strip()) == 64
    assert client("ps", "-q", "--no-trunc").out.strip() == result.out.strip()


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (("no-such-image",), 125, "no-such-image"),
        (("busybox", "no-such-program"), 127, "not found"),
        (("busybox", "/etc"), 126, "(permission denied|is a directory)"),
        (("--no-such-flag", "busybox"), 125, "unknown flag"),
        (("--init", "busybox", "sh", "-c", "kill -9 $$"), 137, None),
        (("--init", "busybox", "sh", "-c", "kill -TERM $$"), 143, None),
    ],
)
def test_exit_codes(client, args, code, message):
    result = client("run", "--rm", "--pull", "never", *args, check=False)
    assert result.code == code
    if message:
        assert re.search(message, result.err, re.IGNORECASE)
    assert client("ps", "-aq").out == ""


def test_environment(client):
    out = client("run", "--rm", "-e", "A=1", "-e", "B=two words", "-h", "berth", "busybox", "env").out
    seen = dict(line.split("=", 1) for line in out.splitlines())
    assert seen["A"] == "1"
    assert seen["B"] == "two words"
    assert seen["HOSTNAME"] == "berth"
    assert seen["PATH"] == "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    assert "HOME" in seen
    assert set(seen) == {"A", "B", "HOSTNAME", "PATH", "HOME"}


def test_env_file(client, tmp_path):
    path = tmp_path / "env"
    path.write_text("# comment\nA=from file\nB=2\n", encoding="utf-8")
    out = client("run", "--rm", "--env-file", str(path), "-e", "B=3", "busybox", "sh", "-c", "echo $A-$B").out
    assert out == "from file-3\n"


@pytest.mark.parametrize(
    ("user", "expected"),
    [("nobody", "65534 65534"), ("1234:5678", "1234 5678"), ("nobody:0", "65534 0"), ("77", "77 0")],
)
def test_user(client, user, expected):
    assert client("run", "--rm", "-u", user, "busybox", "sh", "-c", "echo $(id -u) $(id -g)").out.strip() == expected


def test_unknown_user(client):
    result = client("run", "--rm", "--user", "bosun", "busybox", "id", check=False)
    assert result.code == 125 or result.code == 126
    assert "unable to find user bosun" in result.err


def test_workdir_is_made(client):
    assert client("run", "--rm", "-w", "/a/b c", "busybox", "pwd").out == "/a/b c\n"


def test_entrypoint_and_arguments(client):
    assert client("run", "--rm", "--entrypoint", "echo", "busybox", "a", "b").out == "a b\n"
    assert client("run", "--rm", "--entrypoint", "/bin/sh", "busybox", "-c", "echo $0").out == "/bin/sh\n"


def test_stdin_is_passed_on_and_ends(client):
    assert client("run", "-i", "--rm", "busybox", "wc", "-c", stdin=b"x" * 300_000).out.strip() == "300000"


def test_stdin_ends_while_the_container_goes_on_writing(client):
    with client.piped("run", "-i", "--rm", "busybox", "sh", "-c", "cat; echo after the end") as p:
        p.send("typed\n")
        p.expect("typed\n")
        p.close_stdin()
        assert p.wait() == 0
        assert p.text == "after the end\n"


def test_large_output_arrives_whole(client):
    out = client("run", "--rm", "busybox", "sh", "-c", "head -c 5000000 /dev/zero | tr '\\0' x").out
    assert len(out) == 5_000_000


def test_labels_cidfile_and_name(client, tmp_path):
    cidfile = tmp_path / "cid"
    client(
        "run", "-d", "--cidfile", str(cidfile), "--name", "one", "-l", "a=b", "--label", "c", "busybox", "sleep", "9"
    )
    (seen,) = json.loads(client("inspect", "one").out)
    assert seen["Id"] == cidfile.read_text(encoding="utf-8")
    assert seen["Config"]["Labels"] == {"a": "b", "c": ""}
    assert seen["Name"] == "/one"


def test_read_only_root(client):
    result = client(
        "run", "--rm", "--read-only", "--tmpfs", "/t", "busybox", "sh", "-c", "touch /t/ok && touch /no", check=False
    )
    assert result.code == 1
    assert "Read-only file system" in result.err


def test_capabilities(client):
    show = ("busybox", "sh", "-c", "grep CapEff /proc/self/status | cut -f2")
    assert int(client("run", "--rm", *show).out, 16) == 0xA80425FB
    assert int(client("run", "--rm", "--cap-drop", "ALL", "--cap-add", "NET_ADMIN", *show).out, 16) == 1 << 12


def test_privileged(client):
    script = "grep CapEff /proc/self/status | cut -f2; grep Seccomp: /proc/self/status; ls /dev | wc -l"
    capabilities, _, seccomp, devices = client(
        "run", "--rm", "--userns", "host", "--privileged", "busybox", "sh", "-c", script
    ).out.split()
    assert int(capabilities, 16) >> 21 & 1  # CAP_SYS_ADMIN
    assert seccomp == "0"
    assert int(devices) > 30


def test_masked_and_read_only_paths(client):
    script = (
        "ls /sys/firmware | wc -l; cat /proc/timer_list | wc -c; echo 0 > /proc/sys/kernel/core_uses_pid;"
        "grep Seccomp: /proc/self/status"
    )
    result = client("run", "--rm", "busybox", "sh", "-c", script, check=False)
    assert result.out.split() == ["0", "0", "Seccomp:", "2"]
    assert "Read-only file system" in result.err


def test_init_reaps(client):
    assert client("run", "--rm", "--init", "busybox", "sh", "-c", "cat /proc/1/comm").out == "docker-init\n"


def test_ulimit_sysctl_and_hosts(client):
    script = "ulimit -n; cat /proc/sys/net/ipv4/ip_forward; grep extra /etc/hosts"
    out = client(
        *shlex.split(
            "run --rm --ulimit nofile=123:456 --sysctl net.ipv4.ip_forward=1 --add-host extra:10.9.8.7 busybox sh -c"
        ),
        script,
    ).out
    assert out.split() == ["123", "1", "10.9.8.7", "extra"]


def test_signals_are_proxied(client):
    script = "trap 'echo got it; exit 5' USR1; echo ready; while :; do sleep 0.05; done"
    with client.piped("run", "--rm", "busybox", "sh", "-c", script) as p:
        p.expect("ready")
        p.signal(signal.SIGUSR1)
        p.expect("got it")
        assert p.wait() == 5


def test_create_then_start_attached(client):
    container = client("create", "-i", "busybox", "sh", "-c", "read line; echo got $line; exit 3").out.strip()
    assert client("inspect", "-f", "{{.State.Status}}", container).out == "created\n"
    result = client("start", "-a", "-i", container, stdin=b"a line\n", check=False)
    assert (result.code, result.out) == (3, "got a line\n")
