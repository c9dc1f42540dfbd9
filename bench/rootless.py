"""Measurements of runs without rights: Ketch's daemon of a user, and podman of the same user."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from typing import TYPE_CHECKING

from tests.support import peers
from tests.support.run import daemons, unprivileged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Files that know the user, over those of podman's root; it must be the root of the mount that they are in.
_PREPARE = """
    for file in passwd group subuid subgid; do
        { cat /etc/$file; cat "$1/$file"; } >/run/$file
        chmod 644 /run/$file
        mount --bind /run/$file /etc/$file
    done
    mkdir -m 700 /run/user
    chown "$2:$2" /run/user
    echo ready
    exec sleep 100000
"""


@contextlib.contextmanager
def ketch() -> Iterator[Callable[[], float]]:
    """Runs by `ketch` and a user's daemon."""
    with daemons.one_of_its_own("u") as engine:
        engine.rootless()
        engine.start()
        engine.add_busybox()
        yield lambda: _timed(lambda: engine.ketch("run", "--rm", "busybox", "true"))


@contextlib.contextmanager
def podman(root: str, archive: str) -> Iterator[Callable[[], float]]:
    """Runs by podman with runc, as a user of the peers' root; ``archive`` has the image."""
    home = os.path.join(root, "podman")
    os.mkdir(home, 0o700)
    os.chown(home, unprivileged.UID, unprivileged.UID)
    for path, line in unprivileged.LINES.items():
        with open(os.path.join(root, os.path.basename(path)), "w", encoding="utf-8") as f:
            f.write(line)
    command = peers.command("sh", "-euc", _PREPARE, "sh", root, str(unprivileged.UID), network=True)
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n"
        namespaces = peers.Namespaces(holder.pid)
        identity = [f"--reuid={unprivileged.UID}", f"--regid={unprivileged.UID}", "--clear-groups", "--inh-caps=-all"]
        variables = [f"HOME={home}", "XDG_RUNTIME_DIR=/run/user", f"USER={unprivileged.NAME}"]
        # crun refuses machines that have both versions of cgroups.
        options = ["--runtime", "runc", "--cgroup-manager", "cgroupfs", "--events-backend", "file"]
        program = ["setpriv", *identity, "env", *variables, "podman", *options]

        def run(*words: str) -> None:
            line = namespaces.command(*program, *words)
            subprocess.run(line, check=True, capture_output=True, cwd="/", timeout=120)

        try:
            run("load", "-i", archive)
            yield lambda: _timed(lambda: run("run", "--rm", "busybox", "true"))
            run("system", "reset", "--force")
        finally:
            namespaces.close()
    finally:
        holder.kill()
        holder.wait()


def _timed(run: Callable[[], object]) -> float:
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin
