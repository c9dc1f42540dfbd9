"""What launcher, monitor and ketchd say to each other: JSON datagrams with descriptors (SOCK_SEQPACKET).

launcher → ketchd   {"ev":"ready","cgroup"}: "" or why it is not in a cgroup of its own   (see cgroups.monitors)
ketchd → launcher   {"op":"start", "id", "bundle", "run_dir", "rootfs", "tty", "stdin", "stdin_once", "pidns",
                      "cgroup", "log":{"driver","dir","max_size","max_files", …}}          + control socket
        log: json-file also "path","compress","attrs"; journald "socket","fields"; syslog "address","facility",
        "format","tag"; both "cache","blocking","buffer"          (see logdrivers)

monitor → ketchd, on every control connection
  {"ev":"hello", "id","monitor","pid","started_at","state","execs":{id: pid},"ooms"}  first, but for the launcher's
  {"ev":"created","pid","monitor"} + network namespace, netlink socket in it (none when the container has no new one)
  {"ev":"failed", …}                                                   before "created"; see runtime.failure
  {"ev":"oom"}                                                         memory ran out; "ooms" counts it
  {"ev":"exit","code","at","oom"}        last: outputs are drained, exit.json is there, the cgroup is gone
  {"ev":"exec_exit","exec_id","code","at"}     or, when nobody is connected, exec-<id>.json in the run directory

ketchd → monitor, answered {"seq":n,"ok":true, …} or {"seq":n,"ok":false,"error":{…}}; "by": the time (monotonic, s)
after which it must not be begun any more
  {"op":"start","seq"}                   → "started_at"; an error when the program could not be executed
  {"op":"attach","stdin","stdout","stderr","mux","detach_keys","early","from","frames","bell"} + client's socket
        mux: 8-byte headers, else raw; early: input that came before is in a file in memory, whose descriptor stands
        before the socket; frames: the log's own format;
        bell: one byte when the log has grown, none while the last one has not been read
        from: null, "start" or {"inode","offset"}: first what the log has from there, then what comes
  {"op":"exec","exec_id","process","tty","rows","cols", and attach's} + client's socket or nothing → "pid"
  {"op":"resize","exec_id","rows","cols"}   {"op":"kill","exec_id","signal"}   {"op":"status"} → as hello
  {"op":"hold"} + socket of a client that waits for the exit over HTTP  (see waits)
"""

from __future__ import annotations

import json
import os
from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_SEQPACKET, socketpair

from ketch.linux import fdpass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from typing import Any

EXIT_RECORD = "exit.json"
CONTROL_SOCKET = "control.sock"
PID_FILE = "monitor.pid"


def send(sock: socket | int, message: dict[str, Any], fds: list[int] | tuple[int, ...] = ()) -> None:
    """Send a message; ``fds`` stay the caller's (OSError as `fdpass.send`)."""
    fdpass.send(sock, json.dumps(message).encode(), fds)


def receive(sock: socket | int) -> tuple[dict[str, Any] | None, list[int]]:
    """The next message and its descriptors, the caller's to close; (None, []) at the end (OSError as `fdpass.recv`)."""
    payload, fds = fdpass.recv(sock)
    if not payload:
        return None, fds
    return json.loads(payload), fds


def hear(sock: int) -> tuple[dict[str, Any] | None, list[int]]:
    """What a child says next, also its last words; (None, []) when there are no more.

    A child that ends with "go" unread makes the kernel report ECONNRESET, once, before what the child had sent.
    """
    for _ in range(2):
        try:
            return receive(sock)
        except ConnectionResetError:
            continue
        except OSError:
            break
    return None, []


def pair() -> tuple[int, int]:
    """Two connected SEQPACKET descriptors, close-on-exec, the caller's to close."""
    one, other = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC)
    return one.detach(), other.detach()


def write_file(path: str, data: bytes) -> None:
    """Make or replace a file's contents, without the memory that Python's file objects cost a monitor for ever."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)


def read_memory(fd: int) -> bytes:
    """The content of a file in memory; closes it."""
    try:
        return os.pread(fd, os.fstat(fd).st_size, 0)
    finally:
        os.close(fd)


def write_record(directory: str, name: str, record: dict[str, Any]) -> None:
    """Write a small JSON file so that readers see all of it or nothing."""
    path = os.path.join(directory, name)
    write_file(path + ".new", json.dumps(record).encode())
    os.rename(path + ".new", path)


def exit_code(status: int) -> int:
    """A wait status → the code that Docker reports: 128 + n for a signal."""
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
