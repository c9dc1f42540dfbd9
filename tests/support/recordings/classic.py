"""Recordings of whole builds by dockerd: what its classic builder told and left, and what its BuildKit left.

``tests/data/whole-builds.json`` has for each Dockerfile of `conversions`, and for some of `build_files`, what dockerd
28.5.2 answered to ``POST /build`` (``classic``): what a person is shown, without ids, the error with its code, the
image's configuration and its files beside those of the base image; and the same of ``docker buildx build --load``
(``buildkit``).  To record it again, as root:

    python -m tests.support.recordings.classic
"""

from __future__ import annotations

import io
import json
import pathlib
import re
import shlex
import tarfile
import tempfile
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from tests.support.builds import classic_builds, flattened
from tests.support.engines import Engine
from tests.support.rawapi import Api
from tests.support.recordings import build_files, caches, conversions
from tests.support.recordings.converting import given, limit
from tests.support.run import isolation

if TYPE_CHECKING:
    from collections.abc import Mapping

TABLE = pathlib.Path(__file__).parents[2] / "data" / "whole-builds.json"
_NOT_CLASSIC = ("--build-context", "--secret", "--allow", "--no-cache-filter")
_ELSEWHERE = "127.0.0.1"  # files that a server would have to have
_KEPT = "--cgroup-parent"  # it stays on the machine, as with Docker
_EVERY = 3  # of the builds of `build_files`, of which BuildKit's part is recorded there
_FIFO = "/in/f*"  # dockerd waits for a writer for ever


# Where dockerd's classic builder does otherwise than Ketch, and why.
_OTHERWISE = {
    "it refuses, or takes no notice of, what only BuildKit can": """
        add, add-dirs, bind-copies, cache-ns, chmod-heredoc, copy, copy-from-image-platform, copy-vars, epoch,
        err-chmod, err-checksum2, err-epoch, err-mount, err-mount3, err-onbuild, global-platform, heredoc-copy,
        heredoc-run, link-merge-order, network-none, onbuild-from, platforms, predefined, user-numeric-owner,
        COPY --chmod=700 f /new/path/m, COPY --chmod=u=rwX,g+s,o-r deep /new/path/m, COPY --chmod=u+x,go=rX d /m,
        COPY --chmod=g=u,o=g secret /m, COPY --exclude=e d /x, ADD root.tar / COPY --link f /usr/bin/old""",
    "it builds stages that nobody needs": """
        env-path, err-dup, err-from-later, inherit-shell, stages, unused-arg-from""",
    "it wants another platform's image to be one of that platform": "arm-run-scratch, scratch-arm",
    "it names what is wrong otherwise, or when it gets there": """
        err-arg-unset, err-expose, err-from-self, err-platform2, ADD root.tar / COPY d /file""",
    "it refuses what BuildKit takes": """
        copy-root, err-chown, err-copy-multi, err-env, err-parent, err-workdir, stage-config,
        ADD root.tar / COPY --chown=odd f /o, ADD root.tar / COPY --chown=me f /usr/bin/sh""",
    "it takes what BuildKit refuses": """
        COPY dlink/a dlink/up /dl/, ADD root.tar / COPY over/ /, ADD root.tar / COPY f /var""",
    "it makes images that cannot be saved: of files whose names are those of whiteouts": """
        ADD t.tar /, ADD --chown=55:66 t.tar /u/, ADD t.* /u/, ADD root.tar / ADD t.tar /usr/bin,
        ADD t.tar / FROM scratch COPY --from=one --chown=1:2 /in /in""",
    "with it, ARG never comes before ENV": "scopes",
    "with it, an ENTRYPOINT of nothing is none": "settings2",
    "with it, what a command writes to a volume is lost": "volume-run",
    "with it, directories made on the way are root's": "workdir, COPY --chown=5:6 d /new/path/d",
}
OTHERWISE = {
    name.strip(): why for why, names in _OTHERWISE.items() for name in re.sub(r"\n\s+", " ", names).split(", ")
}
"""The names of those builds; why."""


def comparable(found: Mapping[str, Any]) -> dict[str, Any]:
    """What is the same by the classic builder, too.

    Left out: directories that are made as places of mounts, the times of directories, and the bits beyond the
    permissions, which its copies lose with their owners.
    """
    files = [row for row in found.get("files", ()) if row[0] not in ("dev", "proc", "sys", "etc")]
    shorter = [[*row[:2], row[2][-3:], *row[3:6], "" if row[1] == "dir" else row[6], *row[7:]] for row in files]
    return {**found, "files": shorter}


def rows() -> list[dict[str, Any]]:
    """What was recorded."""
    found: list[dict[str, Any]] = json.loads(TABLE.read_text())
    return found


def cases() -> list[dict[str, Any]]:
    """All builds; ``context``: of which directory, ``query``: what asks for it by the old API, if that can."""
    found = []
    for row in conversions.rows():
        case = {"name": row["name"], "context": "ctx", "args": row["args"], "dockerfile": row["dockerfile"]}
        if not any(flag in row["args"] for flag in _NOT_CLASSIC):
            case["query"] = query(row["args"])
        if _ELSEWHERE not in row["dockerfile"] and _KEPT not in row["args"]:
            found.append(case)
    texts = [
        row["dockerfile"] for row in build_files.rows() if not row.get("merges") and _FIFO not in row["dockerfile"]
    ]
    for text in texts[::_EVERY]:
        name = " ".join(text.split("\n", 1)[1].split())
        found.append({"name": name, "context": "files", "args": "", "query": "", "dockerfile": text})
    return found


def query(words: str) -> str:
    """A command line's options as the old client sends them."""
    asked = given(words)
    args = {one.partition("=")[0]: one.partition("=")[2] if "=" in one else None for one in asked.build_arg}
    limits = [dict(zip(("Name", "Soft", "Hard"), limit(one), strict=True)) for one in asked.ulimit]
    fields: dict[str, Any] = {
        "buildargs": json.dumps(args) if args else "",
        "labels": json.dumps(dict(one.split("=", 1) for one in asked.label)) if asked.label else "",
        "ulimits": json.dumps(limits) if limits else "",
        "target": asked.target,
        "platform": asked.platform,
        "networkmode": asked.network,
        "shmsize": 64 << 20 if asked.shm_size else "",
        "cgroupparent": asked.cgroup_parent,
        "nocache": "1" if asked.no_cache else "",
        "extrahosts": [one.replace("=", ":", 1) for one in asked.add_host],
    }
    return urlencode({name: value for name, value in fields.items() if value}, doseq=True)


# -- the surroundings ----------------------------------------------------------------------------


def prepare(directory: pathlib.Path) -> None:
    """Make the contexts."""
    caches.prepare_contexts(directory)
    (directory / "files").mkdir()
    build_files.make_context(directory / "files")


def images(socket: str) -> None:
    """Have the base images in an engine."""
    api = Api(socket)
    for name in ("b:1", "b:2"):
        repository, _, tag = name.partition(":")
        changes = [("changes", f"ENV {conversions.PATH}"), ("changes", 'CMD ["/bin/sh"]')]
        asked = urlencode([("fromSrc", "-"), ("repo", repository), ("tag", tag), *changes])
        status, answer = api("POST", f"/images/create?{asked}", caches.archive_of_image(name))
        assert status == 200, answer
    for name, triggers in conversions.TRIGGERS.items():
        lines = ["FROM b:1", *(["ENV A=b"] if name == "on:1" else []), *(f"ONBUILD {one}" for one in triggers)]
        _, told = classic_builds.post(socket, {"Dockerfile": "\n".join(lines)}, f"t={name}")
        assert "error" not in told[-1], told


def context_of(directory: pathlib.Path, case: Mapping[str, Any]) -> bytes:
    """The tar of a case's context with its Dockerfile."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted((directory / case["context"]).rglob("*")):
            archive.add(path, str(path.relative_to(directory / case["context"])), recursive=False, filter=_of_root)
        texts = {"Dockerfile": case["dockerfile"]}
        if case["name"].startswith("ignore"):
            texts[".dockerignore"] = "\n".join(conversions.IGNORED)
        for name, text in texts.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(text.encode()), build_files.TIME
            archive.addfile(member, io.BytesIO(text.encode()))
    return out.getvalue()


def _of_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


# -- what a build left ---------------------------------------------------------------------------


def by_api(socket: str, case: Mapping[str, Any], context: bytes) -> dict[str, Any]:
    """What an engine makes of a case by the old API."""
    status, lines = classic_builds.post(socket, context, f"{case['query']}&nocache=1")
    if status != 200:
        return {"status": status, "error": lines[0]["message"]}
    found: dict[str, Any] = {"shown": classic_builds.comparable(lines)}
    if "error" in lines[-1]:
        return {**found, "error": lines[-1]["error"], "code": lines[-1]["errorDetail"].get("code", 0)}
    return {**found, **left(socket, classic_builds.image_id(lines))}


def by_client(engine: Engine, case: Mapping[str, Any], directory: pathlib.Path) -> dict[str, Any]:
    """What `docker buildx build`, or `ketch build`, makes of a case."""
    dockerd = engine.kind == "dockerd"
    (directory / "Given").write_text(case["dockerfile"])
    ignored = "\n".join(conversions.IGNORED) if case["name"].startswith("ignore") else ""
    (directory / "Given.dockerignore").write_text(ignored)
    before = ["buildx", "build", "--load"] if dockerd else ["build"]
    words = [*before, "--progress=plain", "-t", "recorded", "-f", "Given", *shlex.split(case["args"]), case["context"]]
    done = (engine.docker if dockerd else engine.ketch)(*words, check=False, timeout=120, cwd=str(directory))
    return {"code": done.code} if done.code else left(engine.socket, "recorded")


def left(socket: str, image: str) -> dict[str, Any]:
    """The configuration and the files of an image; no files where dockerd cannot save it."""
    api = Api(socket)
    status, archive = api("GET", f"/images/{image}/get", timeout=120)
    if status != 200:  # names of files that begin as whiteouts do
        assert b".wh." in json.dumps(archive).encode(), archive
        return {"config": classic_builds.configuration(api, image)}
    return {"config": classic_builds.configuration(api, image), "files": _own(flattened.entries(archive))}


def _own(entries: list[list[Any]]) -> list[list[Any]]:
    """Without the programs of the base image, which each machine has of its own, and without users' attributes.

    What dockerd saves has none of those.
    """
    busybox = build_files.digest(pathlib.Path("/bin/busybox").read_bytes())
    own = [[*row[:5], *("busybox" if one == busybox else one for one in row[5:])] for row in entries]
    kept = [row for row in own if row[5:6] != ["busybox"] or not row[0].startswith("bin/")]
    return [row[:7] if row[7:] and all(key.startswith("user.") for key in row[7]) else row for row in kept]


def main() -> None:
    """Record all."""
    isolation.own_network()
    pathlib.Path("/proc/sys/net/ipv4/ip_forward").write_text("1")  # dockerd warns of each container otherwise
    dockerd = Engine("dockerd", "r")
    dockerd.extra = ["--bip=10.88.0.1/24", "--iptables=false", "--ip6tables=false"]
    found = []
    try:
        dockerd.start()
        images(dockerd.socket)
        with tempfile.TemporaryDirectory() as place:
            directory = pathlib.Path(place)
            prepare(directory)
            for case in cases():
                row = dict(case)
                if "query" in case:
                    row["classic"] = by_api(dockerd.socket, case, context_of(directory, case))
                if case["context"] == "ctx":
                    row["buildkit"] = by_client(dockerd, case, directory)
                found.append(row)
    finally:
        dockerd.delete()
    lines = ",\n".join(json.dumps(one, ensure_ascii=False, separators=(",", ":")) for one in found)
    TABLE.write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
