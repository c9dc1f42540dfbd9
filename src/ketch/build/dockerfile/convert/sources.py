"""Sources: images, the client's directories, git, URLs."""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from ketch.build.dockerfile.convert.paths import follow_attrs, listed
from ketch.build.dockerfile.errors import DockerfileError
from ketch.build.llb import ops_pb2 as pb
from ketch.build.llb.operations import source
from ketch.oci import digest as digests

if TYPE_CHECKING:
    from urllib.parse import SplitResult

    from ketch.build.dockerfile.convert.options import LocalContext, SourceContext
    from ketch.build.llb.vertex import Edge
    from ketch.oci.manifest import Platform

_SCHEME = re.compile(r"([a-zA-Z0-9]+)://")
_SSH_STYLE = re.compile(r"(?:[\w.-]+@)(?P<host>[\w.-]+|\[[0-9a-fA-F:]+\]):(?P<path>[^#]*)(?:#.*)?\Z", re.ASCII)
_UNKNOWN_DIGEST = re.compile(r"(?!sha(256|384|512):)[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[a-zA-Z0-9=_-]+\Z")
_SECRETS = {"git.authheadersecret": "GIT_AUTH_HEADER", "git.authtokensecret": "GIT_AUTH_TOKEN"}


def message(platform: Platform) -> pb.Platform:
    """A platform as operations have it."""
    return pb.Platform(
        OS=platform.os,
        Architecture=platform.architecture,
        Variant=platform.variant or "",
        OSVersion=platform.os_version or "",
        OSFeatures=platform.os_features or (),
    )


def image(reference: str, platform: Platform, mode: str, metadata: pb.OpMetadata) -> Edge:
    """The files of an image; ``mode``: where it is looked for, nothing for the solver's choice."""
    attrs = {"image.resolvemode": mode} if mode else {}
    return source(f"docker-image://{reference}", attrs, message(platform), metadata)


def local(context: LocalContext, hint: str, paths: set[str], name: str) -> Edge:
    """A directory of the client, as far as it is needed."""
    attrs = {"local.sharedkeyhint": hint, **follow_attrs(paths), **context.attrs}
    if context.ignore:
        attrs["local.excludepatterns"] = listed(list(context.ignore))
    metadata = pb.OpMetadata(description={"llb.customname": name})
    return source(f"local://{context.name}", attrs, None, metadata)


def other(context: SourceContext, platform: Platform, name: str) -> Edge:
    """Any other source."""
    metadata = pb.OpMetadata(description={"llb.customname": name})
    return source(context.identifier, context.attrs, message(platform), metadata)


class GitLocation(NamedTuple):
    """A repository: its name in sources, its address for git, and what is taken of it (``REF[:DIRECTORY]``)."""

    identity: str
    url: str
    part: str
    ssh: bool

    def edge(self, *, keep_git_dir: bool, checksum: str, metadata: pb.OpMetadata) -> Edge:
        """The repository's files."""
        attrs = {"git.fullurl": self.url, **_SECRETS}
        if keep_git_dir:
            attrs["git.keepgitdir"] = "true"
        if checksum:
            attrs["git.checksum"] = checksum
        if self.ssh:
            attrs["git.mountsshsock"] = "default"
        part = f"#{self.part}" if self.part else ""
        return source(f"git://{self.identity}{part}", attrs, None, metadata)


def git(text: str) -> GitLocation | None:
    """The repository that a source of ADD names; None for any other source.

    A web address is one when its path ends with ``.git``.
    """
    url, _, part = text.partition("#")
    if match := _SSH_STYLE.match(text):
        if text.startswith(("./", "../")):
            return None
        return GitLocation(match["host"] + posixpath.join("/", match["path"]), url, part, ssh=True)
    scheme = _SCHEME.match(text)
    if scheme is None or scheme[1] not in ("git", "ssh", "http", "https"):
        return None
    found = _split(url)
    if found is None:
        return None
    if scheme[1].startswith("http") and not found.path.endswith(".git"):
        return None
    host = found.netloc.rpartition("@")[2]
    return GitLocation(host + posixpath.normpath(f"/{found.path.lstrip('/')}"), url, part, ssh=scheme[1] == "ssh")


def _split(url: str) -> SplitResult | None:
    """The parts of an address; None where it is none."""
    try:
        return urlsplit(url)
    except ValueError:
        return None


def is_web(text: str) -> bool:
    """Whether a source is a web address and no repository."""
    return text.startswith(("http://", "https://")) and git(text) is None


def web(text: str, checksum: str, metadata: pb.OpMetadata) -> tuple[Edge, str]:
    """A file of the web, and its name (DockerfileError: the checksum is none)."""
    found = _split(text)
    name = (posixpath.basename(found.path.rstrip("/")) if found else "") or "__unnamed__"
    attrs = {"http.filename": name}
    if checksum:
        if not digests.valid(checksum):
            wrong = (
                "unsupported digest algorithm" if _UNKNOWN_DIGEST.match(checksum) else "invalid checksum digest format"
            )
            raise DockerfileError(wrong, word=checksum, hint="write sha256:… in full")
        attrs["http.checksum"] = checksum
    return source(text, attrs, None, metadata), name
