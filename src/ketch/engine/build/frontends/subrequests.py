"""Calls of the Dockerfile front end that build nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ketch.engine.build import calls
from ketch.engine.build.frontends.errors import UnsupportedSubrequest
from ketch.engine.build.frontends.results import FrontendResult
from ketch.engine.model.building.builds import ImageBuild
from ketch.oci import platform as platforms
from ketch.storage.archive import compression

if TYPE_CHECKING:
    from ketch.engine.build.dockerfiles import FoundDockerfile
    from ketch.engine.build.frontends.attributes import FrontendAttributes

_OUTLINE = "frontend.outline"
_DESCRIBE = "frontend.subrequests.describe"
CALLS = {
    _OUTLINE: ("outline", "List all parameters current build target supports"),
    "frontend.targets": ("targets", "List all targets current build supports"),
    "frontend.lint": ("lint", "Lint a Dockerfile"),
}
_OPTIONS = {_OUTLINE: [{"name": "target", "description": "Target build stage"}], _DESCRIBE: None}
_VERSION = b"1.0.0"
_TAR_MAGIC, _TAR_MAGIC_AT = b"ustar", 257


def answer(call: str, attrs: FrontendAttributes, file: FoundDockerfile) -> FrontendResult:
    """The answer of a call (UnsupportedSubrequest, DockerfileError)."""
    if call == _DESCRIBE:
        return _told(*_description())
    if call not in CALLS:
        raise UnsupportedSubrequest(call)
    request = ImageBuild(
        call=CALLS[call][0],
        target=attrs.text("target"),
        args=dict(attrs.args()),
        platforms=[platforms.text(one) for one in attrs.platforms()],
    )
    found = calls.answer(request, file).metadata
    result = _told(str(found["result.json"]).encode(), str(found["result.txt"]).encode())
    if call == "frontend.lint":
        result.metadata["result.statuscode"] = str(found["result.statuscode"]).encode()
    return result


def _description() -> tuple[bytes, bytes]:
    """The calls that there are."""
    known = {**{name: text for name, (_, text) in CALLS.items()}, _DESCRIBE: "List available subrequest types"}
    rows = [
        {
            "name": name,
            "version": _VERSION.decode(),
            "type": "rpc",
            "description": text,
            "opts": _OPTIONS.get(name, []),
            "inputs": None,
            "metadata": [{"name": name, "description": ""} for name in ("result.json", "result.txt")],
            "refs": None,
        }
        for name, text in known.items()
    ]
    width = max(map(len, known))
    lines = [f"{'NAME'.ljust(width)}    VERSION    DESCRIPTION"]
    lines += [f"{name.ljust(width)}    {_VERSION.decode()}      {text}" for name, text in known.items()]
    return msgspec.json.encode(rows), "\n".join(lines).encode() + b"\n"


def _told(value: bytes, text: bytes) -> FrontendResult:
    return FrontendResult(
        metadata={"result.json": msgspec.json.format(value, indent=2), "result.txt": text, "version": _VERSION}
    )


def is_archive(head: bytes) -> bool:
    """Whether a file that begins so is a tar, plain or compressed."""
    return compression.kind(head) != "none" or head[_TAR_MAGIC_AT:].startswith(_TAR_MAGIC)
