"""Package URLs: names of images and packages that say of which kind they are (the package-url specification)."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from ketch.oci import platform as platforms
from ketch.oci import reference

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ketch.oci.manifest import Platform

_SAFE = ":"  # not escaped, beside what never is


def image(name: str, platform: Platform | None) -> str:
    """``pkg:docker/debian@12?platform=linux%2Famd64`` (InvalidArgument: it is no reference of an image)."""
    parsed = reference.parse(name)
    space, _, short = parsed.familiar_repository.rpartition("/")
    qualifiers = {"digest": parsed.digest} if parsed.digest else {}
    if platform is not None:
        qualifiers["platform"] = platforms.text(platforms.normalize(platform))
    return package("docker", short, parsed.tag, space=space, qualifiers=qualifiers)


def package(
    kind: str, name: str, version: str = "", *, space: str = "", qualifiers: Mapping[str, str] | None = None
) -> str:
    """``pkg:KIND/SPACE/NAME@VERSION?QUALIFIERS``; what is empty is left out."""
    parts = [quote(part, safe=_SAFE) for part in (*space.split("/"), name) if part]
    given = sorted((qualifiers or {}).items())
    query = "&".join(f"{key}={quote(value, safe=_SAFE)}" for key, value in given if value)
    return (
        f"pkg:{kind}/{'/'.join(parts)}"
        + (f"@{quote(version, safe=_SAFE)}" if version else "")
        + (f"?{query}" if query else "")
    )
