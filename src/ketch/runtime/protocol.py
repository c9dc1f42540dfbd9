"""The messages of launcher, monitors and ketchd, field by field: types alone, which nothing imports when it runs.

Each message is a JSON datagram, with descriptors beside it, on a SOCK_SEQPACKET socket (`runtime.process.messages`).

    launcher → ketchd     LauncherReady
    ketchd → launcher     StartContainer, with the monitor's first control connection
    monitor → ketchd      HelloEvent (first, but not on that connection), then events as they happen
    ketchd → monitor      requests, each answered by an Answer with its number, but HoldRequest and KeepRequest
    child → its parent    ChildNetwork, ChildHooks, ChildMap, ChildReady, ChildListener; Failed instead of any of them

Monitors outlive the ketchd that had them started, and the next one may be of another version.  So a field keeps its
name and its meaning for ever; a new one is NotRequired, and without it everything is as it was before there was such a
field.  An unknown request is answered with an error, an unknown event is ignored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NotRequired, TypedDict

if TYPE_CHECKING:
    from ketch.failpoints import Passage
    from ketch.runtime.oci_types import OciMount, OciProcess


class Cgroups(TypedDict):
    """A container's cgroup, for `cgroups.common.open`: ``dir`` of v2, or ``dirs`` by controller of v1.

    ``unit``: systemd's scope, if it is one.
    """

    version: int
    dir: NotRequired[str]
    unit: NotRequired[str]
    dirs: NotRequired[dict[str, str]]


class Failed(TypedDict):
    """The description of an error, as an event or as an answer's ``error`` (see `runtime.failure`)."""

    ev: Literal["failed"]
    kind: str
    step: str
    errno: int
    message: str
    cgroups: NotRequired[Cgroups | None]  # from a child: what it had made


# -- a forked child and its parent -------------------------------------------------------------------


class ChildForked(TypedDict):
    """The child, which was not to be the first process itself, has forked that, and ends (see `crossing`)."""

    ev: Literal["forked"]
    pid: int


class ChildNetwork(TypedDict):
    """The child's network: descriptors of its new namespace, and of a NETLINK_ROUTE socket in it."""

    ev: Literal["netns"]


class ChildHooks(TypedDict):
    """The child waits for the parent's hooks, and the container's state as JSON."""

    ev: Literal["hooks"]


class ChildMap(TypedDict):
    """The child waits until the owners of a tree are mapped, and for an error's number as text, 0 for none.

    Descriptors: the detached tree, the user namespace.  Only the OCI command line's children ask (see `rootfs.idmap`).
    """

    ev: Literal["map"]
    recursive: bool


class ChildReady(TypedDict):
    """The child has done everything but execve; it waits for ``go``.

    Descriptors: with ``netns`` those of ChildNetwork, with ``tty`` the terminal's master as the last one.  ``pid``: the
    process's, when the child is a driver of another runtime (`runtime.process.foreign`) and not the process itself.
    ``oom_kills_around``: what had been killed before, in the cgroup that the container's is in.
    """

    ev: Literal["ready"]
    netns: bool
    tty: bool
    pid: NotRequired[int]
    cgroups: NotRequired[Cgroups | None]
    oom_kills_around: NotRequired[int]
    passages: NotRequired[list[Passage]]


class FirstProcess(TypedDict):
    """To a first process that was forked before its container was known, with descriptors for its stdio."""

    id: str
    bundle: str
    rootfs: list[OciMount]
    tty: bool
    timing: NotRequired[bool]


class ChildListener(TypedDict):
    """A filter with notifications follows; ``path`` is the supervisor's; descriptors: a page of memory, the process.

    See `security.seccomp_listener`.
    """

    ev: Literal["notify"]
    path: str
    metadata: str


ChildMessage = ChildForked | ChildNetwork | ChildHooks | ChildMap | ChildReady | ChildListener | Failed


# -- the launcher ------------------------------------------------------------------------------------


class LauncherReady(TypedDict):
    """``cgroup``: empty, or why monitors have no cgroup of their own (see `cgroups.monitors`)."""

    ev: Literal["ready"]
    cgroup: str


class LogFiles(TypedDict):
    """The settings of all log drivers: directory, and size of files (bytes, 0: any) before rotation."""

    dir: str
    max_size: int
    max_files: int


class FramedLog(LogFiles):
    """Frames, as Ketch writes them without any driver; ``none``: nothing."""

    driver: Literal["local", "none"]


class JsonFileLog(LogFiles):
    """Docker's own format at ``path``; ``attrs`` is a JSON object's text, or empty."""

    driver: Literal["json-file"]
    path: str
    compress: bool
    attrs: str


class RemoteLog(LogFiles):
    """Lines that go elsewhere; ``cache``: framed files as well; ``buffer``: bytes that wait when not ``blocking``."""

    cache: bool
    blocking: bool
    buffer: int


class JournaldLog(RemoteLog):
    """Messages for systemd-journald, each with these fields."""

    driver: Literal["journald"]
    socket: str
    fields: dict[str, str]


class SyslogLog(RemoteLog):
    """``address``: ["unix" | "unixgram", path] or ["tcp" | "udp", IP address, port]."""

    driver: Literal["syslog"]
    address: list[str | int]
    facility: int
    format: str
    tag: str


class FluentdLog(RemoteLog):
    """``address`` as of SyslogLog; ``fields`` of each record; ``precise``: times with nanoseconds.

    ``timeout_ms`` is that of a write; after ``retries`` attempts to connect, ``retry_ms`` apart, a message is dropped.
    """

    driver: Literal["fluentd"]
    address: list[str | int]
    tag: str
    fields: dict[str, str]
    precise: bool
    acks: bool
    timeout_ms: int
    retry_ms: int
    retries: int


class GelfLog(RemoteLog):
    """``fields``: the inside of a JSON object; ``compression``: gzip, zlib or none, at ``level`` (UDP alone)."""

    driver: Literal["gelf"]
    address: list[str | int]
    fields: str
    compression: str
    level: int
    retry_ms: int
    retries: int


LogSettings = FramedLog | JsonFileLog | JournaldLog | SyslogLog | FluentdLog | GelfLog


class ForeignRuntime(TypedDict):
    """Another OCI runtime: its program and arguments, and the directory in which it keeps its containers' state."""

    command: list[str]
    root: str


class StartContainer(TypedDict):
    """Fork a monitor; ``pidns``: new, host or a namespace's path; ``rootfs``: mounts, for `rootfs.root.attach`.

    ``namespaces``: the kinds that are new, but mount and cgroup: the launcher may have them ready.  ``userns``: the
    bundle has a user namespace, new or joined; an entry of ``rootfs`` with the option ``idmap`` is seen through it.
    ``timing``: the answer to the start shall have ``passages``.  ``ahead``: nobody waits for it.
    ``runtime``: another one than the built-in; `foreign.remains` has recorded it.  ``place``: a directory, the same for
    all containers, on which its driver mounts what the runtime finds there.
    """

    op: Literal["start"]
    id: str
    bundle: str
    run_dir: str
    rootfs: list[OciMount]
    tty: bool
    stdin: bool
    stdin_once: bool
    pidns: NotRequired[str]
    cgroup: NotRequired[str]
    namespaces: NotRequired[list[str]]
    timing: NotRequired[bool]
    ahead: NotRequired[bool]
    userns: NotRequired[bool]
    runtime: NotRequired[ForeignRuntime]
    place: NotRequired[str]
    log: LogSettings


# -- what a monitor says unasked ---------------------------------------------------------------------


class MonitorState(TypedDict):
    """``started_at`` in ns since 1970, 0 before the start; ``execs``: id → pid; ``ooms``: how often memory ran out."""

    id: str
    monitor: int
    pid: int
    started_at: int
    state: str
    execs: dict[str, int]
    ooms: NotRequired[int]


class HelloEvent(MonitorState):
    """The greeting, with the descriptors of KeepRequest."""

    ev: Literal["hello"]


class CreatedEvent(TypedDict):
    """PID 1 waits for its start.  Descriptors as ChildNetwork's, or none without a network namespace of its own."""

    ev: Literal["created"]
    pid: int
    monitor: NotRequired[int]


class OutOfMemoryEvent(TypedDict):
    """Memory ran out (MonitorState has the count)."""

    ev: Literal["oom"]


class ExitRecord(TypedDict):
    """The end of a container, at ``at`` ns since 1970; also the content of ``exit.json``."""

    code: int
    at: int
    oom: bool


class ExitEvent(ExitRecord):
    """The last event: outputs are read, ``exit.json`` is written, the cgroup is gone."""

    ev: Literal["exit"]


class ExecRecord(TypedDict):
    """The end of an exec'd process; without a connection, the content of ``exec-ID.json``."""

    code: int
    at: int


class ProcessEnding(TypedDict):
    """The last frame of a client that asked for it, for whoever reads it: times in ns since 1970."""

    ExitCode: int
    OOMKilled: bool
    StartedAt: int
    FinishedAt: int


class ExecExitEvent(ExecRecord):
    """An exec'd process has ended, and its output was read."""

    ev: Literal["exec_exit"]
    exec_id: str


MonitorEvent = HelloEvent | CreatedEvent | Failed | OutOfMemoryEvent | ExitEvent | ExecExitEvent


# -- what a monitor is asked -------------------------------------------------------------------------


class RequestFields(TypedDict):
    """``seq``: the answer's number; ``by``: the time (monotonic, s) after which it must not be begun any more."""

    seq: NotRequired[int]
    by: NotRequired[float]


class StartRequest(RequestFields):
    """Let PID 1 execute its program; the answer has ``started_at``.

    ``args``: not the one that the bundle names, but this one, with these arguments (not with another runtime).
    """

    op: Literal["start"]
    args: NotRequired[list[str]]


class StreamsRequest(RequestFields):
    """The streams of a client, whose socket is the last descriptor.

    ``early``: input that came before is in a file in memory, whose descriptor stands before the socket.
    ``ending``: the last that it gets is a frame with the process's ending (`ProcessEnding`), and its connection is left
    to ketchd, which ends it.
    ``hangup``: an exec'd process is hung up when this client is gone, which has no keys to detach by.
    """

    stdin: bool
    stdout: bool
    stderr: bool
    detach_keys: NotRequired[str]
    early: NotRequired[bool]
    ending: NotRequired[bool]
    hangup: NotRequired[bool]


class LogPosition(TypedDict):
    """A place in one of the log's files."""

    inode: int
    offset: int


From = TypedDict("From", {"from": NotRequired[LogPosition | Literal["start"] | None]})


class AttachRequest(StreamsRequest, From):
    """Add a client to a process's streams.

    ``mux``: with the 8-byte headers of Docker's streams, ``frames``: in the log's own format, neither: raw.  ``bell``:
    one byte when the log has grown, none while the last one has not been read.  ``from``: first what the log has from
    there (a file that is gone means the oldest), then what comes.
    """

    op: Literal["attach"]
    exec_id: NotRequired[str | None]
    mux: NotRequired[bool]
    frames: NotRequired[bool]
    bell: NotRequired[bool]


class ExecRequest(StreamsRequest):
    """Run an additional process (an OCI process object), with or without a client; the answer has ``pid``."""

    op: Literal["exec"]
    exec_id: str
    process: OciProcess
    tty: bool
    mux: NotRequired[bool]  # without it: unless there is a terminal
    rows: NotRequired[int]
    cols: NotRequired[int]


class ResizeRequest(RequestFields):
    """Set the size of a terminal; without ``exec_id`` the container's own."""

    op: Literal["resize"]
    exec_id: NotRequired[str | None]
    rows: int
    cols: int


class KillRequest(RequestFields):
    """Send a signal; without ``exec_id`` to PID 1."""

    op: Literal["kill"]
    exec_id: NotRequired[str | None]
    signal: int


class StatusRequest(RequestFields):
    """Ask for the state; the answer has the fields of HelloEvent."""

    op: Literal["status"]


class HoldRequest(RequestFields):
    """Leave the socket of a client that waits for the exit over HTTP (see `process.waits`)."""

    op: Literal["hold"]


class KeepRequest(RequestFields):
    """Keep descriptors for the next connection."""

    op: Literal["keep"]


MonitorRequest = (
    StartRequest | AttachRequest | ExecRequest | ResizeRequest | KillRequest | StatusRequest | HoldRequest | KeepRequest
)


class Answer(TypedDict):
    """``error`` when not ``ok``; ``started_at`` of a start, ``pid`` of an exec, MonitorState's of a status.

    ``passages`` of a start that is timed: places of launcher, monitor and first process (see `failpoints`).
    """

    seq: int
    ok: bool
    error: NotRequired[Failed]
    started_at: NotRequired[int]
    pid: NotRequired[int]
    passages: NotRequired[list[Passage]]
