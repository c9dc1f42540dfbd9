"""Log servers for tests: a journal's socket that decodes its input, and a real rsyslogd."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import struct
import subprocess
import time
from typing import TYPE_CHECKING

from tests.support.programs import need
from tests.support.waiting import patient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_LIMIT_S = patient(10)


def journal_fields(entry: bytes) -> dict[str, bytes]:
    """Decode one entry of the native protocol."""
    fields, position = {}, 0
    while position < len(entry):
        end = entry.index(b"\n", position)
        name, equals, value = entry[position:end].partition(b"=")
        position = end + 1
        if not equals:
            (length,) = struct.unpack_from("<Q", entry, position)
            value = entry[position + 8 : position + 8 + length]
            position += 8 + length
            assert entry[position : position + 1] == b"\n"
            position += 1
        fields[name.decode()] = value
    return fields


class Journal:
    """A datagram socket in journald's place."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.large = 0  # entries that came as a memfd, …
        self.seals = 0  # … and the last one's seals
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(path)
        self.sock.settimeout(_LIMIT_S)

    def entry(self) -> dict[str, bytes]:
        """The next entry."""
        data, fds, _, _ = socket.recv_fds(self.sock, 1 << 18, 1)
        if fds:
            self.seals = fcntl.fcntl(fds[0], fcntl.F_GET_SEALS)
            with open(fds[0], "rb") as f:
                f.seek(0)
                data = f.read()
            self.large += 1
        return journal_fields(data)

    def until(self, message: bytes) -> list[dict[str, bytes]]:
        """Entries up to the one with this message."""
        got = [self.entry()]
        while got[-1]["MESSAGE"] != message:
            got.append(self.entry())
        return got

    def close(self) -> None:
        """Stop listening."""
        self.sock.close()
        os.unlink(self.path)


_JOURNALD = """
mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /etc/systemd && mkdir -p /run/systemd/journal /run/log/journal
printf '[Journal]\\nStorage=volatile\\nAudit=no\\nReadKMsg=no\\nForwardToSyslog=no\\n' >/etc/systemd/journald.conf
exec "$0"
"""


@contextlib.contextmanager
def journald(path: str) -> Iterator[Callable[[str, str], list[dict[str, object]]]]:
    """A private systemd-journald behind the socket ``path``; yields a function that waits for a message.

    It is called with a match (``FIELD=value``) and a text, and returns the entries up to the one with this text.
    """
    process = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", _JOURNALD, need("systemd-journald")], stderr=subprocess.DEVNULL
    )
    root = f"/proc/{process.pid}/root/run"

    def entries(match: str, text: str) -> list[dict[str, object]]:
        deadline = time.monotonic() + _LIMIT_S
        while True:
            command = [need("journalctl"), "--directory", f"{root}/log/journal", "-o", "json", "--all", match]
            done = subprocess.run(command, capture_output=True, check=False)
            found = [json.loads(line) for line in done.stdout.splitlines()]
            if any(one.get("MESSAGE") == text for one in found):
                return found
            assert time.monotonic() < deadline, (done.stderr, found)
            time.sleep(0.05)

    try:
        deadline = time.monotonic() + _LIMIT_S
        while not os.path.exists(f"{root}/systemd/journal/socket"):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.symlink(f"{root}/systemd/journal/socket", path)
        yield entries
    finally:
        process.terminate()
        process.wait(_LIMIT_S)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


@contextlib.contextmanager
def rsyslog(directory: Path, inputs: str, template: str) -> Iterator[Path]:
    """A private rsyslogd; yields the file that it writes messages to."""
    out, config = directory / "messages", directory / "rsyslog.conf"
    config.write_text(
        f'global(workDirectory="{directory}" preserveFQDN="on" parser.escapeControlCharactersOnReceive="off")\n'
        f'template(name="t" type="string" string="{template}\\n")\n{inputs}\n'
        f'action(type="omfile" file="{out}" template="t" asyncWriting="off" flushOnTXEnd="on")\n'
    )
    program = need("rsyslogd")
    process = subprocess.Popen(
        [program, "-n", "-f", str(config), "-i", str(directory / "pid")],
        stdout=subprocess.DEVNULL,
        stderr=open(directory / "errors", "wb"),  # noqa: SIM115
    )
    try:
        yield out
    finally:
        process.terminate()
        process.wait(_LIMIT_S)


def wait_for(path: Path, text: str) -> str:
    """The file's content as soon as it has ``text`` in it."""
    deadline = time.monotonic() + _LIMIT_S
    while True:
        content = path.read_text(errors="replace") if path.exists() else ""
        if text in content:
            return content
        assert time.monotonic() < deadline, f"{text!r} does not come: {content[-2000:]!r}"
        time.sleep(0.02)


def free_port(kind: int = socket.SOCK_STREAM) -> int:
    """A port on loopback that nobody uses at the moment."""
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def wait_for_port(port: int) -> None:
    """Until something listens."""
    deadline = time.monotonic() + _LIMIT_S
    while True:
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
            return
        assert time.monotonic() < deadline, f"nobody listens on port {port}"
        time.sleep(0.02)
