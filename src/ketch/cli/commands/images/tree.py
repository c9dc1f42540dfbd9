"""``images --tree``: each image with its platforms beneath, and their sizes here."""

from __future__ import annotations

from ketch.notation.sizes import human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.notation.api_objects import ApiObject

_TITLES = ("IMAGE", "ID", "DISK USAGE", "CONTENT SIZE", "IN USE")


def lines(images: list[ApiObject], *, plain: bool = False) -> list[str]:
    """The lines of the table; platforms that are not here have no size."""
    found: list[tuple[str, ...]] = [_TITLES]
    for image in images:
        manifests = [m for m in image.get("Manifests") or () if m["Kind"] == "image"]
        used = sum(m["Size"]["Total"] for m in manifests)
        content = sum(m["Size"]["Content"] for m in manifests)
        containers = sum(len(m["ImageData"]["Containers"]) for m in manifests)
        names = image.get("RepoTags") or ["<untagged>"]
        found += [(name, "", "", "", "") for name in names[:-1]]
        found.append((names[-1], _short(image["Id"]), human_size(used), human_size(content), _used(containers)))
        for number, manifest in enumerate(manifests):
            last = number == len(manifests) - 1
            branch = ("`- " if last else "|- ") if plain else ("└─ " if last else "├─ ")
            data = manifest["ImageData"]
            sizes = [
                human_size(manifest["Size"][name]) if manifest["Available"] else "-" for name in ("Total", "Content")
            ]
            found.append(
                (branch + _platform(data["Platform"]), _short(manifest["ID"]), *sizes, _used(len(data["Containers"])))
            )
    widths = [max(len(row[n]) for row in found) for n in range(len(_TITLES))]
    return ["   ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in found]


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]


def _platform(platform: ApiObject) -> str:
    return "/".join(platform[name] for name in ("os", "architecture", "variant") if platform.get(name))


def _used(containers: int) -> str:
    return f"{containers} container{'s' * (containers != 1)}" if containers else ""
