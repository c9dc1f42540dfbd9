"""Platforms: their text form, and the choice among an index's manifests (image-spec v1.1 §image-index).

Names and fall-backs are containerd's: an amd64 machine also runs 386, arm64 also runs arm, an arm variant also the
lower ones.
"""

from __future__ import annotations

import functools
import platform as machine
import re
from typing import TYPE_CHECKING

import msgspec

from ketch.errors import InvalidArgument
from ketch.notation import architectures, digits
from ketch.oci.manifest import Platform

if TYPE_CHECKING:
    from collections.abc import Iterable

_SYSTEMS = frozenset(("linux", "windows", "darwin", "freebsd", "wasi"))
_ARCHITECTURES = frozenset(
    ("386", "amd64", "arm", "arm64", "loong64", "mips64le", "ppc64le", "riscv64", "s390x", "wasm")
)
_SYSTEM = r"^([A-Za-z0-9_-]+)(?:\(([A-Za-z0-9_.%-]*)((?:\+[A-Za-z0-9_.%-]+)*)\))?$"  # perhaps with its version
_COMPONENT = r"^[A-Za-z0-9_.-]+$"
_DEFAULT_VARIANT = {"arm64": "v8", "arm": "v7"}
_ALSO_RUNS = {"amd64": ("386",), "arm64": ("arm",)}


def parse(text: str) -> Platform:
    """``os[/architecture[/variant]]``, or an architecture alone; what is left out is empty and means any.

    InvalidArgument, in Docker's words, for what is none.
    """
    return normalize(named(text))


def named(text: str) -> Platform:
    """The same with the variant as it was given; of a pair any names are taken, as by containerd."""
    parts = text.split("/", 3)
    for number, part in enumerate(parts):
        pattern, what = (_COMPONENT, "platform specifier") if number else (_SYSTEM, "OSAndVersion specifier")
        if not re.fullmatch(pattern, part, re.ASCII):
            shown = pattern.replace("\\", "\\\\")
            raise InvalidArgument(
                f'"{part}" is an invalid {"" if number else "OS "}component of "{text}": {what} component must match '
                f'"{shown}": invalid argument',
                hint="use e.g. linux/amd64",
            )
    if len(parts) > 3:
        raise InvalidArgument(
            f'"{text}": cannot parse platform specifier: invalid argument', hint="use e.g. linux/amd64"
        )
    parts = [part.lower() for part in parts]
    if len(parts) == 1 and parts[0] not in _SYSTEMS:
        if architectures.goarch(parts[0]) not in _ARCHITECTURES:
            raise InvalidArgument(
                f'"{text}": unknown operating system or architecture: invalid argument', hint="use e.g. linux/amd64"
            )
        parts.insert(0, "linux")
    system, architecture, variant = [*parts, "", "", ""][:3]
    if variant and digits.whole(variant) is not None:
        variant = f"v{variant}"
    if architecture == "armel":
        variant = variant or "v6"
    architecture = architectures.goarch(architecture)
    if (architecture, variant) == ("amd64", "v1"):
        variant = ""
    return Platform(os=system.partition("(")[0], architecture=architecture, variant=variant or None)


def normalize(platform: Platform) -> Platform:
    """A platform in canonical form: no default variant, one name for each architecture."""
    architecture = architectures.goarch(platform.architecture)
    variant = platform.variant or ""
    if variant == _DEFAULT_VARIANT.get(architecture):
        variant = ""
    return msgspec.structs.replace(
        platform, os=platform.os.lower() or "linux", architecture=architecture, variant=variant or None
    )


def canonical(platform: Platform) -> Platform:
    """A platform as containerd writes it, with whom ``arm`` has a variant always, v7 where none is told."""
    found = normalize(platform)
    if found.architecture == "arm" and not found.variant:
        return msgspec.structs.replace(found, variant="v7")
    return found


@functools.cache
def host() -> Platform:
    """The platform of this machine."""
    return Platform(os="linux", architecture=architectures.goarch(machine.machine()))


def text(platform: Platform) -> str:
    """``os/architecture[/variant]``."""
    return "/".join(part for part in (platform.os, platform.architecture, platform.variant or "") if part)


def matches(wanted: Platform, offered: Platform) -> bool:
    """Whether a platform matches ``wanted``, whose empty fields match anything."""
    wanted, offered = normalize(wanted), normalize(offered)
    return all(
        not asked or asked == other
        for asked, other in (
            (wanted.os, offered.os),
            (wanted.architecture, offered.architecture),
            (wanted.variant, offered.variant),
        )
    )


def rank(wanted: Platform, offered: Platform) -> int | None:
    """The rank of a platform ``offered`` on a machine of platform ``wanted``: 0 is best, None unusable."""
    wanted, offered = normalize(wanted), normalize(offered)
    if wanted.os != offered.os:
        return None
    if not wanted.architecture or wanted.architecture == offered.architecture:
        ours, theirs = _number(wanted), _number(offered)
        if wanted.architecture == "arm" and theirs <= ours:
            return ours - theirs
        return 0 if wanted.variant == offered.variant else None if theirs > ours else 1
    also = _ALSO_RUNS.get(wanted.architecture, ())
    if offered.architecture in also:
        return 100 + 10 - _number(offered)
    return None


def _number(platform: Platform) -> int:
    variant = platform.variant or _DEFAULT_VARIANT.get(platform.architecture, "v1")
    return digits.whole(variant.lstrip("v")) or 0


def best(wanted: Platform, offered: Iterable[Platform | None]) -> int | None:
    """The index of the best match, the first among equals; None when none matches.

    An entry without a platform is taken only when nothing says that it fits.
    """
    ranked = [(rank(wanted, platform) if platform is not None else 1000, n) for n, platform in enumerate(offered)]
    fitting = [(value, n) for value, n in ranked if value is not None]
    return min(fitting)[1] if fitting else None
