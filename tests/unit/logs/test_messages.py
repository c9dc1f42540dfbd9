"""Messages for journald and syslog, and the options of log drivers."""

from __future__ import annotations

import _socket
import contextlib
import fcntl
import re
import socket
import struct
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.engine.logs import options as log_options
from ketch.engine.model.records import LogConfig
from ketch.errors import InvalidArgument
from ketch.runtime.logs.fluentd import Fluentd
from ketch.runtime.logs.gelf import Gelf
from ketch.runtime.logs.journald import Journal
from ketch.runtime.logs.syslog import Syslog
from ketch.runtime.process.io.remote import Remote
from ketch.runtime.process.loop import Loop
from tests.support.logs.forwarding import unpack
from tests.support.logs.logservers import Journal as FarJournal
from tests.support.logs.logservers import journal_fields
from tests.support.waiting import patient

if TYPE_CHECKING:
    from collections.abc import Callable

AT = 1704164645_123456789


@given(st.binary(max_size=200), st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0")))
def test_journal_entries_can_be_read(line, value):
    entry = Journal("/nowhere", {"CONTAINER_NAME": value}).message(AT, 2, line, True)
    assert journal_fields(entry) == {
        "CONTAINER_NAME": value.encode(),
        "PRIORITY": b"3",
        "CONTAINER_PARTIAL_MESSAGE": b"true",
        "MESSAGE": line,
    }


def test_journal_values_with_newlines_have_their_length():
    entry = Journal("/nowhere", {"A": "x\ny"}).message(AT, 1, b"text", False)
    assert entry == b"A\n" + struct.pack("<Q", 3) + b"x\ny\nPRIORITY=6\nMESSAGE=text\n"


def test_an_entry_that_is_too_large_goes_through_sealed_memory(tmp_path):
    """The sender's buffer is smaller than the entry (EMSGSIZE): it arrives all the same, and after it the next one."""
    far = FarJournal(str(tmp_path / "journal"))
    form = Journal(far.path, {"BIG": "v" * 100_000})
    connect = form.connect

    def small() -> tuple[_socket.socket, int]:
        sock, status = connect()
        sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDBUF, 8192)
        return sock, status

    form.connect = small
    with contextlib.closing(far):
        remote = Remote(Loop(), form, blocking=True, limit=0)
        remote.write(1, b"first\nsecond\n")
        entries = [far.entry(), far.entry()]
        assert far.large == 2
        assert far.seals == fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
        assert not remote.pending
    assert [entry["MESSAGE"] for entry in entries] == [b"first", b"second"]
    assert entries[0]["BIG"] == b"v" * 100_000


@pytest.mark.parametrize(
    ("form", "pattern"),
    [
        ("", rb"<30>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d tag\[\d+\]: text\n"),
        ("rfc3164", rb"<30>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \S+ tag\[\d+\]: text\n"),
        ("rfc5424", rb"<30>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d) \S+ tag \d+ tag - text\n"),
        ("rfc5424micro", rb"<30>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.123456(Z|[+-]\d\d:\d\d) \S+ tag \d+ tag - text\n"),
    ],
)
def test_syslog_formats(form, pattern):
    one = Syslog(["unixgram", "/nowhere"], 3, form, "tag")
    assert re.fullmatch(pattern, one.message(AT, 1, b"text", False))
    assert one.message(AT, 2, b"text", False).startswith(b"<27>")
    assert one.message(AT + 10**9, 1, b"text", False) != one.message(AT, 1, b"text", False)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", ("unixgram", "/dev/log", 0)),
        ("unix:///run/x", ("unix", "/run/x", 0)),
        ("unixgram:///run/x", ("unixgram", "/run/x", 0)),
        ("tcp://host", ("tcp", "host", 514)),
        ("udp://1.2.3.4:5514", ("udp", "1.2.3.4", 5514)),
        ("tcp://[::1]:99", ("tcp", "::1", 99)),
        ("udp://[fe80::1]", ("udp", "fe80::1", 514)),
    ],
)
def test_syslog_addresses(text, wanted):
    assert log_options.address(text) == wanted


@pytest.mark.parametrize(
    ("driver", "options", "words"),
    [
        ("local", {"labels": "x"}, "unknown log opt 'labels' for log driver local"),
        ("json-file", {"colour": "x"}, "unknown log opt 'colour' for json-file log driver"),
        ("journald", {"max-size": "1m"}, "unknown log opt 'max-size' for journald log driver"),
        ("syslog", {"max-file": "1"}, "unknown log opt 'max-file' for syslog log driver"),
        ("pigeon", {}, 'error looking up logging plugin pigeon: plugin "pigeon" not found'),
        ("etwlogs", {}, 'error looking up logging plugin etwlogs: plugin "etwlogs" not found'),
        ("fluentd", {"fluentd-address": "tls://h:1"}, "TLS is not supported"),
        ("json-file", {"mode": "lazy"}, "logger: logging mode not supported: lazy"),
        ("local", {"max-buffer-size": "1m"}, "max-buffer-size option is only supported with 'mode=non-blocking'"),
        ("local", {"max-buffer-size": "big", "mode": "non-blocking"}, "not a size"),
        ("json-file", {"max-file": "0"}, "max-file cannot be less than 1"),
        ("json-file", {"max-size": "ten"}, "not a size"),
        ("json-file", {"compress": "maybe"}, "invalid value for option compress"),
        ("json-file", {"compress": "true", "max-file": "1"}, "compress cannot be true when"),
        ("json-file", {"labels-regex": "("}, "error parsing regexp"),
        ("json-file", {"tag": "{{.Colour}}"}, "is not known"),
        ("json-file", {"tag": "{{range .X}}"}, "is not known"),
        ("syslog", {"syslog-address": "here"}, "unsupported scheme: ''"),
        ("syslog", {"syslog-address": "tcp+tls://h:1"}, "TLS is not supported"),
        ("syslog", {"syslog-tls-ca-cert": "/x"}, "TLS is not supported"),
        ("syslog", {"syslog-facility": "local8"}, "invalid syslog facility"),
        ("syslog", {"syslog-format": "rfc1"}, "Invalid syslog format"),
        ("syslog", {"cache-disabled": "maybe"}, "invalid value for option cache-disabled"),
    ],
)
def test_refused(driver, options, words):
    with pytest.raises(InvalidArgument, match=re.escape(words)):
        log_options.check(LogConfig(type=driver, config=options))


@pytest.mark.parametrize(
    ("driver", "options"),
    [
        ("", {"max-size": "-1", "labels": "a", "tag": "{{ .Name }}/{{.ID}}"}),
        ("none", {"whatever": "x"}),
        ("json-file", {"compress": "true", "max-size": "1m", "max-file": "3", "env-regex": "^A"}),
        (
            "syslog",
            {"syslog-facility": "17", "mode": "non-blocking", "max-buffer-size": "4m", "cache-disabled": "true"},
        ),
        ("journald", {"tag": "x", "cache-max-size": "1m", "cache-max-file": "2", "mode": "blocking"}),
    ],
)
def test_accepted(driver, options):
    log_options.check(LogConfig(type=driver, config=options))


def test_the_daemons_defaults_are_for_its_own_driver():
    default = LogConfig(type="json-file", config={"max-size": "1m", "cache-disabled": "true"})
    nothing, same, other = LogConfig(), LogConfig(type="json-file", config={"max-size": "2m"}), LogConfig(type="local")
    for one in (nothing, same, other):
        log_options.apply_defaults(one, default)
    assert (nothing.type, nothing.config) == ("json-file", {"max-size": "1m", "cache-disabled": "true"})
    assert same.config == {"max-size": "2m", "cache-disabled": "true"}
    assert (other.type, other.config) == ("local", {"cache-disabled": "true"})


def test_tags():
    values = {"ID": "abc", "Name": "web"}
    assert log_options.tag("x/{{.Name}}-{{ .ID }}", values) == "x/web-abc"


FORWARD = {
    "driver": "fluentd",
    "address": ["tcp", "127.0.0.1", 1],
    "tag": "a.tag",
    "fields": {"container_id": "x" * 64, "container_name": "/web"},
    "precise": False,
    "acks": False,
    "timeout_ms": 0,
    "retry_ms": 1000,
    "retries": 0,
}


WORDS = st.text(st.characters(blacklist_categories=("Cs",)), max_size=300)


@given(WORDS, st.dictionaries(st.sampled_from(["log", "source"]) | WORDS, WORDS, max_size=20))
def test_forwarded_messages_can_be_read(line, chosen):
    """An independent decoder reads them; a chosen label of the same name takes the place of Docker's own field."""
    fields = {**FORWARD["fields"], **chosen}
    message = Fluentd({**FORWARD, "fields": fields, "precise": True}).message(AT, 2, line.encode(), False)
    tag, at, record, option = msgspec.msgpack.decode(message)
    assert (tag, option) == ("a.tag", {})
    assert (at.code, bytes(at.data)) == (0, struct.pack(">II", AT // 10**9, AT % 10**9))
    assert record == {"source": "stderr", "log": line, **fields}


def test_pieces_of_long_lines_are_numbered():
    one = Fluentd(FORWARD)
    sent = [
        msgspec.msgpack.decode(one.message(AT + number * 10**9, 1, b"x" * 20000, partial))
        for number, partial in enumerate((True, True, False, False))
    ]
    assert len({message[2].get("partial_id") for message in sent}) == 2
    kept = [(m[1] - AT // 10**9, m[2].get("partial_ordinal"), m[2].get("partial_last")) for m in sent]
    assert kept == [(0, "1", "false"), (0, "2", "false"), (0, "3", "true"), (3, None, None)]


def test_a_message_without_confirmation_is_sent_again():
    """A wrong confirmation, and an end without one: the same message comes on the next connection."""
    with socket.create_server(("127.0.0.1", 0)) as far:
        far.settimeout(patient(10))
        loop = Loop()
        address = ["tcp", "127.0.0.1", far.getsockname()[1]]
        remote = Remote(
            loop, Fluentd({**FORWARD, "address": address, "acks": True, "retry_ms": 0}), blocking=True, limit=0
        )
        seen = []

        def serve() -> None:
            for answer in (b"\x81\xa3ack\xb8" + b"w" * 24, b"", None):
                connection, _ = far.accept()
                with connection, connection.makefile("rb") as stream:
                    seen.append(unpack(stream))
                    if answer is None:
                        ident = seen[-1][3]["chunk"].encode()
                        connection.sendall(b"\x81\xa3ack\xb8" + ident[:9])
                        connection.sendall(ident[9:])
                        seen.append(unpack(stream))
                    else:
                        connection.sendall(answer)

        with ThreadPoolExecutor(1) as pool:
            done = pool.submit(serve)
            remote.write(1, b"first\nsecond\n")
            # An empty write is when a lost connection is made again.
            run_until(loop, lambda: remote.write(1, b"") or done.done())
            done.result()
    assert [message[2]["log"] for message in seen] == ["first", "first", "first", "second"]
    assert len({message[3]["chunk"] for message in seen[:3]}) == 1


def run_until(loop: Loop, step: Callable[[], bool]) -> None:
    """Run a loop that calls ``step`` now and then, until it returns True."""
    end = monotonic() + patient(30)

    def tick() -> None:
        loop.running = not step()
        assert monotonic() < end
        loop.deadline = monotonic() + 0.01

    loop.deadline, loop.on_deadline = monotonic(), tick
    loop.run()


def test_a_server_that_leaves_messages_unread_is_connected_to_again():
    """``fluentd-write-timeout``; without it the container would wait for as long as the server does not read."""
    with socket.create_server(("127.0.0.1", 0)) as far:
        far.settimeout(patient(10))
        far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        loop = Loop()
        settings = {**FORWARD, "address": ["tcp", "127.0.0.1", far.getsockname()[1]], "timeout_ms": 200, "retry_ms": 0}
        remote = Remote(loop, Fluentd(settings), blocking=True, limit=0)
        with far.accept()[0]:
            far.setblocking(False)
            remote.write(1, (b"x" * 8000 + b"\n") * 1000)
            assert remote.full
            again = []

            def accepted() -> bool:
                remote.write(1, b"")
                with contextlib.suppress(BlockingIOError):
                    again.append(far.accept()[0])
                return bool(again)

            run_until(loop, accepted)
            again[0].close()


def test_a_message_is_dropped_after_so_many_attempts():
    with socket.create_server(("127.0.0.1", 0)) as far:
        address = ["tcp", *far.getsockname()]
    loop = Loop()
    remote = Remote(
        loop, Fluentd({**FORWARD, "address": address, "retry_ms": 0, "retries": 2}), blocking=False, limit=9999
    )
    remote.write(1, b"first\nsecond\nthird\n")
    left = remote._size
    run_until(loop, lambda: remote.write(1, b"") or remote._size < left)
    assert not remote.pending


def test_a_name_is_not_looked_up_where_everything_would_wait():
    with pytest.raises(OSError, match="illegal IP address"):
        Fluentd({**FORWARD, "address": ["tcp", "localhost", 1]}).connect()


def test_large_messages_for_graylog_go_on_where_a_full_socket_stopped_them():
    """Each chunk is sent once, however often the socket was full in between."""
    gelf = Gelf(
        {
            "driver": "gelf",
            "address": ["udp", "127.0.0.1", 1],
            "fields": '"_a":"b"',
            "compression": "none",
            "level": 1,
            "retry_ms": 1,
            "retries": 0,
        }
    )
    message = gelf.message(AT, 1, b"x" * 16384, True)
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with near, far:
        near.setblocking(False)
        far.settimeout(patient(10))
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
        chunks, full = [], 0
        for _ in range(100):
            try:
                gelf.send_large(near, message)
                break
            except BlockingIOError:
                full += 1
                chunks.append(far.recv(2000))
        far.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                chunks.append(far.recv(2000))
    assert full
    assert [chunk[10] for chunk in chunks] == list(range(chunks[0][11]))
    assert b"".join(chunk[12:] for chunk in chunks) == message
    with pytest.raises(OSError, match="Message too long"):
        gelf.message(AT, 1, b"", False)
        gelf.send_large(near, b"x" * 1408 * 128)
