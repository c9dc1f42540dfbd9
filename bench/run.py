"""The benchmark's program: measures Ketch and dockerd in turn, in one run, with the same client and image.

    make bench                        a table
    make bench BENCH='--quick'        fewer rounds, fewer containers
    make bench BENCH='--format json'

Everything runs in a network namespace of its own: dockerd's docker0 and firewall rules end with it. dockerd and the
client come from the root that scripts/peers makes; without it Ketch alone is measured, by its own client. What needs
a package mirror or docker-registry is left out where there is none.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import sys
import tempfile
from typing import TYPE_CHECKING

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

from tests.support import peers  # noqa: E402
from tests.support.engines import Engine  # noqa: E402
from tests.support.registries.registries import registry  # noqa: E402
from tests.support.run.isolation import own_network  # noqa: E402

from bench import builds, buildx, measures, rootless, scale, starts, waits  # noqa: E402
from bench import images as workloads  # noqa: E402
from bench import registry as depot  # noqa: E402
from bench import sandboxes as boxes  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.registries.made_images import Made

LOGGED_BYTES = 100_000_000


class Row:
    """One line of the result: what, the goal, and the samples of each engine."""

    def __init__(
        self,
        name: str,
        unit: str,
        ratio: float | None = None,
        limit: float | None = None,
        least_ratio: float | None = None,
        least: float | None = None,
    ) -> None:
        self.name, self.unit, self.ratio_goal, self.limit = name, unit, ratio, limit
        self.least_ratio, self.least = least_ratio, least  # where more is better
        self.samples: dict[str, list[float]] = {}

    def add(self, kind: str, value: float) -> None:
        self.samples.setdefault(kind, []).append(value)

    def median(self, kind: str) -> float | None:
        return statistics.median(self.samples[kind]) if kind in self.samples else None

    @property
    def ratio(self) -> float | None:
        ours, theirs = self.median("ketch"), self.median("dockerd")
        return ours / theirs if ours is not None and theirs else None

    @property
    def goal(self) -> str:
        if self.ratio_goal is not None:
            return f"≤ {self.ratio_goal:g} ×"
        if self.least_ratio is not None:
            return f"≥ {self.least_ratio:g} ×"
        if self.least is not None:
            return f"≥ {self.least:g} {self.unit}"
        return f"≤ {self.limit:g} {self.unit}" if self.limit is not None else ""

    @property
    def met(self) -> bool | None:
        """None: there is nothing to compare with."""
        if self.ratio_goal is not None:
            return None if self.ratio is None else self.ratio <= self.ratio_goal
        if self.least_ratio is not None:
            return None if self.ratio is None else self.ratio >= self.least_ratio
        ours = self.median("ketch")
        if self.least is not None:
            return None if ours is None else ours >= self.least
        return None if self.limit is None or ours is None else ours <= self.limit

    def as_json(self) -> dict[str, object]:
        return {
            "name": self.name,
            "unit": self.unit,
            "goal": self.goal,
            "met": self.met,
            "ratio": self.ratio,
            "median": {kind: self.median(kind) for kind in self.samples},
            "samples": self.samples,
        }


def rounds(row: Row, engines: list[Engine], count: int, measure: Callable[[Engine], float], scale: float = 1000) -> Row:
    """Measure in turn: one engine, the other, and again; the first round warms up and does not count."""
    for number in range(count + 1):
        for engine in engines:
            value = measure(engine)
            if number:
                row.add(engine.kind, value * scale)
    say(row)
    return row


def say(row: Row) -> None:
    """Progress, on stderr."""
    if not row.samples:
        return
    print(f"  {row.name}: " + ", ".join(f"{k} {row.median(k):.4g} {row.unit}" for k in row.samples), file=sys.stderr)


def ready(engines: list[Engine], count: int) -> list[Row]:
    """Start and stop each daemon; leaves them running."""
    row = Row("daemon ready after start", "s", limit=0.5)
    for number in range(count + 1):
        for engine in engines:
            if engine.process is not None:
                engine.stop()
            took = engine.start()
            if number:
                row.add(engine.kind, took)
    say(row)
    return [row]


def logging(engines: list[Engine], count: int, root: str) -> list[Row]:
    """100 MB in lines of 80 bytes, logged and read back."""
    path = os.path.join(root, "lines")
    with open(path, "wb") as f:
        line = b"%09d " + b"x" * 69 + b"\n"
        for start in range(0, LOGGED_BYTES // 80, 10_000):
            f.write(b"".join(line % n for n in range(start, start + 10_000)))
    write = Row("100 MB of stdout logged", "s", ratio=0.2)
    read = Row("100 MB read back (docker logs)", "s", ratio=0.3)
    for number in range(count + 1):
        for engine in engines:
            wrote, was_read = measures.log(engine, path), measures.read_log(engine)
            if number:
                write.add(engine.kind, wrote)
                read.add(engine.kind, was_read)
    for engine in engines:
        engine.docker("rm", "-f", "talker")
    say(write)
    say(read)
    return [write, read]


def networking(engines: list[Engine], quick: bool) -> list[Row]:
    """What a network costs a start, one port among a thousand, one name."""
    many = 5 if quick else 15
    ports = 200 if quick else 1000
    cost = Row("network added to a start", "ms", limit=8)
    publish = Row(f"publish and unpublish with {ports} published", "ms", limit=5)
    names = Row("a name asked of 127.0.0.11 (p50)", "ms", limit=1)
    for engine in engines:
        cost.add(engine.kind, measures.network_cost(engine, many) * 1000)
        publish.add(engine.kind, measures.publish_one_of_many(engine, many, ports) * 1000)
        names.add(engine.kind, measures.name_lookup(engine, 1000) * 1000)
    for row in (cost, publish, names):
        say(row)
    return [cost, publish, names]


def left_out(what: str, why: str) -> list[Row]:
    """Say on stderr that there are no rows of ``what``."""
    print(f"  {what}: left out, {why}", file=sys.stderr)
    return []


def parts(engines: list[Engine], quick: bool, root: str, debian: str) -> dict[str, Callable[[], list[Row]]]:
    """Every measurement, by the name that ``--only`` knows; the engines run afterwards still."""
    return {
        "runs": lambda: runs(engines, quick),
        "starts": lambda: starting(engines, quick),
        "sandboxes": lambda: sandboxes(engines, quick),
        "rootless": lambda: without_rights(engines[0], 5 if quick else 21, root),
        "logs": lambda: logging(engines, 1 if quick else 3, root),
        "networks": lambda: networking(engines, quick),
        "images": lambda: images(engines, quick, root, debian),
        "registry": lambda: registries(quick),
        "builds": lambda: building(engines, quick, root),
        "buildx": lambda: building_by_buildx(engines, quick, root),
        "stops": lambda: stopping(engines, 5 if quick else 20),
        "scale": lambda: at_scale(engines, quick),
        "client": lambda: command_lines(engines[0], 10 if quick else 40),
        "waits": lambda: waiting(engines, quick, root),  # the last one: it prunes the images that the others use
    }


def runs(engines: list[Engine], quick: bool) -> list[Row]:
    """Containers that end at once, one at a time and several, and programs in one that goes on."""
    many, few = (5, 1) if quick else (20, 3)
    rows = [
        rounds(Row("docker --version, the client alone", "ms"), engines[:1], many, measures.client_alone),
        rounds(Row("a start by the API alone", "ms", ratio=0.25), engines, many, measures.start_by_api),
        rounds(Row("docker run --rm busybox true", "ms", ratio=0.25), engines, many, measures.run),
    ]
    for engine in engines:
        engine.docker("run", "-d", "--name", "box", "busybox", "sleep", "10000")
    rows.append(rounds(Row("docker exec box true", "ms", ratio=0.5), engines, many, measures.execute))
    for engine in engines:
        engine.docker("rm", "-f", "box")
    rows.append(rounds(Row("each of 40 runs, 8 at a time", "ms", ratio=0.25), engines, few, measures.forty_runs))
    return rows


def starting(engines: list[Engine], quick: bool) -> list[Row]:
    """Starts by the API, of which the slowest count as well, and by the OCI command line."""
    count, at_once = (50, 32) if quick else (200, 32)
    rows = []
    for network, name in (("none", "without a network"), ("bridge", "with one")):
        median = Row(f"{count} starts by the API {name}, p50", "ms", limit=8)
        slow = Row("the same, p99", "ms", limit=16)
        for engine in engines:
            starts.in_turn(engine, 3, network)
            took = starts.in_turn(engine, count, network)
            median.add(engine.kind, starts.percentile(took, 0.5) * 1000)
            slow.add(engine.kind, starts.percentile(took, 0.99) * 1000)
        rows += [median, slow]
    together = Row(f"{at_once} starts at once, p50", "ms", ratio=0.25)
    for number in range(2 if quick else 6):
        for engine in engines:
            took = starts.at_once(engine, at_once)
            if number:
                together.add(engine.kind, starts.percentile(took, 0.5) * 1000)
    rows.append(together)
    found = starts.by_command_line(10 if quick else 40)
    for name, goal in (("runc", 0.5), ("crun", 1.5)):
        if name not in found or "ketch-runtime" not in found:
            rows += left_out(f"ketch-runtime beside {name}", "it runs nothing here")
            continue
        row = Row(f"ketch-runtime run of true beside {name}", "ms", ratio=goal)
        row.add("ketch", found["ketch-runtime"] * 1000)
        row.add("dockerd", found[name] * 1000)
        rows.append(row)
    for row in rows:
        say(row)
    return rows


def sandboxes(engines: list[Engine], quick: bool) -> list[Row]:
    """Programs in sandboxes, from Python: by an engine of the program's own, and by docker-py."""
    count = 50 if quick else 200
    rows: dict[str, Row] = {}

    def measure(kind: str, what: str, goal: dict[str, float], work: Callable[[], object]) -> None:
        took = boxes.in_turn(work, count)
        for part, name, limits in ((0.5, f"{count} x {what}, p50", goal), (0.99, f"{what}, p99", {"ratio": 0.25})):
            rows.setdefault(name, Row(name, "ms", **limits)).add(kind, starts.percentile(took, part))

    for engine in engines:
        boxes.add_image(engine)
    with tempfile.TemporaryDirectory(prefix="kb-") as state:
        for engine in engines:
            with boxes.own(engine, state) if engine.kind == "ketch" else boxes.theirs(engine) as ways:
                measure(engine.kind, "start of a sandbox", {"limit": 10}, ways.start)
                measure(engine.kind, "true in a sandbox", {"limit": 10}, ways.true)
                measure(engine.kind, "python -c 1 in a sandbox", {"ratio": 0.25}, ways.python)
                measure(engine.kind, "exec of true in one", {"ratio": 0.25}, ways.execute)
    for row in rows.values():
        say(row)
    return list(rows.values())


def without_rights(engine: Engine, count: int, root: str) -> list[Row]:
    """A run by a user's daemon, and by podman; in turn, and the first ones warm up."""
    if peers.MISSING:
        return left_out("runs of users", "there is no podman")
    archive = os.path.join(root, "busybox.tar")
    engine.docker("save", "-o", archive, "busybox")
    os.chmod(root, 0o711)
    os.chmod(archive, 0o644)
    row = Row("rootless run --rm busybox true, beside podman", "ms", ratio=0.25)
    with rootless.ketch() as ours, rootless.podman(root, archive) as theirs:
        for number in range(count + 1):
            for kind, run in (("ketch", ours), ("dockerd", theirs)):
                took = run() * 1000
                if number:
                    row.add(kind, took)
    say(row)
    return [row]


def images(engines: list[Engine], quick: bool, root: str, debian: str) -> list[Row]:
    """Pull, load, save, push and rmi of an image with many files and of one with large layers."""
    if shutil.which("docker-registry") is None:
        return left_out("images", "there is no docker-registry")
    count = 1 if quick else 5
    rows = []
    makers: list[tuple[str, Callable[[], Made]]] = [("8 x 50 MB", workloads.large_layers)]
    if debian:
        makers.insert(0, ("12 000 files", lambda: workloads.many_files(debian)))
    with registry() as one:
        for name, make in makers:
            made = make()
            work = workloads.Workload(name.replace(" ", "").lower(), one.host, root, made)
            del made
            verbs: list[tuple[str, float | None, Callable[[Engine], float]]] = [
                ("pull", 0.33, work.pull),
                ("save", 0.5, work.save),
                ("load", 0.33, work.load),
                ("push", 0.5, work.push),
                ("rmi", None, work.remove),
            ]
            for verb, goal, measure in verbs:
                if verb == "load":
                    engines[-1].docker("save", "-o", work.archive, work.ref)
                rows.append(rounds(Row(f"{verb}, {name}", "s", ratio=goal), engines, count, _settled(measure), 1))
            peak = Row(f"peak memory of pull, {name}", "MiB", limit=200)
            peak.add("ketch", work.peak)
            rows.append(peak)
            os.unlink(work.archive)
    return rows


def building(engines: list[Engine], quick: bool, root: str) -> list[Row]:
    """Builds: cold, unchanged, with one change; commit; memory."""
    count = 2 if quick else 5
    rows: list[Row] = []

    def add(name: str, ratio: float | None, measure: Callable[[Engine], float], limit: float | None = None) -> None:
        rows.append(rounds(Row(name, "s", ratio=ratio, limit=limit), engines, count, _settled(measure), 1))

    steps = builds.twelve_steps(root)
    add("build of 12 steps, cold", 0.12, lambda engine: builds.cold(steps, engine))
    add("the same, unchanged", 0.3, steps.build)
    add("the same by the old API, cold", None, lambda engine: builds.cold_by_old_api(steps, engine))
    add("the same by the old API, unchanged", None, steps.build_by_old_api)
    steps.remove()
    files = builds.many_files(root)
    add("COPY of 20 000 files, cold", 0.4, lambda engine: builds.cold(files, engine))
    add("the same, unchanged", 0.25, files.build)
    add("the same, one changed", 0.3, lambda engine: builds.one_changed(files, engine))
    files.remove()
    large = builds.large_file(root)
    add("COPY of 500 MB, cold", 0.5, lambda engine: builds.cold(large, engine))
    large.remove()
    stages = builds.two_stages(root)
    add("two stages of 2 s", None, lambda engine: builds.stages(stages, engine), 2.2)
    stages.remove()
    add("commit of 200 MB", 0.5, builds.commit)
    for engine in engines:
        builds.forget(engine)
    peak = Row("peak memory of a build with a context of 2 GB", "MiB", limit=150)
    peak.add("ketch", builds.peak_of_large_context(root, engines[0]))
    say(peak)
    return [*rows, peak]


def building_by_buildx(engines: list[Engine], quick: bool, root: str) -> list[Row]:
    """The same command of the same client on both: BuildKit's protocol."""
    if peers.MISSING:
        return left_out("builds by buildx", "there is no buildx")
    count = 2 if quick else 5
    rows: list[Row] = []

    def add(name: str, ratio: float | None, measure: Callable[[Engine], float]) -> None:
        rows.append(rounds(Row(f"buildx: {name}", "s", ratio=ratio), engines, count, _settled(measure), 1))

    rows.append(rounds(Row("docker buildx version, the client alone", "s"), engines[:1], count, buildx.client_alone, 1))
    steps = builds.twelve_steps(root)
    add("12 steps, cold", 0.2, lambda engine: buildx.cold(steps, engine))
    add("the same, unchanged", 0.8, lambda engine: buildx.build(steps, engine))
    steps.remove()
    files = builds.many_files(root)
    add("COPY of 20 000 files, cold", 0.9, lambda engine: buildx.cold(files, engine))
    add("the same, unchanged", 0.8, lambda engine: buildx.build(files, engine))
    add("the same, one changed", 0.3, lambda engine: buildx.one_changed(files, engine))
    files.remove()
    large = builds.large_file(root)
    add("COPY of 500 MB, cold", 1, lambda engine: buildx.cold(large, engine))
    large.remove()
    several = buildx.Several(root)
    add("10 builds at once", None, several.at_once)
    rows += _memory_of_builds(engines, several)
    several.remove()
    for engine in engines:
        builds.forget(engine)
    return rows


def _memory_of_builds(engines: list[Engine], several: buildx.Several) -> list[Row]:
    """What the daemon keeps of a hundred builds, beyond what it has after the first thirty."""
    resident = Row("buildx: RSS of the daemon after 130 builds", "MiB")
    grown = Row("buildx: its growth by the last 100", "MiB", limit=5)
    for engine in engines:
        before = several.memory_after(engine, 30)
        after = several.memory_after(engine, 100)
        resident.add(engine.kind, after)
        grown.add(engine.kind, after - before)
    for row in (resident, grown):
        say(row)
    return [resident, grown]


def registries(quick: bool) -> list[Row]:
    """Our registry and docker-registry (in dockerd's column); more is better."""
    if shutil.which("docker-registry") is None:
        return left_out("registries", "there is no docker-registry")
    blobs = Row("registry: 4 clients, 100 MB blob", "MB/s", least_ratio=0.8)
    small = Row("registry: small manifests a second", "/s", least=1000)
    with depot.both() as found:
        for number in range(2 if quick else 4):
            for kind, one in found:
                for row, measure in ((blobs, depot.pulls), (small, depot.manifests)):
                    value = measure(one)
                    if number:
                        row.add(kind, value)
    say(blobs)
    say(small)
    return [blobs, small]


def _settled(measure: Callable[[Engine], float]) -> Callable[[Engine], float]:
    """Each begins with a disk that has nothing to do."""

    def settled(engine: Engine) -> float:
        workloads.settle()
        return measure(engine)

    return settled


def stopping(engines: list[Engine], count: int) -> list[Row]:
    """Stop and start again: what ends when it is asked, and what has to be killed."""
    rows = []
    for polite, name in ((True, "stop + start, ends at SIGTERM"), (False, "stop -t 0 + start, sleep as PID 1")):
        cycle = scale.Cycle(polite)
        for engine in engines:
            cycle.make(engine)
        rows.append(rounds(Row(name, "ms", ratio=0.25), engines, count // 2, cycle))
        for engine in engines:
            engine.docker("rm", "-f", cycle.name)
    return rows


def at_scale(engines: list[Engine], quick: bool) -> list[Row]:
    """Memory, counters, listing and a restart, with a hundred containers and with five hundred."""
    some, all_, seconds = (20, 50, 5.0) if quick else (100, 500, 20.0)
    memory = Row(f"monitor PSS at {some} containers", "MiB", limit=2)
    one_stream = Row(f"stats of {some} in one stream, CPU", "%", limit=5)
    streams = Row(f"docker stats of {some}, CPU", "%")
    resident = Row(f"daemon RSS, {all_} running", "MiB", limit=150)
    beneath = Row(f"a start by the API beneath {all_} running", "ms", limit=8)
    again = Row(f"daemon restarted beneath {all_}", "s")
    for engine in engines:
        scale.start(engine, 0, some)
        memory.add(engine.kind, scale.memory_of_monitors(engine))
        streams.add(engine.kind, scale.cpu_of_stats(engine, "docker", seconds))
        if engine.kind == "ketch":
            one_stream.add(engine.kind, scale.cpu_of_stats(engine, "ketch", seconds))
        scale.start(engine, some, all_)
        resident.add(engine.kind, scale.memory_of_daemon(engine))
        for took in starts.in_turn(engine, 20, "bridge"):
            beneath.add(engine.kind, took * 1000)
    rows = [memory, one_stream, streams, resident, again, beneath]
    count = 3 if quick else 9
    # No goal: most of it is the client's own work, its start and the drawing of the rows.
    rows.append(rounds(Row(f"docker ps -a, {all_} containers", "ms"), engines, count, scale.list_by_client))
    rows.append(rounds(Row("the same by the API alone", "ms", ratio=0.5), engines, count, scale.list_by_api))
    for engine in engines:
        for _ in range(1 if quick else 3):
            again.add(engine.kind, scale.restart(engine))
        scale.remove(engine)
    for row in rows[:6]:
        say(row)
    return rows


def waiting(engines: list[Engine], quick: bool, root: str) -> list[Row]:
    """The longest ping while others' files, a hundred thousand of them, are worked on."""
    rows: dict[str, Row] = {}
    for title, kind, value in waits.longest(engines, root, quick):
        rows.setdefault(title, Row(title, "ms", limit=waits.LIMIT_MS)).add(kind, value)
    for row in rows.values():
        say(row)
    return list(rows.values())


def command_lines(engine: Engine, count: int) -> list[Row]:
    """The commands of `ketch` beside those of `docker` (in dockerd's column), both with ketchd."""
    if peers.MISSING:
        return left_out("the command lines", "there is no docker client")
    rows = []
    for args in (("version",), ("ps",), measures.RUN):
        row = Row(f"ketch {' '.join(args)} beside docker's", "ms", ratio=1.2)
        for number in range(count + 1):
            for kind, client in (("ketch", engine.ketch), ("dockerd", engine.docker)):
                took = measures.timed(client, *args)
                if number:
                    row.add(kind, took * 1000)
        say(row)
        rows.append(row)
    return rows


def share_image(engines: list[Engine]) -> None:
    """The same busybox for all: bootstrapped by the first, loaded by the others."""
    engines[0].add_busybox()
    with tempfile.TemporaryDirectory() as root:
        engines[0].docker("save", "-o", f"{root}/busybox.tar", "busybox")
        for engine in engines[1:]:
            engine.docker("load", "-i", f"{root}/busybox.tar")


def versions(engines: list[Engine]) -> str:
    """What is compared, and by which client; the engines run."""
    with contextlib.closing(engines[-1].py()) as client:
        parts = {part["Name"]: part["Version"] for part in client.version()["Components"]}
    if len(engines) == 1:
        return f"Ketch {parts['Engine']}"
    client_version = engines[0].docker("version", "-f", "{{.Client.Version}}").out.strip()
    theirs = f"dockerd {parts['Engine']}, containerd {parts['containerd']}, runc {parts['runc']}"
    return f"{theirs}; client {client_version}, Linux {os.uname().release}"


def table(rows: list[Row], heading: str) -> str:
    """Goals beside what was measured."""
    lines = [heading, f"{'':44} {'goal':>10} {'ketch':>12} {'dockerd':>12} {'ratio':>7}"]
    for row in rows:
        medians = [row.median(kind) for kind in ("ketch", "dockerd")]
        cells = ["–" if median is None else f"{median:.3g} {row.unit}" for median in medians]
        ratio = "–" if row.ratio is None else f"{row.ratio:.2f}"
        mark = {True: "✓", False: "✗ missed", None: ""}[row.met]
        lines.append(f"{row.name:44} {row.goal:>10} {cells[0]:>12} {cells[1]:>12} {ratio:>7} {mark}")
    return "\n".join(lines)


def _remove_containers(engine: Engine) -> None:
    if engine.process is not None:
        engine.remove_all()


def main() -> int:
    """Measure and print; 0 also when a goal is missed, for machines differ."""
    parser = argparse.ArgumentParser(description="Measure Ketch beside dockerd.")
    parser.add_argument("--format", choices=("table", "json"), default="table")
    parser.add_argument("--quick", action="store_true", help="fewer rounds and containers")
    parser.add_argument("--debian", metavar="TAR", help="use this root filesystem instead of making one")
    parser.add_argument("--only", metavar="PART", help=f"this part alone: {', '.join(parts([], True, '', ''))}")
    parser.add_argument("--no-dockerd", action="store_true", help="measure Ketch alone")
    options = parser.parse_args()
    if options.only and options.only not in parts([], True, "", ""):
        parser.error(f"there is no part {options.only}")
    if os.geteuid() != 0:
        raise SystemExit("make bench: containers need root here")
    with contextlib.ExitStack() as undo:
        root = undo.enter_context(tempfile.TemporaryDirectory(prefix="kb-"))
        debian = options.debian or ""
        if not debian and options.only in (None, "images"):
            debian = workloads.debian(os.path.join(root, "debian.tar"))
            if not debian:
                left_out("an image with many files", "no package mirror answers")
        own_network()
        engines = [Engine("ketch")]
        if peers.MISSING:
            print(f"  {peers.MISSING}", file=sys.stderr)
            engines[0].docker = engines[0].ketch
        elif not options.no_dockerd:
            engines.append(Engine("dockerd", suffix="b"))
            engines[-1].extra = ["--live-restore"]  # else its containers end with it
        for engine in engines:
            undo.callback(engine.delete)
            undo.callback(_remove_containers, engine)
        rows = ready(engines, 1 if options.only else 2 if options.quick else 4)
        heading = versions(engines)
        share_image(engines)
        chosen = parts(engines, options.quick, root, debian)
        for part in [options.only] if options.only else chosen:
            rows += chosen[part]()
    print(json.dumps([row.as_json() for row in rows], indent=1) if options.format == "json" else table(rows, heading))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
