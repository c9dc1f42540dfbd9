"""``--platform``: whether the image that is here is for what was asked for (containerd's names, image-spec v1.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ketch.errors import InvalidArgument, NotFound

if TYPE_CHECKING:
    from ketch.images.model import Image

_SYSTEMS = frozenset(("linux", "windows", "darwin", "freebsd", "wasi"))
_SAME = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "i386": "386", "armhf": "arm", "armel": "arm"}
_ARCHITECTURES = frozenset(
    ("386", "amd64", "arm", "arm64", "loong64", "mips64le", "ppc64le", "riscv64", "s390x", "wasm")
)  # fmt: skip
_DEFAULT_VARIANT = {"arm64": "v8", "arm": "v7"}


def parse(text: str) -> tuple[str, str, str]:
    """``os[/architecture[/variant]]``, or an architecture alone → (os, architecture, variant), empty for any."""
    parts = text.lower().split("/")
    if len(parts) == 1 and parts[0] not in _SYSTEMS:
        parts.insert(0, "linux")
    system, architecture, variant = [*parts, "", "", ""][:3]
    architecture = _SAME.get(architecture, architecture)
    if len(parts) > 3 or system not in _SYSTEMS or (architecture and architecture not in _ARCHITECTURES):
        raise InvalidArgument(
            f'error parsing specified platform: "{text}": unknown operating system or architecture: invalid argument',
            hint="use e.g. linux/amd64",
        )
    if variant == _DEFAULT_VARIANT.get(architecture):
        variant = ""
    return system, architecture, variant


def check(image: Image, ref: str, wanted: str | None) -> None:
    """NotFound, in Docker's words, when the image is for another platform; empty: any will do."""
    if not wanted:
        return
    asked = parse(wanted)
    actual = (image.config.os or "linux", image.config.architecture or "")
    variant = getattr(image.config, "variant", None) or ""
    if variant == _DEFAULT_VARIANT.get(actual[1]):
        variant = ""
    if all(not one or one == other for one, other in zip(asked, (*actual, variant), strict=True)):
        return
    names = ["/".join(part for part in parts if part) for parts in ((*actual, variant), asked)]
    raise NotFound(
        f"image with reference {ref} was found but its platform ({names[0]}) does not match the specified platform "
        f"({names[1]})"
    )
