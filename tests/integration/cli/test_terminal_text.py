"""Texts of containers, images and registries on a terminal: no control sequences."""

from __future__ import annotations

import json
import re
import time

import pytest

from ketch import printable
from tests.support.engines import KETCH
from tests.support.terminal import Terminal
from tests.support.waiting import patient

# A title, the clipboard (OSC 52), a colour; C1's CSI and OSC; the other way round; lines of its own.
EVIL = "a\x1b]0;t\x07b\x1b]52;c;eA==\x07c\x1b[31md\x9b31me\x9d0;t\x9cf\u202eg\u2066h\u200fi\x7fj\bk\tl\u2028mé漢"
# A progress picture's own, and colours that EVIL has not.
OURS = re.compile(r"\x1b\[(?:\d*[A-Z]|\?\d+[hl]|(?:0|1|1;31|1;33|32)m)|\r")
STEERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def test_cells_and_lines():
    assert printable.cell("plain text é漢 \U0001f600") == "plain text é漢 \U0001f600"
    assert printable.cell("a\nb\tc") == "a?b?c"
    assert printable.lines("a\nb\tc\r\x1b") == "a\nb\tc??"
    assert not STEERS.search(printable.cell(EVIL))
    assert not STEERS.search(printable.lines(EVIL))
    assert printable.cell(b"\xff\xc3".decode(errors="surrogateescape")) == "??"
    for text in EVIL, "\ud800":
        shown = printable.json_text(json.dumps([text], ensure_ascii=False, indent=4))
        assert not STEERS.search(shown)
        assert json.loads(shown) == [text]


@pytest.fixture
def evil(engine):
    """A container whose argv, name of the process, labels and image's history try to steer terminals."""
    changes = ["--change", f"LABEL evil={EVIL!r}"]
    engine.docker("import", *changes, "-m", EVIL, "-", "evil", stdin=b"\0" * 1024)
    script = "printf 'n\\033[1m\\302\\233\\t\\303\\251\\377' >/proc/self/comm; : >\"/tmp/$0\"; sleep 1000; true"
    api = engine.py()
    made = api.containers.create(
        "busybox", ["sh", "-c", script, EVIL, "", "x\n  y"], labels={"evil": EVIL}, name="evil"
    )
    made.start()
    deadline = time.monotonic() + patient(10)
    while not any(row[1].startswith("n") for row in made.top(ps_args="-eo pid,comm")["Processes"]):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    api.close()
    yield engine
    engine.client("rm", "-f", "evil")
    engine.client("rmi", "-f", "evil")


def test_top_shows_what_ps_shows(evil):
    """As dockerd's ps: a question mark for each byte of a control character."""
    with_comm = json.loads(_get(evil, "/containers/evil/top?ps_args=-eo%20pid,comm"))
    assert "n?[1m???é?" in [row[1] for row in with_comm["Processes"]]  # by pid, and its child's may be smaller
    text = " ".join(row[-1] for row in json.loads(_get(evil, "/containers/evil/top"))["Processes"])
    assert "a?]0;t?b?]52;c;eA==?c?[31md??31me??0;t??f" in text
    assert "i?j?k?l?mé漢 x y" in text
    if evil.kind == "ketch":  # ps lets these pass
        assert "f?g?h?i" in text


def _get(engine, path: str) -> bytes:
    import http.client
    import socket

    connection = http.client.HTTPConnection("localhost", timeout=patient(20))
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(engine.socket)
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    assert answer.status == 200, body
    return body


SHOWN = (
    ("top", "evil"),
    ("top", "evil", "-eo", "pid,comm,args,exe,cgroup"),
    ("ps", "--no-trunc"),
    ("ps", "--format", "{{.Labels}}"),
    ("ps", "--format", "table {{.Labels}}\t{{.Command}}"),
    ("ps", "--format", "raw"),
    ("ps", "--format", "json"),
    ("ps", "--format", "{{json .}}"),
    ("inspect", "evil"),
    ("inspect", "--format", "{{.Config.Cmd}}", "evil"),
    ("inspect", "--format", "json", "evil"),
    ("inspect", "--format", "{{json .Config.Labels}}", "evil"),
    ("inspect", "--as", "run", "evil"),
    ("inspect", "--as", "compose", "evil"),
    ("image", "inspect", "evil"),
    ("history", "evil"),
    ("history", "--no-trunc", "evil"),
    ("history", "--format", "{{.Comment}}", "evil"),
    ("images", "--format", "json"),
    ("images", "--tree"),
    ("images",),
    ("events", "--since", "0", "--until", "1s"),
    ("events", "--since", "0", "--until", "1s", "--format", "json"),
    ("volume", "ls", "--format", "{{.Labels}}"),
    ("network", "ls", "--format", "{{.Labels}}"),
    ("network", "inspect", "evil"),
    ("volume", "inspect", "evil"),
    ("info",),
    ("stats", "--no-stream"),
    ("diff", "evil"),
    ("system", "df", "-v"),
    ("inspect", EVIL),
    ("rm", EVIL),
    ("pull", f"x/{EVIL}"),
)


def test_the_command_line_on_a_terminal(evil):
    for kind in "volume", "network":
        evil.ketch(kind, "create", "--label", f"evil={EVIL}", "evil")
    try:
        for args in SHOWN:
            with evil.ketch.terminal(*args) as terminal:
                terminal.wait()
                text = terminal.text.replace("\r\n", "\n")
            drawn = re.sub(OURS, "", text)
            assert drawn, args
            assert not STEERS.search(drawn), (args, ascii(STEERS.search(drawn)), ascii(text))
    finally:
        evil.ketch("network", "rm", "evil")
        evil.ketch("volume", "rm", "evil")


def test_json_and_pipes_keep_the_data(evil):
    for args in ("inspect", "evil"), ("inspect", "--format", "json", "evil"):
        assert json.loads(evil.ketch(*args).out)[0]["Config"]["Labels"]["evil"] == EVIL
    assert json.loads(evil.ketch("inspect", "--format", "{{json .Config.Labels.evil}}", "evil").out) == EVIL
    assert evil.ketch("inspect", "--format", "{{.Config.Labels.evil}}", "evil").out == f"{EVIL}\n"
    assert f"evil={EVIL}" in json.loads(evil.ketch("ps", "--format", "json").out.splitlines()[0])["Labels"]
    assert not STEERS.search(evil.ketch("ps", "--no-trunc").out)
    assert not STEERS.search(evil.ketch("rm", EVIL, check=False).err)


def test_a_label_makes_no_line_of_its_own(evil):
    evil.ketch("volume", "create", "--label", "a=b\n2026-01-01T00:00:00Z container destroy made-up", "lines")
    try:
        told = evil.ketch("events", "--since", "0", "--until", "1s").out
        assert not [line for line in told.splitlines() if line.startswith("2026-01-01")]
        listed = evil.ketch("volume", "ls", "--format", "table {{.Name}}\t{{.Labels}}").out
        assert len([line for line in listed.splitlines() if "made-up" in line and line.startswith("lines")]) == 1
    finally:
        evil.ketch("volume", "rm", "lines")


def test_a_name_of_a_file_makes_no_line_of_its_own(evil):
    evil.ketch("run", "--name", "lines", "busybox", "touch", "/tmp/a\nD \x7fetc")
    try:
        with evil.ketch.terminal("diff", "lines") as terminal:
            terminal.wait()
            assert sorted(terminal.text.replace("\r\n", "\n").splitlines()) == ["A /tmp/a?D ?etc", "C /tmp"]
    finally:
        evil.ketch("rm", "lines")


def test_colours(engine):
    """Errors, titles of help texts, and the states in the table of `ps`; on a terminal, and if they are wanted."""
    engine.ketch("run", "-d", "--name", "up", "busybox", "sleep", "1000")
    engine.ketch("run", "--name", "failed", "busybox", "false", check=False)
    plain = engine.ketch("ps", "-a").out
    assert "\x1b" not in plain + engine.ketch("ps", "--help").out + engine.ketch("rm", "nobody", check=False).err
    for settings, coloured in (["TERM=xterm"], True), (["NO_COLOR=1"], False), (["TERM=dumb"], False):

        def shown(*words: str, settings=settings) -> str:
            with Terminal(["env", "-u", "NO_COLOR", *settings, KETCH, *words], engine.environment()) as terminal:
                terminal.wait()
                return terminal.text.replace("\r\n", "\n")

        table, help_text, failure = shown("ps", "-a"), shown("ps", "--help"), shown("rm", "nobody")
        found = [
            re.sub(r".*\x1b\[(3\d)m(Up|Exited \(1\)) .*\x1b\[0m .*", r"\1 \2", line) for line in table.splitlines()
        ]
        assert (sorted(found[1:]) == ["31 Exited (1)", "32 Up"]) is coloured, table
        assert help_text.startswith("\x1b[1mUsage:\x1b[0m  ketch ps" if coloured else "Usage:  ketch ps")
        name = "\x1b[1;31mketch:\x1b[0m" if coloured else "ketch:"
        assert failure == f"{name} No such container: nobody\n"
        assert ("\x1b" in table + help_text + failure) is coloured
        assert "\x1b" not in shown("ps", "-aq") + shown("ps", "-a", "--format", "{{.Status}}")
    with engine.ketch.terminal("ps", "--watch") as terminal:
        terminal.expect(r"\x1b\[32mUp [^\x1b]*\x1b\[0m .* up")
        terminal.send("\x03")
        assert terminal.wait() == 0
    engine.ketch("rm", "-f", "up", "failed")
