"""Identity of a container's first process: users, groups, working directory, program look-up."""

from __future__ import annotations

import ctypes
import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from ketch.linux import keyring
from tests.support.boxes import runtime_box

if TYPE_CHECKING:
    from tests.support.boxes.runtime_box import Box

pytestmark = [pytest.mark.timeout(60), *runtime_box.NEEDED]


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", "0 0 0,10 /root"),
        ("root", "0 0 0,10 /root"),
        ("0:0", "0 0 0 /root"),
        ("alice", "1000 1000 10,63,1000 /home/alice"),
        ("alice:audio", "1000 63 63 /home/alice"),
        ("alice:10", "1000 10 10 /home/alice"),
        ("1000", "1000 1000 10,63,1000 /home/alice"),
        ("1000:5", "1000 5 5 /home/alice"),
        ("1:1", "1 1 1 /usr/sbin"),
        ("1500", "1500 0 0 /"),  # a number, though there is a user called so
        ("1600", "1600 1600 1600 /home/digits"),
        ("4242", "4242 0 0 /"),
        ("4242:4343", "4242 4343 4343 /"),
    ],
)
def test_users_are_looked_up_in_the_container(box: Box, user: str, expected: str) -> None:
    """The groups are the kernel's: `id` adds the primary one by itself."""
    script = (
        "echo $(id -u) $(id -g) $(grep Groups /proc/self/status | tr -s '\\t ' , | cut -d, -f2- | sed 's/,$//') $HOME"
    )
    result = box.run(["sh", "-c", script], {"annotations": {"dev.ketch.user": user}})
    assert result.out.strip() == expected


def groups_of(result: runtime_box.Result) -> list[str]:
    return result.out.split()[1:]


def test_additional_groups(box: Box) -> None:
    annotations = {"dev.ketch.user": "4242", "dev.ketch.group-add": "audio,7000"}
    result = box.run(["grep", "Groups", "/proc/self/status"], {"annotations": annotations})
    assert groups_of(result) == ["0", "63", "7000"]


@pytest.mark.parametrize(("more", "expected"), [([], []), ([8], ["8"]), ([7, 8], ["7", "8"])])
def test_a_bundles_numbers(box: Box, more: list[int], expected: list[str]) -> None:
    """The groups that the bundle adds, and no other: engines add the primary one themselves."""
    user = {"uid": 7, "gid": 7, "additionalGids": more}
    assert groups_of(box.run(["grep", "Groups", "/proc/self/status"], {"process.user": user})) == expected


@pytest.mark.parametrize(
    "user",
    [
        *(
            {name: number, **rest}
            for name, rest in (("uid", {"gid": 5}), ("gid", {"uid": 5}))
            for number in (-1, 2**32 - 1)
        ),
        {"uid": 5_000_000_000},
        {"uid": "5"},
        {"uid": 5, "additionalGids": [-1]},
        {"uid": 5, "additionalGids": [2**32]},
        {"uid": 5, "additionalGids": list(range(65537))},
    ],
    ids=lambda user: str(user)[:60],
)
def test_impossible_users_are_refused(box: Box, user: dict[str, Any]) -> None:
    """-1 is "unchanged" for setresuid(2): it would have been root."""
    result = box.run(["id"], {"process.user": user})
    assert result.failed["step"] == "user"
    assert result.failed["message"].startswith("become user: ")


def test_a_set_group_id_program_keeps_the_primary_group(box: Box) -> None:
    """0604 says that the group may not read: neither may who has it besides that of a set-group-ID program."""
    (box.rootfs / "etc/closed").write_text("secret\n")
    os.chown(box.rootfs / "etc/closed", 0, 1500)
    (box.rootfs / "etc/closed").chmod(0o604)
    shutil.copy(runtime_box.BUSYBOX, box.rootfs / "bin/cat-as-63")
    os.chown(box.rootfs / "bin/cat-as-63", 0, 63)
    (box.rootfs / "bin/cat-as-63").chmod(0o2755)
    (box.rootfs / "bin/as63").mkdir(exist_ok=True)
    os.rename(box.rootfs / "bin/cat-as-63", box.rootfs / "bin/as63/cat")
    for user in ({"annotations": {"dev.ketch.user": "1500:1500"}}, {"process.user": {"uid": 1500, "gid": 1500}}):
        refused = box.run(["/bin/as63/cat", "/etc/closed"], user)
        assert (refused.out, "Permission denied" in refused.err) == ("", True)
    assert box.run(["/bin/as63/cat", "/etc/closed"], {"process.user": {"uid": 1500, "gid": 1501}}).out == "secret\n"


@pytest.mark.parametrize(
    ("user", "message"),
    [
        ("bob", "unable to find user bob: no matching entries in passwd file"),
        ("root:nogroup", "unable to find group nogroup: no matching entries in group file"),
        ("3000000000", "uids and gids must be in range 0-2147483647"),
    ],
)
def test_unknown_users(box: Box, user: str, message: str) -> None:
    result = box.run(["true"], {"annotations": {"dev.ketch.user": user}})
    assert result.failed["message"] == message
    assert result.failed["step"] == "user"


def test_a_passwd_that_is_a_fifo_does_not_hang(box: Box) -> None:
    upper = box.directory / "lower"
    (upper / "etc").mkdir(parents=True)
    os.mkfifo(upper / "etc/passwd")
    box.lowers.insert(0, str(upper))
    result = box.run(["true"], {"annotations": {"dev.ketch.user": "alice"}})
    assert result.failed["message"] == "read the container's `/etc/passwd`: not a regular file"


@pytest.mark.parametrize(
    ("args", "kind", "message"),
    [
        (["nosuch"], "not_found", 'exec: "nosuch": executable file not found in $PATH'),
        (["/no/such"], "not_found", 'exec: "/no/such": stat /no/such: no such file or directory'),
        (["/etc/passwd/x"], "not_found", 'exec: "/etc/passwd/x": stat /etc/passwd/x: not a directory'),
        (["/etc"], "not_executable", 'exec: "/etc": is a directory: permission denied'),
        (["/etc/passwd"], "not_executable", 'exec: "/etc/passwd": permission denied'),
        (["garbage"], "not_executable", 'exec: "garbage": exec format error'),
        (["orphan"], "not_found", 'exec: "orphan": no such file or directory'),
        ([""], "not_found", 'exec: "": executable file not found in $PATH'),
    ],
)
def test_commands_that_cannot_run(box: Box, args: list[str], kind: str, message: str) -> None:
    result = box.run(args)
    assert result.code is None
    assert (result.failed["kind"], result.failed["message"]) == (kind, message)


def test_path_comes_from_the_containers_environment(box: Box) -> None:
    assert box.run(["true"], {"process.env": ["PATH=/usr/sbin"]}).failed["kind"] == "not_found"
    assert box.run(["true"], {"process.env": []}).code == 0


def test_working_directory(box: Box) -> None:
    result = box.run(["sh", "-c", "pwd; stat -c '%a %u' ."], {"process.cwd": "/new/dir", "process.user": {"uid": 1000}})
    assert result.out.split() == ["/new/dir", "755", "0"]
    refused = box.run(["true"], {"process.cwd": "/etc/passwd"})
    assert refused.failed["message"] == "Cannot mkdir: /etc/passwd is not a directory"
    # Docker lets a user start where he could not go by himself
    closed = {"process.cwd": "/root/closed", "annotations": {"dev.ketch.user": "alice"}}
    (box.rootfs / "root").chmod(0o700)
    assert box.run(["true"], closed).code == 0
    assert box.run(["ls", "/root"], closed).code != 0


def test_a_program_of_root_alone_is_not_for_others(box: Box) -> None:
    (box.rootfs / "bin/private").write_text("#!/bin/sh\n")
    (box.rootfs / "bin/private").chmod(0o700)
    for name in ("private", "/bin/private"):
        result = box.run([name], {"annotations": {"dev.ketch.user": "alice"}})
        assert result.failed["message"] == f'exec: "{name}": permission denied'
        assert result.failed["kind"] == "not_executable"


@pytest.mark.skipif(not os.path.exists("/proc/keys"), reason="no keyrings in this kernel")
def test_the_session_keyring_of_the_starter_is_not_the_containers(box: Box) -> None:
    add_key = {"x86_64": 248, "aarch64": 217}[os.uname().machine]
    libc = ctypes.CDLL(None, use_errno=True)
    box.here = True
    keyring.join_session_keyring()
    session = ctypes.c_int(-3)  # KEY_SPEC_SESSION_KEYRING
    if libc.syscall(add_key, b"user", b"kt-secret", b"x", ctypes.c_size_t(1), session) < 0:
        pytest.skip(f"add_key: {os.strerror(ctypes.get_errno())}")
    with open("/proc/keys", encoding="ascii") as f:
        assert "kt-secret" in f.read()
    # As an ordinary user, who sees what he possesses: root sees what is root's by its owner.
    free = {"linux.maskedPaths": [], "linux.seccomp": None, "annotations": {"dev.ketch.user": "alice"}}
    result = box.run(["cat", "/proc/keys"], free)
    assert (result.code, "kt-secret" in result.out) == (0, False)
    assert "_ses" in result.out
