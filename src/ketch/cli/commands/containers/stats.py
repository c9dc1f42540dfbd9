"""``stats``: resource usage of containers, redrawn every second or printed once."""

from __future__ import annotations

import threading
import time

from ketch import printable
from ketch.cli.options.flags import FORMAT, FlagSet
from ketch.cli.output.listing import Listing
from ketch.client.http import Client
from ketch.errors import KetchError, NotFound
from ketch.notation.sizes import human_bytes, human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ketch.cli.context import Context
    from ketch.cli.options.flags import Options
    from ketch.cli.output.listing import Row
    from ketch.cli.top.rows import ContainerUsage
    from ketch.notation.api_objects import ApiObject


_COLUMNS = [
    ("CONTAINER ID", "ID"),
    ("NAME", "Name"),
    ("CPU %", "CPUPerc"),
    ("MEM USAGE / LIMIT", "MemUsage"),
    ("MEM %", "MemPerc"),
    ("NET I/O", "NetIO"),
    ("BLOCK I/O", "BlockIO"),
    ("PIDS", "PIDs"),
]
_LISTING = Listing(_COLUMNS, {"Container": "CONTAINER"})
_REDRAW_S = 0.5
_FIRST_S = 10


def cmd_stats(args: list[str], ctx: Context) -> int:
    """A live table of resource usage."""
    spec = FlagSet(
        "stats", "ketch stats [OPTIONS] [CONTAINER...]", "Display a live stream of resource usage statistics"
    )
    spec.bool("all", "a", "also those that do not run").string("format", "", FORMAT)
    spec.bool("no-stream", "", "only the first result").bool("no-trunc", "", "whole ids")
    opts, rest = spec.parse(args)
    for rows in _tables(ctx, rest, opts):
        text = _LISTING.text(rows, opts["format"])
        if not opts["no-stream"] and ctx.out.isatty():
            ctx.out.write(_redrawn(printable.lines(text)))
        else:
            ctx.show(text)
        ctx.out.flush()
    return 0


def _tables(ctx: Context, refs: list[str], opts: Options) -> Iterator[list[Row]]:
    """The rows of each table: from Ketch's single stream, else from Docker's streams for each container."""
    query = {"container": refs, "all": opts["all"], "stream": not opts["no-stream"]}
    try:
        lines = ctx.client().request("GET", "/ketch/stats", query, stream=True).stream_lines()
    except NotFound as e:
        if e.kind:  # a daemon that says which kind an error is of has the stream: it is a container that is not there
            raise
        yield from _by_container(ctx, refs, opts)
        return
    for line in lines:
        yield [line_row(refs, usage, whole=opts["no-trunc"]) for usage in line["containers"]]


def _by_container(ctx: Context, refs: list[str], opts: Options) -> Iterator[list[Row]]:
    watch = _Watch(ctx.host, stream=not opts["no-stream"])
    if refs:
        _check(ctx, refs)
    while True:
        watch.follow(refs or _all(ctx, everything=opts["all"]))
        watch.wait(_FIRST_S)
        yield [row(ref, r, whole=opts["no-trunc"]) for ref, r in watch.readings()]
        if opts["no-stream"]:
            return
        time.sleep(_REDRAW_S)


def _redrawn(text: str) -> str:
    """Redraw line by line, without flicker."""
    return "\033[H" + text.replace("\n", "\033[K\n") + "\033[J"


def _all(ctx: Context, *, everything: bool) -> list[str]:
    return [c["Id"][:12] for c in ctx.client().request("GET", "/containers/json", {"all": everything}).json()]


def _check(ctx: Context, refs: list[str]) -> None:
    for ref in refs:
        ctx.client().request("GET", f"/containers/{ref}/json").read()


class _Watch:
    """The newest reading of each container, from a thread with its own connection."""

    def __init__(self, host: str, *, stream: bool) -> None:
        self._host = host
        self._stream = stream
        self._changed = threading.Condition()  # guards the two below
        self._order: list[str] = []
        self._newest: dict[str, ApiObject | None] = {}

    def follow(self, refs: list[str]) -> None:
        """Set the containers to show, in order."""
        with self._changed:
            new = [ref for ref in refs if ref not in self._newest]
            self._order = refs
            self._newest = {ref: self._newest.get(ref) for ref in refs}
        for ref in new:
            threading.Thread(target=self._read, args=(ref,), daemon=True).start()

    def _read(self, ref: str) -> None:
        try:
            query = {"stream": self._stream}
            response = Client(self._host).request("GET", f"/containers/{ref}/stats", query, stream=True)
            for number, reading in enumerate(response.stream_lines()):
                if not self._stream or number or not _moves(reading):  # the first one has nothing to compare with
                    self._put(ref, reading)
                if ref not in self._newest:
                    response.close()
                    return
        except (KetchError, OSError):
            self._put(ref, {})

    def _put(self, ref: str, reading: ApiObject) -> None:
        with self._changed:
            if ref in self._newest:
                self._newest[ref] = reading
                self._changed.notify_all()

    def wait(self, timeout_s: float) -> None:
        """Wait until each container has a reading, or has ended."""
        with self._changed:
            self._changed.wait_for(lambda: all(r is not None for r in self._newest.values()), timeout_s)

    def readings(self) -> list[tuple[str, ApiObject]]:
        """The readings as (requested name, reading), in order, without containers that are gone."""
        with self._changed:
            return [(ref, r) for ref in self._order if (r := self._newest.get(ref)) and r.get("id")]


def _moves(reading: ApiObject) -> bool:
    """Whether a second reading follows, to compare this one with."""
    return bool((reading.get("cpu_stats") or {}).get("cpu_usage", {}).get("total_usage"))


def row(ref: str, reading: ApiObject, *, whole: bool) -> Row:
    """A reading of Docker's in the fields of Docker's ``--format``."""
    memory = reading.get("memory_stats") or {}
    read_bytes, written_bytes = _blocks(reading)
    usage: ContainerUsage = {
        "id": reading["id"],
        "name": reading["name"].lstrip("/"),
        "cpu_percent": cpu_percent(reading),
        "memory_bytes": memory_used(memory),
        "memory_limit_bytes": memory.get("limit") or 0,
        "networks": reading.get("networks") or {},
        "pids": (reading.get("pids_stats") or {}).get("current", 0),
        "read_bytes": read_bytes,
        "written_bytes": written_bytes,
    }
    return _fields(ref, usage, whole=whole)


def line_row(refs: list[str], usage: ContainerUsage, *, whole: bool) -> Row:
    """One container of a line of ``/ketch/stats``, under the requested name."""
    asked = next((r for r in refs if r.lstrip("/") == usage["name"] or usage["id"].startswith(r)), usage["id"][:12])
    return _fields(asked, usage, whole=whole)


def _fields(ref: str, usage: ContainerUsage, *, whole: bool) -> Row:
    cpu, used, limit = usage["cpu_percent"], usage["memory_bytes"], usage["memory_limit_bytes"]
    received = sum(n["rx_bytes"] for n in usage["networks"].values())
    sent = sum(n["tx_bytes"] for n in usage["networks"].values())
    return {
        "BlockIO": f"{human_size(usage['read_bytes'])} / {human_size(usage['written_bytes'])}",
        "CPUPerc": "--" if cpu is None else f"{cpu:.2f}%",
        "Container": ref,
        "ID": usage["id"] if whole else usage["id"][:12],
        "MemPerc": f"{100 * used / limit if limit else 0:.2f}%",
        "MemUsage": f"{human_bytes(used)} / {human_bytes(limit)}",
        "Name": usage["name"],
        "NetIO": f"{human_size(received)} / {human_size(sent)}",
        "PIDs": str(usage["pids"]),
    }


def memory_used(memory: ApiObject) -> int:
    """Usage without the page cache that the kernel can take back, as Docker counts it."""
    usage, stats = memory.get("usage", 0), memory.get("stats") or {}
    for key in ("total_inactive_file", "inactive_file"):
        if 0 < stats.get(key, 0) < usage:
            return int(usage - stats[key])
    return int(usage)


def cpu_percent(reading: ApiObject) -> float:
    """Share of one CPU between the two samples of a reading, in percent."""
    now, before = reading.get("cpu_stats") or {}, reading.get("precpu_stats") or {}
    used = now.get("cpu_usage", {}).get("total_usage", 0) - before.get("cpu_usage", {}).get("total_usage", 0)
    machine = now.get("system_cpu_usage", 0) - before.get("system_cpu_usage", 0)
    if used <= 0 or machine <= 0:
        return 0.0
    return float(100.0 * used / machine * (now.get("online_cpus") or 1))


def _blocks(reading: ApiObject) -> tuple[int, int]:
    totals = {"read": 0, "write": 0}
    for entry in (reading.get("blkio_stats") or {}).get("io_service_bytes_recursive") or ():
        if entry["op"].lower() in totals:
            totals[entry["op"].lower()] += entry["value"]
    return totals["read"], totals["write"]
