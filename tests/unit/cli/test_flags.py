"""The command line's own parser, and what `run` makes of its flags."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.cli.options import key_value, mount_flags, ports, quantities, run_flags
from ketch.cli.options.flags import FlagSet, HelpRequested
from ketch.errors import InvalidArgument


def spec(*, interspersed: bool = True) -> FlagSet:
    one = FlagSet("test", "ketch test [OPTIONS] ARG...", "Test", interspersed=interspersed)
    one.bool("tty", "t").bool("interactive", "i").string("name", "n").int("time").list("env", "e")
    return one


@pytest.mark.parametrize(
    ("args", "values", "rest"),
    [
        (["-it", "x"], {"tty": True, "interactive": True}, ["x"]),
        (["--name=a", "x"], {"name": "a"}, ["x"]),
        (["--name", "a", "x"], {"name": "a"}, ["x"]),
        (["-na", "x"], {"name": "a"}, ["x"]),
        (["-n=a"], {"name": "a"}, []),
        (["-tn", "a"], {"tty": True, "name": "a"}, []),
        (["--tty=false"], {"tty": False}, []),
        (["-e", "A=1", "x", "-e", "B"], {"env": ["A=1", "B"]}, ["x"]),
        (["--time", "5"], {"time": 5}, []),
        (["--", "-t", "--name"], {"tty": False}, ["-t", "--name"]),
        (["-"], {}, ["-"]),
    ],
)
def test_forms(args, values, rest):
    opts, left = spec().parse(args)
    assert left == rest
    for name, value in values.items():
        assert opts[name] == value


def test_a_command_s_own_flags_are_left_alone():
    opts, rest = spec(interspersed=False).parse(["-t", "busybox", "ls", "-t", "--name", "x"])
    assert opts["tty"] is True
    assert rest == ["busybox", "ls", "-t", "--name", "x"]


@pytest.mark.parametrize(
    "args", [["--nope"], ["-z"], ["--name"], ["-n"], ["--time", "soon"], ["--tty=perhaps"], ["-tz"]]
)
def test_bad_flags_are_explained(args):
    with pytest.raises(InvalidArgument):
        spec().parse(args)


def test_help_names_every_flag():
    with pytest.raises(HelpRequested) as asked:
        spec().parse(["--help"])
    for name in ("--tty", "--interactive", "--name", "--time", "--env"):
        assert name in str(asked.value)


@given(st.lists(st.text(max_size=8), max_size=6))
def test_no_arguments_break_the_parser(args):
    try:
        spec().parse(args)
    except (InvalidArgument, HelpRequested):
        return


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("80", [("80/tcp", "", "")]),
        ("8080:80", [("80/tcp", "", "8080")]),
        ("8080:80/udp", [("80/udp", "", "8080")]),
        ("127.0.0.1:8080:80", [("80/tcp", "127.0.0.1", "8080")]),
        ("127.0.0.1::80", [("80/tcp", "127.0.0.1", "")]),
        ("[::1]:8080:80", [("80/tcp", "::1", "8080")]),
        ("8000-8001:80-81", [("80/tcp", "", "8000"), ("81/tcp", "", "8001")]),
        ("8000-8010:80", [("80/tcp", "", "8000-8010")]),
    ],
)
def test_published_ports(text, expected):
    assert [(port, b["HostIp"], b["HostPort"]) for port, b in ports.publish(text)] == expected


@pytest.mark.parametrize(
    "bad", ["", "http", "80:http", "1:2:3:4", "0", "8080:0", "70000", "80/icmp", "8000-8002:80-81", "[::1"]
)
def test_bad_ports(bad):
    with pytest.raises(InvalidArgument):
        ports.publish(bad)


@given(st.text(alphabet="0123456789:-/[].tcpud", max_size=20))
def test_parsed_ports_are_valid(text):
    try:
        pairs = ports.publish(text)
    except InvalidArgument:
        return
    assert all(0 < int(port.partition("/")[0]) < 65536 for port, _ in pairs)


def test_mounts():
    assert mount_flags.parse("type=bind,src=/a,dst=/b,readonly,bind-propagation=rslave") == {
        "Type": "bind",
        "Source": "/a",
        "Target": "/b",
        "ReadOnly": True,
        "BindOptions": {"Propagation": "rslave"},
    }
    assert mount_flags.parse("target=/t,type=tmpfs,tmpfs-size=1m,tmpfs-mode=700")["TmpfsOptions"] == {
        "SizeBytes": 1 << 20,
        "Mode": 0o700,
    }
    assert mount_flags.parse("source=v,target=/v,volume-nocopy,ro=false") == {
        "Type": "volume",
        "Source": "v",
        "Target": "/v",
        "VolumeOptions": {"NoCopy": True},
        "ReadOnly": False,
    }
    for bad in ("", "type=bind,src=/a", "target=/a,colour=red", "target=/a,type=tmpfs,tmpfs-mode=9"):
        with pytest.raises(InvalidArgument):
            mount_flags.parse(bad)


def test_a_whole_run():
    parsed = run_flags.flag_set("run", "")
    opts, rest = parsed.parse(
        shlex.split(
            "-it --rm=false -m 64m --cpus 1.5 -e A=b -v /x:/y:ro -v /anon -p 80 --ulimit nofile=10:20 "
            "--restart on-failure:3 --entrypoint '' --network none --label k=v busybox ls"
        )
    )
    body = run_flags.body(opts, rest[0], rest[1:])
    host = body["HostConfig"]
    assert (body["Image"], body["Cmd"], body["Entrypoint"], body["Env"]) == ("busybox", ["ls"], [""], ["A=b"])
    assert (host["Memory"], host["NanoCpus"], host["NetworkMode"], host["AutoRemove"]) == (
        64 << 20,
        1_500_000_000,
        "none",
        False,
    )
    assert (host["Binds"], body["Volumes"]) == (["/x:/y:ro"], {"/anon": {}})
    assert host["Ulimits"] == [{"Name": "nofile", "Soft": 10, "Hard": 20}]
    assert host["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 3}
    assert body["ExposedPorts"] == {"80/tcp": {}}


@given(st.text(max_size=12))
def test_no_size_or_duration_breaks_its_parser(text):
    for parse in (quantities.size, quantities.duration):
        try:
            assert parse(text, "--memory") >= 0
        except InvalidArgument as e:
            assert "--memory" in e.message


LINES = st.lists(st.text(st.characters(exclude_categories=("Cs",)), max_size=8), max_size=5)


@given(LINES, st.booleans())
def test_no_file_of_variables_breaks_its_reader(tmp_path_factory, lines, bom):
    path = tmp_path_factory.mktemp("env") / "file"
    path.write_bytes(b"\xef\xbb\xbf" * bom + "\n".join(lines).encode())
    try:
        found = key_value.read_file(str(path))
    except InvalidArgument:
        return
    assert all(name and not any(blank in name for blank in " \t\r\n") for name, _ in found)


def test_help_without_flags_has_no_title_for_them():
    assert FlagSet("x", "ketch x", "Do it").help() == "Usage:  ketch x\n\nDo it\n"
    shown = FlagSet("x", "ketch x", "Do it").bool("all", "a", "also others").help()
    assert shown.startswith("Usage:  ketch x\n\nDo it\n\nOptions:\n  -a, --all ")
