"""Image references as people type them, normalized as Docker does.

busybox                     docker.io/library/busybox:latest     familiar: busybox:latest
user/app:1                  docker.io/user/app:1                 familiar: user/app:1
localhost:5000/app@sha256:… localhost:5000/app@sha256:…          familiar: the same
"""

from __future__ import annotations

import re

from msgspec import Struct

from ketch.errors import InvalidArgument
from ketch.oci import digest as digests

DEFAULT_DOMAIN = "docker.io"
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*\Z")
_TAG = re.compile(r"\w[\w.-]{0,127}\Z", re.ASCII)
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_LONGEST_PATH = 255
_IDENTIFIER = re.compile(r"[0-9a-f]{64}\Z")
_DOMAIN = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::[0-9]+)?\Z")


class Reference(Struct, frozen=True):
    """A normalized reference; at least one of ``tag`` and ``digest`` is set."""

    domain: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def repository(self) -> str:
        """The repository in full: domain and path."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_repository(self) -> str:
        """The repository as Docker shows it: without ``docker.io/`` and ``library/``."""
        if self.domain != DEFAULT_DOMAIN:
            return self.repository
        return self.path.removeprefix("library/")

    @property
    def familiar(self) -> str:
        """``name:tag``, or ``name@digest`` when there is no tag."""
        return self.familiar_repository + (f":{self.tag}" if self.tag else f"@{self.digest}")

    @property
    def familiar_whole(self) -> str:
        """``name:tag@digest``, with what there is of both."""
        return self.familiar_repository + str(self).removeprefix(self.repository)

    def __str__(self) -> str:
        return self.repository + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


def is_tag(text: str) -> bool:
    """Whether the text can be a tag."""
    return bool(_TAG.match(text))


def parse(text: str) -> Reference:
    """Parse and normalize a reference (InvalidArgument, in Docker's words)."""

    def bad(why: str = "") -> InvalidArgument:
        return InvalidArgument(f"invalid reference format{': ' + why if why else ''}")

    name, at, digest = text.partition("@")
    if at and not digests.valid(digest):
        raise bad("only sha256 digests are supported" if digests.registered(digest) else "")
    tag = ""
    head, colon, tail = name.rpartition(":")
    if colon and "/" not in tail:
        name, tag = head, tail
        if not _TAG.match(tag):
            raise bad()
    if _IDENTIFIER.match(name):
        raise InvalidArgument(f"invalid repository name ({name}), cannot specify 64-byte hexadecimal strings")
    domain, path = _split_domain(name)
    if not _PATH.match(path):
        if path.lower() != path and _PATH.match(path.lower()):
            raise bad(f"repository name ({path}) must be lowercase")
        raise bad()
    if not _DOMAIN.match(domain):
        raise bad()
    if len(path) > _LONGEST_PATH:
        raise InvalidArgument(f"repository name must not be more than {_LONGEST_PATH} characters")
    return Reference(domain, path, tag or ("" if digest else "latest"), digest)


def _split_domain(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    is_domain = slash and ("." in first or ":" in first or first == "localhost" or first.lower() != first)
    domain, path = (first, rest) if is_domain else (DEFAULT_DOMAIN, name)
    if domain == "index.docker.io":
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in path:
        path = f"library/{path}"
    return domain, path
