"""Recordings of builds as BuildKit's clients are told of them, and of what ``docker buildx`` writes of them.

``tests/data/build-progress.json`` has for each build its messages, the lines that ``history logs`` makes of them, and
those that were written while it ran.  To record it again, with a daemon that has an image ``busybox``:

    DOCKER_HOST=unix://SOCKET python -m tests.support.recordings.progress DIRECTORY
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
from typing import Any

TABLE = pathlib.Path(__file__).parents[2] / "data" / "build-progress.json"

# name, arguments, whether it has been built before, Dockerfile
BUILDS = [
    ("one step", "", False, "FROM scratch\nCOPY f /f\n"),
    (
        "output",
        "",
        False,
        "FROM busybox\nRUN echo one; echo two >&2; printf 'no end'\n"
        "RUN echo; printf 'a\\rb\\n'; printf 'slow'; sleep 0.4; echo ' end'; sleep 0.3; echo \\\n  'and more'\n"
        "WORKDIR /w\nCOPY f d ./\n",
    ),
    ("cached", "", True, "FROM busybox\nRUN echo hello\nCOPY f /\nRUN echo world\n"),
    (
        "partly cached",
        "",
        False,
        "FROM busybox\nRUN echo hello\nCOPY f /\nRUN echo another world && sleep 0.2\n",
    ),
    ("failing", "", False, "FROM busybox AS build\nRUN for i in $(seq 20); do echo line $i; done; exit 3\nCOPY f /\n"),
    ("not there", "", False, "FROM busybox\n\n# a comment\nCOPY nothing /\nRUN echo\n"),
    ("no Dockerfile of that kind", "", False, "FROM busybox\nRUNN x\n"),
    ("no such image", "", False, "FROM localhost:1/nothing\nRUN x\n"),
    (
        "parallel",
        "",
        False,
        "FROM busybox AS a\nRUN for i in 1 2 3; do sleep 0.3; echo a$i; done\n"
        "FROM busybox AS b\nRUN sleep 0.15; for i in 1 2 3; do sleep 0.3; echo b$i; done\n"
        "FROM scratch\nCOPY --from=a /etc /a\nCOPY --from=b /etc /b\n",
    ),
    (
        "parallel, one fails",
        "",
        False,
        "FROM busybox AS a\nRUN echo waiting; sleep 20\nFROM busybox AS b\nRUN sleep 0.5; echo no; false\n"
        "FROM scratch\nCOPY --from=a /etc /a\nCOPY --from=b /etc /b\n",
    ),
    (
        "warnings",
        "",
        False,
        "from busybox AS Build\nENV a b\nARG PASSWORD=x\nWORKDIR x\nCMD echo $nothing\n",
    ),
    ("one warning", "", False, "FROM busybox as b\nRUN echo \\\n  more\n"),
    ("long output", "", False, "FROM busybox\nRUN for i in $(seq 300); do echo line $i of some; done\n"),
    (
        "a directory",
        "--output=type=local,dest=OUT",
        False,
        "FROM busybox AS b\nRUN seq 100000 >/n\nFROM scratch\nCOPY --from=b /n /n\n",
    ),
    ("links", "", False, "FROM busybox AS b\nFROM busybox\nCOPY --link f /f\nCOPY --link --from=b /etc /e\n"),
    ("a larger context", "", False, "FROM scratch\nCOPY . /\n"),
]


def rows() -> list[dict[str, Any]]:
    """What was recorded."""
    found: list[dict[str, Any]] = json.loads(TABLE.read_text())
    return found


def _buildx(*words: str, directory: pathlib.Path) -> str:
    """What it writes, on either stream, with carriage returns."""
    command = ["docker", "buildx", *words]
    done = subprocess.run(command, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    return done.stdout.decode()


def _record(name: str, arguments: str, built: bool, dockerfile: str, directory: pathlib.Path) -> dict[str, Any]:
    """One build, as it was shown, and as the daemon remembers it (which is shown at once)."""
    context = directory / "context"
    (context / "Dockerfile").write_text(dockerfile)
    words = [word.replace("OUT", str(directory / "out")) for word in arguments.split()]
    subprocess.run(["docker", "builder", "prune", "-af"], capture_output=True, check=True)
    if name == "partly cached":
        (context / "Dockerfile").write_text(dockerfile.replace("another world", "world"))
    if built or name == "partly cached":
        _buildx("build", "--progress=quiet", *words, "context", directory=directory)
        (context / "Dockerfile").write_text(dockerfile)
    live = _buildx("build", "--progress=plain", *words, "context", directory=directory)
    listed = _buildx("history", "ls", "--format={{.Ref}}", directory=directory).split()
    raw, plain = (
        _buildx("history", "logs", f"--progress={mode}", listed[0], directory=directory)
        for mode in ("rawjson", "plain")
    )
    messages = [json.loads(line) for line in raw.split("\n") if line]
    return {"name": name, "dockerfile": dockerfile, "raw": messages, "plain": plain, "live": live}


def main(directory: pathlib.Path) -> None:
    """Record all."""
    context = directory / "context"
    context.mkdir(parents=True, exist_ok=True)
    (context / "f").write_text("some\n")
    (context / "d").mkdir(exist_ok=True)
    (context / "d" / "large").write_bytes(os.urandom(300_000))
    found = [_record(*build, directory) for build in BUILDS]
    lines = ",\n".join(json.dumps(one, ensure_ascii=False, separators=(",", ":")) for one in found)
    TABLE.write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
