"""Requests that fail, and what they are tried on; the table is ``tests/data/failures.json``.

A row is a request (``START``: create and start, ``EXEC``: make an exec in the container ``up`` and start it), its body
as JSON or ``raw``, and dockerd's status and sentence.  `record` writes down anew how a dockerd answers.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

if TYPE_CHECKING:
    from tests.support.rawapi import Api

RECORDED = Path(__file__).parents[2] / "data" / "failures.json"

# "up" runs, "tty" too, and has a terminal; "froze" is paused, "made" was created, "ended" has exited with 3.
_SLEEP = {"Image": "busybox", "Cmd": ["sleep", "1000"], "StopSignal": "KILL"}
_CONTAINERS: dict[str, dict[str, Any]] = {
    "up": _SLEEP | {"HostConfig": {"Binds": ["used:/data"], "NetworkMode": "taken"}},
    "tty": _SLEEP | {"Tty": True},
    "froze": _SLEEP | {"HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": "28080"}]}}},
    "made": _SLEEP,
    "ended": {"Image": "busybox", "Cmd": ["sh", "-c", "exit 3"]},
    "hostly": _SLEEP | {"HostConfig": {"NetworkMode": "host"}},
    "vain": {"Image": "busybox", "Cmd": ["/no-such"]},
    "auto": _SLEEP | {"HostConfig": {"AutoRemove": True}},
}


class Request(NamedTuple):
    """One request with dockerd's answer; ``body`` is JSON unless it is bytes."""

    method: str
    path: str
    body: Any
    status: int
    sentence: str

    @property
    def name(self) -> str:
        """How a message shows it."""
        if self.body is None:
            return f"{self.method} {self.path}"
        text = repr(self.body) if isinstance(self.body, bytes) else json.dumps(self.body)
        return f"{self.method} {self.path} {text}"


def requests() -> list[Request]:
    """All of them, in an order in which none is in the way of a later one."""
    return [_read(row) for row in json.loads(RECORDED.read_text(encoding="utf-8"))]


def _read(row: dict[str, Any]) -> Request:
    method, _, path = row["request"].partition(" ")
    body = row["raw"].encode() if "raw" in row else row.get("body")
    return Request(method, path, body, row["status"], row["sentence"])


class Place:
    """What the requests are tried on."""

    def __init__(self, api: Api) -> None:
        self.api = api

    def build(self) -> None:
        """Make the containers, a network, a volume and an image without a command."""
        self.api.must("POST", "/networks/create", {"Name": "taken", "IPAM": {"Config": [{"Subnet": "10.77.0.0/24"}]}})
        self.api.must("POST", "/volumes/create", {"Name": "used"})
        self.api.must("POST", "/images/create?fromSrc=-&repo=bare", bytes(10240))
        for name, config in _CONTAINERS.items():
            self.api.must("POST", f"/containers/create?name={name}", config)
        for name in ("up", "tty", "froze", "hostly", "ended"):
            self.api.must("POST", f"/containers/{name}/start")
        self.api.must("POST", "/containers/ended/wait")
        self.api.must("POST", "/containers/froze/pause")

    def clear(self) -> None:
        """Remove it all."""
        for row in self.api.must("GET", "/containers/json?all=1"):
            self.api("DELETE", f"/containers/{row['Id']}?force=1&v=1")
        self.api.must("DELETE", "/networks/taken")
        self.api.must("DELETE", "/volumes/used")
        self.api.must("DELETE", "/images/bare")

    def answer(self, request: Request) -> tuple[int, str]:
        """The status and the sentence; what the request made after all is removed again."""
        status, body = self._send(request)
        if isinstance(body, dict) and 200 <= status < 300:
            self._undo(request, body)
        return status, sentence(body)

    def _send(self, request: Request) -> tuple[int, Any]:
        if request.method == "START":
            status, body = self.api("POST", "/containers/create?name=tried", request.body)
            if status == 201:
                status, body = self.api("POST", "/containers/tried/start")
                self.api("DELETE", "/containers/tried?force=1&v=1")
            return status, body
        if request.method == "EXEC":
            status, body = self.api("POST", "/containers/up/exec", request.body)
            return self.api("POST", f"/exec/{body['Id']}/start", {"Detach": True}) if status == 201 else (status, body)
        archive = "fromSrc=-" in request.path or request.method == "PUT"
        media = "application/x-tar" if archive else "application/json"
        return self.api(request.method, quote(request.path, safe="/?&=:%+"), request.body, media=media)

    def _undo(self, request: Request, body: dict[str, Any]) -> None:
        if request.path.startswith("/containers/create"):
            self.api("DELETE", f"/containers/{body['Id']}?force=1&v=1")
        elif request.path.startswith("/networks/create"):
            self.api("DELETE", f"/networks/{body['Id']}")
        elif request.path.startswith("/volumes/create") and body["Name"] != "used":
            self.api("DELETE", f"/volumes/{body['Name']}")
        elif request.path.startswith("/commit"):
            self.api("DELETE", f"/images/{body['Id']}")


_ID = re.compile(r"\b[0-9a-f]{64}\b|\b[0-9a-f]{12}\b")
_PLACE = re.compile(r"/tmp/\w+-\w+/data")
_LINES = re.compile(rb"[\r\n]+")


def sentence(body: Any) -> str:
    """The message of an answer, or the error in a stream of progress; ids are the same in all."""
    if isinstance(body, bytes) and b"\0" in body:
        text = ""  # an archive
    elif isinstance(body, bytes):
        lines = [line for line in _LINES.split(body) if line.strip()]
        decoded = [_decoded(line) for line in lines]
        errors = [line["error"] for line in decoded if isinstance(line, dict) and "error" in line]
        text = (
            errors[-1]
            if errors
            else ""
            if any(isinstance(line, dict) for line in decoded)
            else body.decode(errors="replace")
        )
    elif isinstance(body, dict):
        text = body.get("message") or body.get("error") or ""
    else:
        text = ""
    return _PLACE.sub("/data", _ID.sub("ID", text.strip()))


def record(api: Api) -> None:
    """Write down how a dockerd answers."""
    place, rows = Place(api), json.loads(RECORDED.read_text(encoding="utf-8"))
    place.build()
    for row in rows:
        row["status"], row["sentence"] = place.answer(_read(row))
    place.clear()
    lines = ",\n".join(json.dumps(row) for row in rows)
    RECORDED.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def _decoded(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return line
