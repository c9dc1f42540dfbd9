"""The runtime's pure parts: options, users, environments, specs, command lines."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.errors import InvalidArgument, ProgramNotExecutable, ProgramNotFound, RuntimeFailure
from ketch.linux import caps
from ketch.linux import mount as m
from ketch.runtime import defaults, spec
from ketch.runtime.failure import failure, from_message, to_message
from ketch.runtime.oci_cli import arguments, main
from ketch.runtime.process.children import finalize_process
from ketch.runtime.rootfs import mount_options, overlay
from ketch.runtime.rootfs.mount_options import MountOptions
from ketch.runtime.security import users

PASSWD = (
    b"root:x:0:0:root:/root:/bin/sh\n# comment\n\nbob:x:1000:100::/home/bob:/bin/sh\n1000:x:7:8::/seven:\nbad:x:y:z\n"
)
GROUP = b"root:x:0:\nusers:x:100:\nwheel:x:10:bob,root\nempty:x:11:\nbob:x:12:bob\n"


def test_options_are_sorted_by_who_takes_them() -> None:
    options = MountOptions(["ro", "nosuid", "rbind", "rslave", "size=64m", "mode=755", "defaults", "rro"])
    assert options.set == m.MOUNT_ATTR_RDONLY | m.MOUNT_ATTR_NOSUID
    assert options.rec_set == m.MOUNT_ATTR_RDONLY
    assert options.bind
    assert options.recursive
    assert (options.propagation, options.propagation_recursive) == (m.MS_SLAVE, True)
    assert options.data == ["size=64m", "mode=755"]


def test_the_last_option_wins() -> None:
    options = MountOptions(["ro", "noexec", "rw"])
    assert options.set == m.MOUNT_ATTR_NOEXEC
    assert options.clear == m.MOUNT_ATTR_RDONLY


@given(st.lists(st.sampled_from(["atime", "noatime", "relatime", "strictatime", "nodev", "dev", "ro", "rw"])))
def test_the_access_time_field_is_cleared_whole(names: list[str]) -> None:
    """mount_setattr(2) refuses (EINVAL) part of the field, and a bit that is set and cleared outside of it."""
    options = MountOptions(names)
    cleared = options.clear & m.MOUNT_ATTR__ATIME
    assert cleared in (0, m.MOUNT_ATTR__ATIME)
    if options.set & m.MOUNT_ATTR__ATIME:
        assert cleared == m.MOUNT_ATTR__ATIME
    assert not options.set & options.clear & ~m.MOUNT_ATTR__ATIME
    times = [name for name in names if name.endswith("atime")]
    if times:
        expected = {"noatime": m.MOUNT_ATTR_NOATIME, "strictatime": m.MOUNT_ATTR_STRICTATIME}.get(times[-1], 0)
        assert options.set & m.MOUNT_ATTR__ATIME == expected


@given(st.lists(st.text(max_size=20), max_size=8))
def test_any_option_is_either_known_or_data(names: list[str]) -> None:
    options = MountOptions(names)
    assert all(name in names and name not in mount_options.known() for name in options.data)


@given(st.lists(st.text(st.characters(exclude_characters="\\\0", min_codepoint=1), min_size=1), min_size=1, max_size=6))
def test_lowerdir_splits_what_was_joined(directories: list[str]) -> None:
    joined = ":".join(directory.replace(":", "\\:") for directory in directories)
    assert overlay.split_lowerdir(joined) == directories


@pytest.mark.parametrize(
    ("user", "group", "expected"),
    [
        ("", None, (0, 0, [0, 10], "/root")),
        ("bob", None, (1000, 100, [100, 10, 12], "/home/bob")),
        ("bob", "wheel", (1000, 10, [10], "/home/bob")),
        ("1000", None, (1000, 100, [100, 10, 12], "/home/bob")),  # not the user who is called 1000
        ("+1000", None, (1000, 100, [100, 10, 12], "/home/bob")),
        ("bob", "12", (1000, 12, [12], "/home/bob")),
        ("bob", "55", (1000, 55, [55], "/home/bob")),
        ("7", None, (7, 8, [8], "/seven")),
        ("999", None, (999, 0, [0], None)),
        ("999", "55", (999, 55, [55], None)),
    ],
)
def test_users(user: str, group: str | None, expected: tuple[int, int, list[int], str | None]) -> None:
    passwd, groups = users.parse_passwd(PASSWD), users.parse_group(GROUP)
    found = users.resolve(user, group, [], passwd, groups)
    assert (found.uid, found.gid, found.groups, found.home) == expected


def test_additional_groups_are_added_once() -> None:
    passwd, groups = users.parse_passwd(PASSWD), users.parse_group(GROUP)
    assert users.resolve("bob", None, ["wheel", "11", "77", "11"], passwd, groups).groups == [
        100,
        10,
        12,
        10,
        11,
        77,
    ]
    with pytest.raises(RuntimeFailure, match="unable to find group nope: no matching entries in group file"):
        users.resolve("bob", None, ["nope"], passwd, groups)


@pytest.mark.parametrize("number", ["2147483648", "5000000000", "9" * 20])
def test_numbers_of_the_files_that_the_kernel_does_not_have_are_refused(number: str) -> None:
    passwd = users.parse_passwd(f"u:x:{number}:1::/:\ng:x:7:{number}::/:\nbob:x:8:8::/:\n".encode())
    groups = users.parse_group(f"far:x:{number}:bob\n".encode())
    for user, group, added in (
        ("u", None, []),
        ("g", None, []),
        ("bob", None, []),
        ("1", "far", []),
        ("1", "1", ["far"]),
    ):
        with pytest.raises(RuntimeFailure, match="uids and gids must be in range 0-2147483647"):
            users.resolve(user, group, added, passwd, groups)


def test_numbers_without_end_are_no_numbers() -> None:
    assert users.parse_passwd(b"u:x:" + b"9" * 5000 + b":1::/:\n") == []
    assert users.parse_group(b"g:x:" + b"9" * 5000 + b":\n") == []


@given(st.binary(max_size=300))
def test_any_file_can_be_read_as_passwd_and_group(data: bytes) -> None:
    for entry in users.parse_passwd(data):
        assert entry.name
        assert entry.uid >= 0
    for group in users.parse_group(data):
        assert group.name


@given(st.lists(st.text(max_size=12), max_size=10))
def test_environment_keeps_the_last_of_each_name(entries: list[str]) -> None:
    env = finalize_process.environment(entries)
    for entry in entries:
        name, equals, _ = entry.partition("=")
        assert (name in env) == any(e.partition("=")[0] == name and "=" in e for e in entries) or not (name and equals)
    for name, value in env.items():
        assert [e for e in entries if e.startswith(f"{name}=")][-1] == f"{name}={value}"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["args", "cwd", "env", "path"]), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["ociVersion", "process", "root", "mounts", "linux", "annotations"]), JSON))
def test_any_document_is_accepted_or_explained(document: object) -> None:
    try:
        spec.check(document)
    except RuntimeFailure as e:
        assert e.step == "config"
        assert e.message.startswith("read config.json: ")


def test_named_users_in_annotations() -> None:
    assert spec.named_user({}) == (None, "")
    assert spec.named_user({"dev.ketch.id": "x"}) == ("", "")
    assert spec.named_user({"dev.ketch.user": "u:g", "dev.ketch.group-add": "a,b"}) == ("u:g", "a,b")


def test_failures_travel() -> None:
    original = failure("mounts", "mount `a` on `/b`", FileNotFoundError(2, "x"), "look there")
    message = to_message(original)
    assert message["message"] == "mount `a` on `/b`: no such file or directory (look there)"
    again = from_message(message)
    assert (again.step, again.errno, again.kind) == ("mounts", 2, "runtime_failure")
    for error in (RuntimeFailure("why"), ProgramNotFound("why"), ProgramNotExecutable("why")):
        assert type(from_message(to_message(error))) is type(error)


def test_what_is_raised_on_purpose_says_itself_what_happened() -> None:
    again = from_message(to_message(InvalidArgument("exec `x`: it is wrong", hint="mend it")))
    assert (again.message, again.step) == ("exec `x`: it is wrong (mend it)", "invalid_argument")


def test_a_bug_in_the_child_is_reported_with_its_place() -> None:
    try:
        {}["missing"]
    except KeyError as e:
        message = to_message(e)
    assert message["step"] == "internal"
    assert "KeyError: 'missing' at test_parsing.py:" in message["message"]


def test_command_lines() -> None:
    words = ["-d", "--pid-file", "p", "--env=a=b", "id", "-e", "c", "--preserve-fds", "2", "--", "-x"]
    options, rest = arguments.parse(words, arguments.EXEC, interspersed=True)
    assert (options.flag("detach"), options.text("pid-file"), options.texts("env")) == (True, "p", ["a=b", "c"])
    assert (options.count("preserve-fds"), options.given("tty"), options.text("cwd", "/")) == (2, False, "/")
    assert rest == ["id", "-x"]
    options, rest = arguments.parse(["--detach=false", "id", "-d"], arguments.EXEC, interspersed=False)
    assert (options.given("detach"), options.flag("detach"), rest) == (True, False, ["id", "-d"])
    for wrong in ["--pid-file"], ["--detach=maybe"], ["--wings"], ["--preserve-fds=-1"], ["--preserve-fds", "²"]:
        with pytest.raises(InvalidArgument):
            arguments.parse(wrong, arguments.EXEC, interspersed=True)[0].count("preserve-fds")


@pytest.mark.parametrize(("least", "most", "wrong"), [(1, 1, (0, 2)), (0, 0, (1,)), (1, None, (0,)), (1, 2, (0, 3))])
def test_numbers_of_operands(least: int, most: int | None, wrong: tuple[int, ...]) -> None:
    for count in range(4):
        if count in wrong:
            with pytest.raises(InvalidArgument, match="`kill` takes"):
                arguments.check_operands("kill", ["x"] * count, least, most)
        elif least <= count and (most is None or count <= most):
            arguments.check_operands("kill", ["x"] * count, least, most)


@pytest.mark.parametrize("name", main.COMMANDS)
def test_help_shows_every_option(name: str) -> None:
    command = main.COMMANDS[name]
    text = arguments.explain(name, command.words, command.summary, command.table)
    for _, names, _, summary in command.table:
        assert f"--{names.split()[0]}" in text or not summary


@given(st.sets(st.sampled_from(caps.NAMES)))
def test_capability_masks(names: set[str]) -> None:
    assert set(caps.names(caps.mask(list(names)))) == names


def test_capability_numbers() -> None:
    assert (caps.NUMBERS["CAP_CHOWN"], caps.NUMBERS["CAP_SYS_ADMIN"], caps.NUMBERS["CAP_CHECKPOINT_RESTORE"]) == (
        0,
        21,
        40,
    )
    assert f"{caps.mask(defaults.DEFAULT_CAPS):x}" == "a80425fb"  # what every Docker container shows in /proc/1/status
