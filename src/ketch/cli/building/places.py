"""The context and the Dockerfile that a command line names: a directory, standard input, a repository, a URL."""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING, NamedTuple

from ketch import dockerignore
from ketch.errors import InvalidArgument, NotFound

if TYPE_CHECKING:
    from collections.abc import Iterator

_GIT = re.compile(r"(git://|git@|ssh://|github\.com/)|https?://[^#]+\.git(?:#|\Z)")
_WEB = re.compile(r"https?://")
_MAGIC = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")
_HEAD, _CHUNK = 512, 1 << 18
_LARGEST = 4 << 20  # of a Dockerfile


class DockerfileText(NamedTuple):
    """A Dockerfile that the client has read, under the name that messages give it, and its rules about the context.

    ``inside`` is its path in the context; empty for one that is elsewhere.
    """

    name: str
    content: bytes
    inside: str
    ignore: bytes | None
    ignore_name: str


class BuildPlace(NamedTuple):
    """The context; one of ``directory``, ``remote`` and ``archive`` is there, or none: the context is empty."""

    directory: str
    remote: str
    archive: Iterator[bytes] | None
    dockerfile: DockerfileText | None
    dockerfile_path: str


def is_remote(text: str) -> bool:
    """Whether a context is a repository or a URL."""
    return bool(_GIT.match(text) or _WEB.match(text))


def find(context: str, dockerfile: str) -> BuildPlace:
    """The place that the argument and ``--file`` mean (KetchError)."""
    if context == "-" and dockerfile == "-":
        raise InvalidArgument("standard input cannot be both the context and the Dockerfile")
    if is_remote(context):
        text = _from_stdin() if dockerfile == "-" else None
        return BuildPlace("", context, None, text, dockerfile if text is None and dockerfile else "Dockerfile")
    if context == "-":
        return _stdin(dockerfile)
    if not os.path.isdir(context):
        if not os.path.exists(context):
            raise NotFound(f"unable to prepare context: path `{context}` not found")
        raise InvalidArgument(f"unable to prepare context: path `{context}` is no directory")
    found = _from_stdin(context) if dockerfile == "-" else _dockerfile(context, dockerfile)
    return BuildPlace(context, "", None, found, found.inside or "Dockerfile")


def _stdin(dockerfile: str) -> BuildPlace:
    """Standard input: an archive of the context, or a Dockerfile without one."""
    head = _read_stdin(_HEAD)
    if not head:
        raise InvalidArgument("standard input is empty", hint="give it an archive or a Dockerfile")
    if is_archive(head):
        return BuildPlace("", "", _behind(head), None, dockerfile or "Dockerfile")
    if dockerfile:
        raise InvalidArgument(
            f"--file {dockerfile}: standard input is no archive that could have it", hint="pipe a tar archive in"
        )
    text = DockerfileText("Dockerfile", head + _read_stdin(_LARGEST), "", None, "")
    return BuildPlace("", "", None, text, "Dockerfile")


def is_archive(head: bytes) -> bool:
    """Whether the beginning of a file is that of a tar archive, which may be compressed."""
    return head.startswith(_MAGIC) or head[257:262] == b"ustar"


def _read_stdin(size: int) -> bytes:
    """As many bytes, or fewer at the end."""
    if sys.stdin.isatty():
        raise InvalidArgument("requested to read from a terminal", hint="pipe the archive or the Dockerfile in")
    found = b""
    while len(found) < size and (data := os.read(0, size - len(found))):
        found += data
    return found


def _behind(head: bytes) -> Iterator[bytes]:
    yield head
    while data := os.read(0, _CHUNK):
        yield data


def _from_stdin(context: str = "") -> DockerfileText:
    content = _read_stdin(_LARGEST)
    ignore = _content(os.path.join(context, dockerignore.DEFAULT)) if context else None
    return DockerfileText("Dockerfile", content, "", ignore, dockerignore.DEFAULT)


def _dockerfile(context: str, name: str) -> DockerfileText:
    """The Dockerfile of a directory, or one elsewhere; a relative path is looked for here, and then there."""
    path = _path_of(context, name)
    content = _content(path)
    if content is None:
        raise NotFound(
            f"failed to read dockerfile: open {name or 'Dockerfile'}: no such file or directory",
            hint=f"name it with -f, or have `{os.path.join(context, 'Dockerfile')}`",
        )
    top, real = os.path.realpath(context), os.path.realpath(path)
    inside = os.path.relpath(real, top) if real.startswith(f"{top.rstrip('/')}/") else ""
    beside, default = dockerignore.file_names(path)
    ignore, ignore_name = _content(beside), beside
    if ignore is None:
        ignore, ignore_name = _content(os.path.join(context, default)), default
    shown = os.path.relpath(path, context) if inside else os.path.basename(path)
    return DockerfileText(shown, content, inside, ignore, os.path.basename(ignore_name))


def _path_of(context: str, name: str) -> str:
    if name:
        there = os.path.join(context, name)
        return there if not os.path.exists(name) and os.path.exists(there) else name
    path = os.path.join(context, "Dockerfile")
    lower = os.path.join(context, "dockerfile")
    return lower if not os.path.exists(path) and os.path.exists(lower) else path


def _content(path: str) -> bytes | None:
    """A file's bytes; None when there is none (InvalidArgument)."""
    try:
        with open(path, "rb") as f:
            found = f.read(_LARGEST + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as e:
        raise InvalidArgument(f"read `{path}`: {e.strerror}") from e
    if len(found) > _LARGEST:
        raise InvalidArgument(f"read `{path}`: larger than {_LARGEST >> 20} MiB")
    return found
