"""What may be called from where: no coroutine calls what may take long, nor what calls it, for the event loop belongs
to everybody; and trees of any depth are walked by one module alone.
"""

from __future__ import annotations

import ast

import pytest

from tests.support.source.callgraph import Graph

# Calls that walk or remove a tree, hash, compress, bring things to the disk, wait for others, or start programs.
BLOCKING = frozenset(
    (
        "time.sleep",
        "os.fsync",
        "os.fdatasync",
        "os.sync",
        "os.sendfile",
        "os.copy_file_range",
        "os.waitpid",
        "os.system",
        "shutil.copyfileobj",
        "shutil.copy",
        "shutil.copytree",
        "shutil.rmtree",
        "shutil.move",
        "os.walk",
        "os.fwalk",
        "subprocess.run",
        "subprocess.call",
        "subprocess.check_call",
        "subprocess.check_output",
        "socket.create_connection",
        "socket.getaddrinfo",
        "urllib.request.urlopen",
        "hashlib.file_digest",
        "tarfile.open",
        "gzip.open",
        "ketch.linux.openat2.syncfs",
        "ketch.trees.remove",
        "ketch.trees.remove_path",
        "ketch.trees.Descent",
        "ketch.storage.archive.compression.reader",
        "ketch.storage.archive.tar.TarReader",
    )
)
METHODS = frozenset((".walk", ".exception", ".result", ".join"))  # of trees, futures, threads, when no other is meant
CGROUP_METHODS = ("freeze", "kill", "update")  # the kernel waits for processes, or frees memory
THREAD_LIKE = ("thread", "future", "process", "job", "worker", "pool")

_BEFORE_CLIENTS = "at the daemon's start, or end: nobody is served"
_OF_DEV = "/dev of the host, for a privileged container: some hundred entries of a memory file system"
_LAUNCHER = (
    "the launcher starts once, and again when it was killed: a copy of the interpreter in memory, some milliseconds"
)
_DONE = "it has ended"
_OWN_THREAD = "it is what a thread waits with, which has no event loop"
_IN_PIECES = "a generator, which a thread reads while its pieces are sent"
EXCEPTIONS: dict[tuple[str, str], str] = {  # (who calls, whom): why it may
    ("ketch.daemon.main:serve", "ketch.daemon.listen:addresses"): _BEFORE_CLIENTS,
    ("ketch.daemon.main:serve", "ketch.daemon.listen:data_lock"): _BEFORE_CLIENTS,
    ("ketch.daemon.main:serve", "ketch.daemon.listen:exec_lock"): _BEFORE_CLIENTS,
    ("ketch.daemon.main:serve", "ketch.daemon.listen:pid_file"): _BEFORE_CLIENTS,
    ("ketch.daemon.main:serve", "ketch.daemon.parent_cgroup:made_here"): _BEFORE_CLIENTS,
    ("ketch.daemon.main:serve", "ketch.runtime.cgroups.monitors:remove"): _BEFORE_CLIENTS,
    ("ketch.daemon.wiring:build", "ketch.daemon.wiring:_database"): _BEFORE_CLIENTS,
    ("ketch.daemon.wiring:build", "ketch.daemon.wiring:_parts"): _BEFORE_CLIENTS,
    ("ketch.daemon.wiring:build", "ketch.images.store:ImageStore.close"): _BEFORE_CLIENTS,
    ("ketch.engine.spec.bundle:devices", "ketch.engine.spec.bundle:_host_devices"): _OF_DEV,
    ("ketch.engine.spec.bundle:devices", "ketch.engine.spec.bundle:_device_paths"): _OF_DEV,
    ("ketch.engine.monitors.launcher:Launcher._spawn", "ketch.runtime.process.zygote:spawn"): _LAUNCHER,
    ("ketch.aio.images:Images.build", "ketch.aio.images:_context"): _IN_PIECES,
    ("ketch.aio.waiting:Blocking.sleep", "time.sleep"): _OWN_THREAD,
    ("ketch.engine.monitors.link:MonitorConnection._call", "future.result"): _DONE,
    ("ketch.images.transfer.layers:_Unpacking._ended", "future.result"): _DONE,
    ("ketch.storage.snapshots.overlay:OverlaySnapshots.mounts", "ketch.storage.snapshots.volatile:make_mountable"): (
        "removes overlay's own mark, a directory in a directory"
    ),
}


@pytest.fixture(scope="module")
def graph() -> Graph:
    return Graph()


@pytest.fixture(scope="module")
def found(graph):
    return blocking(graph)


def blocks(text: str) -> bool:
    receiver, _, method = text.rpartition(".")
    if text in BLOCKING:
        return True
    if method in CGROUP_METHODS and (receiver.endswith("cgroup") or "cgroups.of(" in receiver):
        return True
    return "." + method in METHODS and receiver.rpartition(".")[2].strip("_").endswith(THREAD_LIKE)


def hit_of(call: ast.Call, text: str, targets: list[str], found: dict[str, str]) -> str | None:
    """What a call means that blocks."""
    if text.endswith(".transaction"):  # without an fsync it is a write to the page cache
        later = any(k.arg == "durable" and ast.unparse(k.value) == "False" for k in call.keywords)
        return None if later else next((t for t in targets if t in found), None)
    return next((t for t in targets if t in found), text if blocks(text) else None)


def blocking(graph: Graph) -> dict[str, str]:
    """The plain functions that block, each with what it calls that does."""
    found: dict[str, str] = {}
    calls = {key: graph.calls(key) for key in graph.functions}
    while True:
        before = len(found)
        for key, made in calls.items():
            if key in found or isinstance(graph.functions[key], ast.AsyncFunctionDef):
                continue
            for call, text, targets in made:
                hit = hit_of(call, text, targets, found)
                if hit and (key, hit) not in EXCEPTIONS:
                    found[key] = hit
                    break
        if len(found) == before:
            return found


def why(key: str, found: dict[str, str]) -> str:
    steps = [key]
    while steps[-1] in found:
        steps.append(found[steps[-1]])
    return " → ".join(step.removeprefix("ketch.") for step in steps)


def violations(graph: Graph, found: dict[str, str]) -> dict[tuple[str, str], str]:
    wrong = {}
    for key, node in graph.functions.items():
        if isinstance(node, ast.AsyncFunctionDef):
            for call, text, targets in graph.calls(key):
                hit = hit_of(call, text, targets, found)
                if hit:
                    wrong[key, hit] = f"line {call.lineno}: {why(hit, found)}"
    return wrong


def test_exceptions_are_needed(graph):
    """Each names a call that is there still."""
    made = {(key, hit) for key in graph.functions for _, text, targets in graph.calls(key) for hit in (*targets, text)}
    assert set(EXCEPTIONS) - made == set()


@pytest.mark.parametrize(
    ("caller", "callee"),
    [
        ("ketch.engine.volumes.store:VolumeStore._remove_files", "ketch.storage.removal:remove_tree"),
        (
            "ketch.engine.files.directories:ContainerDirectories.remove",
            "ketch.storage.snapshots.vfs:VfsSnapshots.remove",
        ),
        ("ketch.images.gc:GarbageCollector.sync", "ketch.storage.content.store:ContentStore.sync"),
    ],
)
def test_chains_are_found(graph, found, caller, callee):
    """The rule sees through names, modules and attributes: what blocks is known to."""
    assert caller in found
    assert callee in found
    assert any(callee in targets for _, _, targets in graph.calls(caller))


def test_no_coroutine_blocks(graph, found):
    wrong = {place: chain for place, chain in violations(graph, found).items() if place not in EXCEPTIONS}
    assert wrong == {}, "\n".join(f"{place[0]}: {chain}" for place, chain in wrong.items())


RECURSIVE = {"rmtree", "copytree", "os.walk", "os.fwalk", "rglob"}


def test_nothing_else_walks_trees(graph):
    """Whoever lists directories does not call itself, and nobody uses what recurses or goes by paths."""
    wrong = []
    calls = {key: graph.calls(key) for key in graph.functions}
    for key, made in calls.items():
        wrong += [f"{key}: {text}" for _, text, _ in made if text in RECURSIVE or text.rpartition(".")[2] in RECURSIVE]
        if any(text in ("os.listdir", "os.scandir") for _, text, _ in made):
            reached, fresh = set(), {target for _, _, targets in made for target in targets}
            while fresh:
                reached |= fresh
                fresh = {t for one in fresh for _, _, targets in calls[one] for t in targets} - reached
            if key in reached:
                wrong.append(f"{key}: calls itself")
    assert wrong == []
