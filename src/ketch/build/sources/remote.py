"""Remote build contexts (``POST /build?remote=``): what an address means, as dockerd finds it out."""

from __future__ import annotations

import re
from typing import NamedTuple

from ketch.errors import InvalidArgument
from ketch.storage.archive import compression

_GIT_SCHEMES = ("git://", "github.com/", "git@")
_GIT_PATH = re.compile(r"\.git(?:#.+)?\Z")
_TEXT = ("text/plain", "application/octet-stream", "")
_ARCHIVES = (
    "application/x-tar",
    "application/tar",
    "application/gzip",
    "application/x-gzip",
    "application/x-bzip2",
    "application/x-xz",
    "application/zstd",
)


class RemoteContext(NamedTuple):
    """An address: of a repository (``kind`` is ``git``) or of a file of the web (``web``), as a source's identifier."""

    kind: str
    identifier: str
    address: str


def remote_context(address: str) -> RemoteContext:
    """The meaning of an address (InvalidArgument: it is neither a repository's nor a file's)."""
    is_web = address.startswith(("http://", "https://"))
    if address.startswith(_GIT_SCHEMES) or (is_web and _GIT_PATH.search(address)):
        url, _, part = address.partition("#")
        full = f"https://{url}" if url.startswith("github.com/") else url
        bare = re.sub(r"\A[a-z]+://", "", full)
        return RemoteContext("git", f"git://{bare}" + (f"#{part}" if part else ""), full)
    if is_web:
        return RemoteContext("web", address, address)
    raise InvalidArgument(
        f'unable to prepare context: path "{address[:200]}" not found',
        hint="a remote context is the address of a git repository, of a Dockerfile, or of an archive",
    )


def is_archive(content_type: str, head: bytes) -> bool:
    """Whether a file of the web is an archive and not a Dockerfile: by its beginning, else by what its server says."""
    if compression.kind(head[:6]) != "none" or head[257:262] == b"ustar":
        return True
    return content_type.partition(";")[0].strip().lower() in _ARCHIVES
