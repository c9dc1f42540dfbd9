"""Remote build contexts (``POST /build?remote=``): what an address means, as dockerd finds it out."""

from __future__ import annotations

import re
from typing import NamedTuple

from ketch.errors import InvalidArgument
from ketch.storage.archive import compression

_GIT_BEGINNINGS = ("git://", "github.com/", "git@")
_GIT_END = re.compile(r"\.git(?:#.+)?\Z")
_ARCHIVES = re.compile(r"application/(?:(?:x-)?tar|octet-stream|(?:x-)?(?:gzip|bzip2?|xz))")
_TEXT = "text/plain"
_LOOKED_AT = 512  # bytes, by which Go tells what a file is
_CONTROLS = bytes({*range(0x20)} - {0x09, 0x0A, 0x0C, 0x0D, 0x1B})


class RemoteContext(NamedTuple):
    """A context elsewhere: a commit (``is_git``) or a file of the web, as a source's identifier and attributes."""

    is_git: bool
    identifier: str
    attrs: dict[str, str]


def remote_context(address: str) -> RemoteContext:
    """The meaning of an address (InvalidArgument, in dockerd's words: it is none)."""
    is_web = address.startswith(("http://", "https://"))
    if address.startswith(_GIT_BEGINNINGS) or (is_web and _GIT_END.search(address)):
        url, _, part = address.partition("#")
        full = f"https://{url}" if url.startswith("github.com/") else url
        bare = re.sub(r"\A[a-z]+://", "", full)
        return RemoteContext(True, f"git://{bare}" + (f"#{part}" if part else ""), {"git.fullurl": full})
    if is_web:
        return RemoteContext(False, address, {"http.filename": "context"})
    raise InvalidArgument(
        f"remoteURL ({address[:200]}) could not be recognized as URL",
        hint="a remote context is the address of a git repository, of a Dockerfile, or of an archive",
    )


def is_dockerfile(content_type: str, head: bytes) -> bool:
    """Whether a file of the web is a Dockerfile and not an archive, by its server's word and its first bytes.

    InvalidArgument, in dockerd's words: it is neither.
    """
    told = content_type.partition(";")[0].strip().lower()
    if told in ("", "application/octet-stream"):
        told = _TEXT if _is_text(head[:_LOOKED_AT]) else "application/octet-stream"
    if told == _TEXT:
        return True
    if _ARCHIVES.search(told):
        return False
    raise InvalidArgument(f'unsupported Content-Type "{content_type[:200]}"', hint="it is no text and no archive")


def _is_text(head: bytes) -> bool:
    return compression.kind(head[:6]) == "none" and head.translate(None, _CONTROLS) == head
