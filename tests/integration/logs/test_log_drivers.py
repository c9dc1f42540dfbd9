"""Log drivers through the API: output, ``logs``, refused options."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import time

import pytest

from tests.support.engines import Engine
from tests.support.leaks import Census
from tests.support.logs.logservers import Journal, free_port, journald, rsyslog, wait_for, wait_for_port
from tests.support.waiting import patient

SCRIPT = "echo out; echo err >&2; printf 'é %s\\n' '\"<&>\\\\'; printf '\\377\\342\\202|\\n'; printf end"


def run(docker, *options, script=SCRIPT, name="talker"):
    docker("run", "--name", name, *options, "busybox", "sh", "-c", script)


def log_file(docker, name="talker"):
    return docker("inspect", "-f", "{{.LogPath}}", name).out.strip()


def test_json_file_has_dockers_format(engine):
    docker = engine.docker
    run(
        docker,
        *shlex.split(
            "--log-driver json-file --label a=b -e X=y --log-opt labels=a,none --log-opt 'env-regex=^X$' "
            "--log-opt 'tag={{.Name}}'"
        ),
    )
    path = log_file(docker)
    assert re.search(r"/containers/(\w{64})/\1-json.log$", path)
    with open(path, "rb") as f:
        lines = f.read().splitlines()
    messages = [json.loads(line) for line in lines]
    assert sorted((one["stream"], one["log"]) for one in messages) == sorted(
        [
            ("stdout", "out\n"),
            ("stderr", "err\n"),
            ("stdout", 'é "<&>\\\\\n'),
            ("stdout", "\ufffd\ufffd\ufffd|\n"),
            ("stdout", "end"),
        ]
    )
    assert all(one["attrs"] == {"a": "b", "X": "y", "tag": "talker"} for one in messages)
    assert all(re.match(rb'\{"log":".*","stream":"std(out|err)","attrs":\{', line) for line in lines)
    times = [one["time"] for one in messages]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{0,8}[1-9])?Z", at) for at in times)
    assert times == sorted(times)


@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_logs_of_each_file_driver(engine, driver):
    docker = engine.docker
    run(docker, "--log-driver", driver, script="for n in 1 2 3 4; do echo o$n; echo e$n >&2; sleep 0.1; done; printf x")
    assert docker("inspect", "-f", "{{.HostConfig.LogConfig.Type}}", "talker").out == f"{driver}\n"
    everything = docker("logs", "talker")
    assert (everything.out, everything.err) == ("o1\no2\no3\no4\nx", "e1\ne2\ne3\ne4\n")
    last = docker("logs", "-n", "3", "talker")
    assert (last.out, last.err) == ("o4\nx", "e4\n")
    stamped = docker("logs", "-t", "talker").out.splitlines()
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z (o\d|x)", line) for line in stamped)
    since = stamped[2].split()[0]
    assert docker("logs", "--since", since, "talker").out == "o3\no4\nx"
    assert docker("logs", "--until", since, "talker").out == "o1\no2\no3\n"
    assert docker("logs", "-f", "--since", since, "talker").out == "o3\no4\nx"
    assert docker("logs", "-n", "0", "talker").out == ""


@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_details(engine, driver):
    """A space where there is nothing to show, as Docker has it; keys and values as in a URL."""
    docker = engine.docker
    chosen = ["--log-opt", "labels=b,a", "--log-opt", "env=C"] if driver == "json-file" else []
    run(docker, "--log-driver", driver, "--label", "a=1 2", "--label", "b=x,y=z", "-e", "C=é", *chosen, script="echo 1")
    shown = docker("logs", "--details", "talker").out
    assert shown == ("C=%C3%A9,a=1+2,b=x%2Cy%3Dz 1\n" if driver == "json-file" else " 1\n")
    if driver == "json-file":
        assert re.fullmatch(r"\S+Z C=\S+ 1\n", docker("logs", "-t", "--details", "talker").out)


def test_following_goes_on_across_rotation(engine):
    """From before the first line to after the last, through files that are rotated and compressed meanwhile."""
    docker = engine.docker
    script = "read x; for n in 1 2 3 4 5 6 7 8; do seq $((n * 1000)) $((n * 1000 + 999)); sleep 0.05; done"
    docker(
        *shlex.split(
            "run -d -i --name talker --log-driver json-file --log-opt max-size=100k --log-opt max-file=50 "
            "--log-opt compress=true busybox sh -c"
        ),
        script,
    )
    with docker.piped("logs", "-f", "talker") as logs:
        with docker.piped("attach", "talker") as typist:
            typist.send("go\n")
            assert logs.wait() == 0
        text = "".join(f"{n}\n" for n in range(1000, 9000))
        assert logs.text == text
    assert docker("logs", "talker").out == text
    assert docker("logs", "-n", "7500", "talker").out == "".join(f"{n}\n" for n in range(1500, 9000))
    directory = os.path.dirname(log_file(docker))
    names = [name for name in os.listdir(directory) if "-json.log" in name]
    assert sum(name.endswith(".gz") for name in names) >= 3, names


def test_long_lines_are_logged_in_pieces(engine):
    docker = engine.docker
    run(docker, "--log-driver", "json-file", script="head -c 40000 /dev/zero | tr '\\0' x; echo; echo short")
    with open(log_file(docker), encoding="utf-8") as f:
        messages = [json.loads(line)["log"] for line in f]
    assert [len(one) for one in messages] == [16384, 16384, 40000 - 2 * 16384 + 1, 6]
    assert docker("logs", "talker").out == "x" * 40000 + "\nshort\n"


def test_none_cannot_be_read(engine):
    docker = engine.docker
    run(docker, "--log-driver", "none", script="echo x")
    result = docker("logs", "talker", check=False)
    assert result.code == 1
    assert result.err.strip() == "Error response from daemon: configured logging driver does not support reading"


def test_the_second_run_continues_the_log(engine):
    docker = engine.docker
    run(docker, "--log-driver", "json-file", script="echo run")
    docker("start", "-a", "talker")
    assert docker("logs", "talker").out == "run\nrun\n"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--log-driver", "pigeon"], 'error looking up logging plugin pigeon: plugin "pigeon" not found'),
        (["--log-driver", "awslogs"], 'error looking up logging plugin awslogs: plugin "awslogs" not found'),
        (["--log-driver", "local", "--log-opt", "tag=x"], "unknown log opt 'tag' for log driver local"),
        (["--log-driver", "json-file", "--log-opt", "x=y"], "unknown log opt 'x' for json-file log driver"),
        (["--log-driver", "syslog", "--log-opt", "x=y"], "unknown log opt 'x' for syslog log driver"),
        (
            ["--log-driver", "syslog", "--log-opt", "syslog-address=x"],
            "unsupported scheme: ''",
        ),
        (["--log-opt", "mode=lazy"], "logger: logging mode not supported: lazy"),
        (
            ["--log-opt", "max-buffer-size=1m"],
            "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
        ),
    ],
)
def test_refused_in_dockers_words(engine, options, words):
    result = engine.client("create", *options, "busybox", check=False)
    assert result.code == 1
    assert words in result.err


def test_logs_over_the_api(engine, docker_py):
    """Headers and framing of GET /logs."""
    run(engine.docker, "--log-driver", "json-file", script="echo out; sleep 0.1; echo err >&2")
    run(engine.docker, "-t", "--log-driver", "json-file", script="echo tty", name="tty")
    answer = docker_py.api.get(docker_py.api._url("/containers/talker/logs"), params={"stdout": 1, "stderr": 1})
    assert answer.status_code == 200
    assert answer.content == b"\x01\0\0\0\0\0\0\x04out\n\x02\0\0\0\0\0\0\x04err\n"
    assert docker_py.api.get(docker_py.api._url("/containers/tty/logs"), params={"stdout": 1}).content == b"tty\r\n"
    nothing = docker_py.api.get(docker_py.api._url("/containers/talker/logs"))
    assert nothing.status_code == 400
    assert nothing.json()["message"] == "Bad parameters: you must choose at least one stream"


@pytest.mark.ketch_only
def test_dockerd_and_ketch_read_each_others_files(engine):
    """A real dockerd's file in the place of ours, and ours in the place of its."""
    script = SCRIPT + "; echo; head -c 20000 /dev/zero | tr '\\0' x; echo; printf '\\342\\200\\250\\001\\t\\r\\n'"
    other = Engine("dockerd", suffix="r")
    other.own_network = True
    try:
        other.start()
        other.add_busybox()
        shown, paths = [], []
        for one in (engine, other):
            run(one.docker, "--network", "none", "--log-driver", "json-file", "--log-opt", "tag=x", script=script)
            paths.append(log_file(one.docker))
            shown.append(one.client("logs", "-t", "talker"))
        contents = [open(path, "rb").read() for path in paths]  # noqa: SIM115
        messages = [[json.loads(line) for line in content.splitlines()] for content in contents]
        kept = [
            [(m["stream"], m["log"], m["attrs"]) for m in sorted(one, key=lambda m: m["stream"])] for one in messages
        ]
        assert kept[0] == kept[1]
        for path, content in zip(paths, reversed(contents), strict=True):
            with open(path, "wb") as f:
                f.write(content)
        for one, text in zip((engine, other), reversed(shown), strict=True):
            read = one.client("logs", "-t", "talker")
            assert read.err == text.err
            # dockerd writes a time into the middle of a long line, too.
            inside = re.compile(r"(?<=x)\d{4}-[-0-9T:.]+Z (?=x)")
            assert inside.sub("", read.out) == inside.sub("", text.out)
    finally:
        other.remove_all()
        other.delete()


# -- the daemon's default, journald, syslog: a daemon with settings of its own ------------------------


@pytest.fixture(scope="module")
def configured(tmp_path_factory, request):
    """A daemon whose containers log as json-file, and where a test listens in journald's place."""
    if request.config.getoption("--engine") != "ketch":
        pytest.skip("only for Ketch")
    one = Engine("ketch", suffix="l")
    before = Census.take(one.name)
    one.extra = [
        "--log-driver",
        "json-file",
        "--log-opt",
        "max-file=3",
        "--log-opt",
        "labels=a",
        "--journald-socket",
        f"{one.root}/journal",
    ]
    try:
        one.start()
        one.add_busybox()
        yield one
        one.remove_all()
    finally:
        one.delete()
    assert before.leaks() == []


@pytest.fixture
def settings(configured):
    yield configured
    configured.remove_all()


def test_the_daemons_default(settings):
    docker = settings.docker
    run(docker, "--label", "a=b", script="echo x")
    run(docker, "--log-driver", "local", name="other", script="echo x")
    assert docker("info", "-f", "{{.LoggingDriver}}").out == "json-file\n"
    assert docker("info", "-f", "{{.Plugins.Log}}").out == "[fluentd gelf journald json-file local syslog]\n"
    shown = json.loads(docker("inspect", "-f", "{{json .HostConfig.LogConfig}}", "talker").out)
    assert shown == {"Type": "json-file", "Config": {"max-file": "3", "labels": "a"}}
    assert json.loads(docker("inspect", "-f", "{{json .HostConfig.LogConfig}}", "other").out) == {
        "Type": "local",
        "Config": {},
    }
    assert docker("logs", "--details", "talker").out == "a=b x\n"


def test_journald(settings):
    docker, journal = settings.docker, Journal(f"{settings.root}/journal")
    with contextlib.closing(journal):
        docker(
            *shlex.split(
                "run -d --name talker --log-driver journald --log-opt 'tag={{.ImageName}}/{{.Name}}' "
                "--label my.label=7 --log-opt labels=my.label -e 'VAR=a\nb' --log-opt env=VAR busybox sh -c"
            ),
            "echo err >&2; sleep 0.1; echo out; head -c 20000 /dev/zero | tr '\\0' x; echo; echo end",
        )
        entries = journal.until(b"end")
        ident = docker("inspect", "-f", "{{.Id}}", "talker").out.strip().encode()
    for one in entries:
        assert one["CONTAINER_ID_FULL"] == ident
        assert one["CONTAINER_ID"] == ident[:12]
        assert one["CONTAINER_NAME"] == b"talker"
        assert one["CONTAINER_TAG"] == one["SYSLOG_IDENTIFIER"] == b"busybox/talker"
        assert one["IMAGE_NAME"] == b"busybox"
        assert (one["MY_LABEL"], one["VAR"]) == (b"7", b"a\nb")
    by_text = {one["MESSAGE"]: one for one in entries}
    assert (by_text[b"out"]["PRIORITY"], by_text[b"err"]["PRIORITY"]) == (b"6", b"3")
    assert by_text[b"x" * 16384]["CONTAINER_PARTIAL_MESSAGE"] == b"true"
    assert "CONTAINER_PARTIAL_MESSAGE" not in by_text[b"x" * (20000 - 16384)]
    logs = docker("logs", "talker")  # from the cache
    assert (logs.out, logs.err) == ("out\n" + "x" * 20000 + "\nend\n", "err\n")


def test_the_real_journald(settings):
    docker = settings.docker
    with journald(f"{settings.root}/journal") as entries:
        run(
            docker,
            "--log-driver",
            "journald",
            "--log-opt",
            "tag=t",
            "--label",
            "x=1\n2",
            "--log-opt",
            "labels=x",
            script="echo err >&2; echo out; head -c 20000 /dev/zero | tr '\\0' x; echo; echo end",
        )
        found = entries("CONTAINER_NAME=talker", "end")
    by_text = {one["MESSAGE"]: (one["PRIORITY"], one["SYSLOG_IDENTIFIER"], one["X"]) for one in found}
    assert by_text["out"] == ("6", "t", "1\n2")
    assert by_text["err"] == ("3", "t", "1\n2")
    assert [len(str(one["MESSAGE"])) for one in found if one.get("CONTAINER_PARTIAL_MESSAGE") == "true"] == [16384]


def test_without_journald_the_start_fails(settings):
    result = settings.docker("run", "--log-driver", "journald", "busybox", "true", check=False)
    assert result.code == 127  # the client reads "no such file or directory" so
    assert "failed to initialize logging driver" in result.err


def test_cache_disabled(settings):
    docker, journal = settings.docker, Journal(f"{settings.root}/journal")
    with contextlib.closing(journal):
        run(docker, "--log-driver", "journald", "--log-opt", "cache-disabled=true", script="echo x")
        assert journal.entry()["MESSAGE"] == b"x"
    result = docker("logs", "talker", check=False)
    assert "configured logging driver does not support reading" in result.err


TEMPLATE = "%syslogfacility-text%.%syslogseverity-text% %programname% %app-name% |%msg%"
INPUTS = {
    "udp": 'module(load="imudp")\ninput(type="imudp" address="127.0.0.1" port="{port}")',
    "tcp": 'module(load="imtcp")\ninput(type="imtcp" address="127.0.0.1" port="{port}")',
    "unixgram": 'module(load="imuxsock" SysSock.Use="off")\ninput(type="imuxsock" Socket="{path}")',
}


@pytest.mark.parametrize(
    ("scheme", "form"),
    [("tcp", "rfc3164"), ("tcp", "rfc5424"), ("udp", "rfc5424micro"), ("unixgram", ""), ("unix", "")],
)
def test_syslog(settings, tmp_path, scheme, form):
    """To a real rsyslogd: facility, severity, tag and text arrive as they should in each format."""
    docker, port, path = settings.docker, free_port(), tmp_path / "socket"
    kind = "unixgram" if scheme == "unix" else scheme  # a datagram socket at a unix:// address is found out
    address = f"{scheme}://{path}" if "unix" in scheme else f"{scheme}://127.0.0.1:{port}"
    with rsyslog(tmp_path, INPUTS[kind].format(port=port, path=path), TEMPLATE) as messages:
        if scheme == "tcp":
            wait_for_port(port)
        else:
            _wait_until(lambda: path.exists() if "unix" in scheme else _udp_is_open(port))
        options = [f"syslog-address={address}", f"syslog-format={form}", "syslog-facility=local3", "tag=my-{{.Name}}"]
        run(
            docker,
            "--log-driver",
            "syslog",
            *(word for option in options for word in ("--log-opt", option)),
            script="echo out; sleep 0.1; echo err >&2; sleep 0.1; echo ümlaut; echo end",
        )
        lines = wait_for(messages, "end\n").splitlines()
    # rsyslog keeps the space before the text of RFC 3164.
    assert [line.replace("| ", "|") for line in lines if "|" in line and "rsyslogd" not in line] == [
        "local3.info my-talker my-talker |out",
        "local3.err my-talker my-talker |err",
        "local3.info my-talker my-talker |ümlaut",
        "local3.info my-talker my-talker |end",
    ]
    assert docker("logs", "talker").out == "out\nümlaut\nend\n"


def _udp_is_open(port):
    with open("/proc/net/udp", encoding="ascii") as f:
        return f":{port:04X} " in f.read()


def _wait_until(condition):
    deadline = time.monotonic() + patient(10)
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_without_a_server_the_start_fails(settings):
    address = f"syslog-address=tcp://127.0.0.1:{free_port()}"
    result = settings.client("run", "--log-driver", "syslog", "--log-opt", address, "busybox", "true", check=False)
    assert result.code == 125
    assert "failed to initialize logging driver: dial tcp" in result.err
