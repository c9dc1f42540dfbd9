"""Builds through the old API (``POST /build``), and their results in a form in which two engines can be compared."""

from __future__ import annotations

import io
import json
import re
import tarfile
from typing import Any

from tests.support.rawapi import Unix

_ID = re.compile(r"\b[0-9a-f]{12}\b")
_OF_CONTAINERS = re.compile(r" ---> (Running in|Removed intermediate container) .*\n")
_COMPARED = (
    *("Cmd", "Entrypoint", "Env", "ExposedPorts", "Healthcheck", "Labels", "OnBuild", "Shell", "StopSignal"),
    *("User", "Volumes", "WorkingDir"),
)


def context(files: dict[str, Any]) -> bytes:
    """A tar: names with their bytes, or None for a directory, or a `tarfile.TarInfo` that is not a file."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in files.items():
            if isinstance(content, tarfile.TarInfo):
                archive.addfile(content)
                continue
            info = tarfile.TarInfo(name)
            if content is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(info)
                continue
            data = content.encode() if isinstance(content, str) else content
            info.size, info.mode = len(data), 0o644
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def post(socket: str, files: dict[str, Any] | bytes, query: str = "", **headers: str) -> tuple[int, list[Any]]:
    """The status and the lines of a build."""
    connection = Unix(socket, 120)
    try:
        body = files if isinstance(files, bytes) else context(files)
        connection.request("POST", f"/build?{query}", body, {"Content-Type": "application/x-tar", **headers})
        answer = connection.getresponse()
        return answer.status, [json.loads(line) for line in answer.read().splitlines() if line.strip()]
    finally:
        connection.close()


def text(lines: list[Any]) -> str:
    """What a person is shown."""
    return "".join(line.get("stream", "") for line in lines)


def comparable(lines: list[Any]) -> str:
    """The same without ids, without what tells of containers, and without what tells of the cache."""
    shown = _OF_CONTAINERS.sub("", text(lines)).replace(" ---> Using cache\n", "")
    return _ID.sub("ID", shown)


def share(source: Any, target: Any, image: str, name: str) -> None:
    """Give an image of one engine to another, under a new name."""
    repository, _, tag = name.partition(":")
    source.must("POST", f"/images/{image}/tag", repo=repository, tag=tag)
    status, archive = source("GET", f"/images/{name}/get", timeout=120)
    assert status == 200
    target.must("POST", "/images/load", archive)


def image_id(lines: list[Any]) -> str:
    """The image that was built."""
    return next(line["aux"]["ID"] for line in reversed(lines) if "aux" in line)


def configuration(api: Any, image: str) -> dict[str, Any]:
    """What of an image's configuration does not depend on the engine."""
    found = api.must("GET", f"/images/{image}/json")["Config"]
    return {name: found[name] for name in _COMPARED if found.get(name) and (name, found[name]) != ("WorkingDir", "/")}


def files(api: Any, image: str) -> dict[str, Any]:
    """The files of an image: kind, mode, owner, size, link of each, but for what containers have of their own."""
    made = api.must("POST", "/containers/create", {"Image": image, "Cmd": ["x"]})["Id"]
    try:
        status, data = api("GET", f"/containers/{made}/export", timeout=120)
        assert status == 200
    finally:
        api("DELETE", f"/containers/{made}", force=1)
    found = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive:
            name = member.name.strip("/").removeprefix("./")
            top = name.partition("/")[0]
            if top in ("dev", "proc", "sys", "") or name in (
                "etc",
                "etc/mtab",
                "etc/hosts",
                "etc/hostname",
                "etc/resolv.conf",
                ".dockerenv",
            ):
                continue
            if member.islnk():  # a layer's file may be the very one of another layer
                found[name] = found[member.linkname.removeprefix("./")]
                continue
            size = member.size if member.isreg() else 0
            found[name] = (chr(member.type[0]), oct(member.mode), member.uid, member.gid, size, member.linkname)
    return found
