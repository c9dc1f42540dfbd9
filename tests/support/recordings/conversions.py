"""Recordings of how BuildKit turns Dockerfiles into graphs and image configurations.

``tests/data/dockerfile-conversions.json`` has for each Dockerfile the vertices of its graph (digest, name, lines, and
the attributes of local sources, whose digests contain a random number), the image's configuration and its history; or
the error and its line.  To record it again, with a daemon that has the images b:1, b:2 (a busybox whose /etc/passwd
knows ``me`` and whose /etc/group knows ``us``) and on:1 to on:3 (below), a web server on 127.0.0.1:8099 with ``w`` and
``t.tar``, ``git daemon`` with ``r.git`` (a branch main with sub/s), and a directory with ``ctx`` (f, g, t.tar, d/a,
d/b.txt, d/e/c.txt) and ``other`` (o):

    DOCKER_HOST=unix://SOCKET python -m tests.support.recordings.conversions DIRECTORY
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
from typing import Any

TABLE = pathlib.Path(__file__).parents[2] / "data" / "dockerfile-conversions.json"
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
IGNORED = ["*.tar", "!t.tar", "d/e"]
"""The patterns of .dockerignore in those whose name begins with ``ignore``."""

TRIGGERS = {
    "on:1": ["RUN echo on $A", "COPY f /f", "ARG Q=1", "ENV Z=$Q", "WORKDIR /ob"],
    "on:2": ["COPY --from=b:1 /etc/passwd /p", "RUN --mount=from=b:2,target=/m ls /m", "LABEL a=b"],
    "on:3": ["RUN --mount=type=bind,target=/ ls"],
}
"""Images on b:1 with instructions for those who build on them; on:1 has ``ENV A=b``, too."""


def rows() -> list[dict[str, Any]]:
    """What was recorded."""
    found: list[dict[str, Any]] = json.loads(TABLE.read_text())
    return found


def row(case: dict[str, Any], meta: dict[str, Any], image: dict[str, Any], history: list[str], log: str) -> Any:
    """One row of the table, of what the clients say of a build."""
    provenance = meta["buildx.build.provenance"]
    graph = provenance["buildConfig"]
    digests = {step: digest for digest, step in graph["digestMapping"].items()}
    extra = provenance["metadata"]["https://mobyproject.org/buildkit@v1#metadata"]
    places = extra.get("source", {}).get("locations", {})
    names = {one["digest"]: one["name"] for line in _json_lines(log) for one in line.get("vertexes", [])}
    vertices = []
    for step in graph["llbDefinition"]:
        digest = digests[step["id"]]
        spans = [_span(place) for place in places.get(step["id"], {}).get("locations", []) if place.get("ranges")]
        source = step["op"]["Op"].get("source", {})
        local = source["attrs"] if source.get("identifier", "").startswith("local://") else None
        vertices.append([digest, names.get(digest, ""), spans, local])
    return {
        **case,
        "vertices": vertices,
        "config": {key: value for key, value in image["Config"].items() if value},
        "author": image["Author"],
        "platform": "/".join(filter(None, (image["Os"], image["Architecture"], image.get("Variant")))),
        "history": history,
        "layers": len(image["RootFS"]["Layers"]),
    }


def failure(case: dict[str, Any], log: str) -> Any:
    """The row of a build that failed."""
    line = re.search(r"^Dockerfile:(\d+)$", log, re.MULTILINE)
    message = log.rpartition("failed to solve: ")[2].strip()
    return {**case, "error": [int(line[1]) if line else None, message]}


def _json_lines(log: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.splitlines() if line.startswith("{")]


def _span(place: dict[str, Any]) -> list[int]:
    lines = [one["start"]["line"] for one in place["ranges"]] + [one["end"]["line"] for one in place["ranges"]]
    return [min(lines), max(lines)]


def _record(case: dict[str, Any], directory: pathlib.Path) -> Any:
    context = directory / "ctx"
    (context / "Dockerfile").write_text(case["dockerfile"])
    ignore = context / ".dockerignore"
    ignore.write_text("\n".join(IGNORED) if case["name"].startswith("ignore") else "")
    meta = directory / "meta.json"
    command = ["docker", "buildx", "build", "-t", "recorded", "--progress=rawjson", "--metadata-file", str(meta)]
    done = subprocess.run(
        [*command, *shlex.split(case["args"]), "ctx"],
        cwd=directory,
        env={**os.environ, "BUILDX_METADATA_PROVENANCE": "max"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        return failure(case, done.stderr)
    image = json.loads(_docker("image", "inspect", "recorded"))[0]
    history = _json_lines(_docker("history", "--no-trunc", "--format", "json", "recorded"))
    texts = [one["CreatedBy"] for one in reversed(history)]
    return row(case, json.loads(meta.read_text()), image, texts, done.stderr)


def _docker(*words: str) -> str:
    return subprocess.run(["docker", *words], capture_output=True, text=True, check=True).stdout


def write(found: list[Any]) -> None:
    """The table, a row a line."""
    lines = ",\n".join(json.dumps(one, ensure_ascii=False, separators=(",", ":")) for one in found)
    TABLE.write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    fields = ("name", "args", "dockerfile")
    write([_record({key: one[key] for key in fields}, pathlib.Path(sys.argv[1])) for one in rows()])
