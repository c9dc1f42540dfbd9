"""Outputs of a build as they are asked for, judged before anything is built."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ketch.build.export.annotations import OutputAnnotations
from ketch.errors import InvalidArgument, UnclassifiedArgument, Unimplemented
from ketch.images.archives.compressed import LayerCompression
from ketch.images.commit import check_name
from ketch.notation import booleans
from ketch.storage.archive import packing

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ketch.engine.build.exports.sinks import OutputSink
    from ketch.engine.model.building.builds import OutputRequest

IMAGES = ("image", "moby", "docker", "oci")
FILES = ("local", "tar")
NOTHING = ("none", "cacheonly")
_SWITCHES = (
    "push",
    "push-by-digest",
    "name-canonical",
    "registry.insecure",
    "store",
    "oci-mediatypes",
    "platform-split",
    "rewrite-timestamp",
)


class Output(NamedTuple):
    """An output, and who takes it; None: the image store."""

    request: OutputRequest
    sink: OutputSink | None = None


def check(outputs: Sequence[OutputRequest], *, many: bool) -> None:
    """Refuse outputs that cannot be made, before anything is built (InvalidArgument, Unimplemented).

    ``many``: for several platforms.
    """
    for output in outputs:
        attrs = output.attrs
        if output.kind not in (*IMAGES, *FILES, *NOTHING):
            known = ", ".join((*IMAGES, *FILES, NOTHING[0]))
            raise InvalidArgument(f'exporter "{output.kind}" could not be found', hint=f"known: {known}")
        compression_of(output)
        if output.kind in ("docker", "oci") and attrs.get("tar", "true") in ("false", "0"):
            raise Unimplemented(f"output `{output.kind}`: tar=false: it is one archive", hint="unpack it with tar")
        OutputAnnotations(attrs).check(many=many)
        for name in _SWITCHES:
            asked(output, name)


def compression_of(output: OutputRequest) -> LayerCompression | None:
    """The compression of layers that is asked for; None: none, they are gzip when they are sent (KetchError)."""
    kind, level = output.attrs.get("compression", ""), output.attrs.get("compression-level", "")
    force = asked(output, "force-compression")
    # What a later push compresses has another manifest, of OCI's types, and a name.
    now = docker_types(output) or asked(output, "push-by-digest") or not asked(output, "store", usual=True)
    if not (kind or level or force or now):
        return None
    return LayerCompression(packing.compression(kind or packing.GZIP, level), force)


def kept(output: Output) -> bool:
    """Whether the images stay in the image store."""
    return output.sink is None and asked(output.request, "store", usual=True)


def named(output: Output) -> bool:
    """Whether the images that stay get their names: not where they are known by their digests alone."""
    return kept(output) and not asked(output.request, "push-by-digest")


def known_by_digest(output: Output) -> bool:
    """Whether the images that stay are known by their digests, too."""
    return kept(output) and (asked(output.request, "name-canonical") or asked(output.request, "push-by-digest"))


def docker_types(output: OutputRequest) -> bool:
    """Whether manifests have Docker's media types in place of OCI's."""
    return not asked(output, "oci-mediatypes", usual=True)


def asked(output: OutputRequest, name: str, *, usual: bool = False) -> bool:
    """A truth value among the attributes (InvalidArgument)."""
    text = output.attrs.get(name, "")
    try:
        return booleans.strict(text) if text else usual
    except booleans.NotABooleanError as e:
        raise InvalidArgument(f"output `{output.kind}`: {name}={text}: {e}") from e


def tags(written: Iterable[str]) -> list[str]:
    """Names of an image, normalized, each once (UnclassifiedArgument)."""
    found: dict[str, None] = {}
    for text in written:
        if not text:
            continue
        try:
            name = check_name(text, "")
        except InvalidArgument as e:
            message = "build tag cannot contain a digest" if "digest reference" in e.message else e.message
            raise UnclassifiedArgument(message, hint=f"the name is `{text}`") from e
        found[name] = None
    return list(found)
