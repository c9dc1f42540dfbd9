"""Dockerfiles and contexts as builds find them: a file's text, what it leaves out, what an address means."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ketch import dockerignore
from ketch.build.dockerfile.convert import sources
from ketch.build.dockerfile.convert.options import SourceContext
from ketch.build.llb import ops_pb2 as pb
from ketch.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Sequence


class FoundDockerfile(NamedTuple):
    """The file of a build: the name to show, its text, the patterns of what is left out of the context."""

    name: str
    text: str
    ignore: Sequence[str]


def is_git(remote: str) -> bool:
    """Whether a remote context is a repository, as Docker tells it."""
    address = remote.partition("#")[0]
    if address.startswith(("git://", "git@", "github.com/", "ssh://")):
        return True
    return address.startswith(("http://", "https://")) and address.endswith(".git")


def ignore_patterns(data: bytes, name: str) -> Sequence[str]:
    """The patterns of a file's bytes (InvalidArgument: one of them is none)."""
    try:
        found = dockerignore.patterns(data.decode("utf-8", "surrogateescape"))
        dockerignore.IgnoreRules(found)
    except InvalidArgument as e:
        raise InvalidArgument(f"{name}: {e.message}", hint=e.hint) from e
    return found


def text_of(data: bytes, name: str) -> str:
    """A Dockerfile's text (InvalidArgument: there is none)."""
    if not data:
        raise InvalidArgument(f"the Dockerfile ({name}) cannot be empty")
    return data.decode("utf-8", "surrogateescape")


def git(text: str, *, keep: bool = False) -> SourceContext:
    """A repository as a context, with its own directory ``.git`` if that is to be kept (InvalidArgument)."""
    address = f"https://{text}" if text.startswith("github.com/") else text
    location = sources.git(address)
    if location is None:
        head, sharp, part = address.partition("#")
        location = sources.git(f"{head}.git{sharp}{part}")
    if location is None:
        raise InvalidArgument(f"build: `{text}` names no repository")
    op = location.edge(keep_git_dir=keep, checksum="", metadata=pb.OpMetadata()).vertex.op.source
    return SourceContext(identifier=op.identifier, attrs=dict(op.attrs))
