"""``system df``: disk usage of images, containers and volumes."""

from __future__ import annotations

from ketch.cli.gotemplate.strings import go_json
from ketch.cli.options.flags import FORMAT, FlagSet
from ketch.cli.output.listing import Listing, table
from ketch.cli.output.rows import of_cache_record, of_container, of_image, of_volume
from ketch.notation.sizes import human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.cli.context import Context
    from ketch.cli.output.listing import Row
    from ketch.notation.api_objects import ApiObject

_COLUMNS = [
    ("TYPE", "Type"),
    ("TOTAL", "TotalCount"),
    ("ACTIVE", "Active"),
    ("SIZE", "Size"),
    ("RECLAIMABLE", "Reclaimable"),
]
_ACTIVE = ("running", "paused", "restarting")
_IMAGES = [
    ("REPOSITORY", "Repository"),
    ("TAG", "Tag"),
    ("IMAGE ID", "ID"),
    ("CREATED", "CreatedSince"),
    ("SIZE", "Size"),
    ("SHARED SIZE", "SharedSize"),
    ("UNIQUE SIZE", "UniqueSize"),
    ("CONTAINERS", "Containers"),
]
_CONTAINERS = [
    ("CONTAINER ID", "ID"),
    ("IMAGE", "Image"),
    ("COMMAND", "Command"),
    ("LOCAL VOLUMES", "LocalVolumes"),
    ("SIZE", "Size"),
    ("CREATED", "RunningFor"),
    ("STATUS", "Status"),
    ("NAMES", "Names"),
]
_VOLUMES = [("VOLUME NAME", "Name"), ("LINKS", "Links"), ("SIZE", "Size")]
_CACHE = [
    ("CACHE ID", "ID"),
    ("CACHE TYPE", "CacheType"),
    ("SIZE", "Size"),
    ("CREATED", "CreatedSince"),
    ("LAST USED", "LastUsedSince"),
    ("USAGE", "UsageCount"),
    ("SHARED", "Shared"),
]


def cmd_df(args: list[str], ctx: Context) -> int:
    """Show the disk usage by type of object; with ``-v`` of each object."""
    spec = FlagSet("system df", "ketch system df [OPTIONS]", "Show disk usage").string("format", "", FORMAT)
    spec.bool("verbose", "v", "object by object")
    opts, rest = spec.parse(args)
    spec.arguments(rest, 0, 0)
    usage = ctx.client().request("GET", "/system/df").json()
    if opts["verbose"]:
        _verbose(ctx, usage, opts["format"])
        return 0
    headers = {field: title for title, field in _COLUMNS}
    ctx.show(Listing(_COLUMNS, headers).text(summary(usage), opts["format"]))
    return 0


def summary(usage: ApiObject) -> list[Row]:
    """One row for each type, from the answer of ``/system/df``."""
    images, containers, volumes = (usage.get(k) or [] for k in ("Images", "Containers", "Volumes"))
    measured = [i for i in images if i["Containers"] and i["Size"] >= 0 and i["SharedSize"] >= 0]
    used = sum(i["Size"] - i["SharedSize"] for i in measured)
    layers = usage.get("LayersSize") or 0
    active = [c for c in containers if c["State"] in _ACTIVE]
    written = sum(c.get("SizeRw") or 0 for c in containers)
    sizes = [(v["UsageData"]["Size"], v["UsageData"]["RefCount"]) for v in volumes if v.get("UsageData")]
    on_disk = sum(size for size, _ in sizes if size > 0)
    unused = sum(size for size, links in sizes if size > 0 and links == 0)
    return [
        _row("Images", len(images), sum(i["Containers"] > 0 for i in images), layers, layers - used),
        _row("Containers", len(containers), len(active), written, written - sum(c.get("SizeRw") or 0 for c in active)),
        _row("Local Volumes", len(volumes), sum(links > 0 for _, links in sizes), on_disk, unused),
        _build_cache(usage),
    ]


def _build_cache(usage: ApiObject) -> Row:
    """The row of the build cache; what other things have, too, is not gained by removing it."""
    records = usage.get("BuildCache") or []
    size = usage.get("BuilderSize") or sum(r["Size"] for r in records if not r["Shared"])
    used = sum(r["Size"] for r in records if r["InUse"] and not r["Shared"])
    return _row("Build Cache", len(records), sum(r["InUse"] for r in records), size, size - used)


def _row(kind: str, total: int, active: int, size: int, idle: int) -> Row:
    share = f" ({100 * idle // size}%)" if size > 0 else ""
    return {
        "Active": str(active),
        "Reclaimable": human_size(idle, 4) + share,
        "Size": human_size(size, 4),
        "TotalCount": str(total),
        "Type": kind,
    }


def _verbose(ctx: Context, usage: ApiObject, format: str) -> None:
    whole = bool(format)
    images = [_image(i, whole=whole) for i in usage.get("Images") or ()]
    containers, volumes = _containers(usage, whole=whole), _volumes(usage)
    records = [of_cache_record(record) for record in usage.get("BuildCache") or ()]
    if format:
        parts = {"Images": images, "Containers": containers, "Volumes": volumes, "BuildCache": records}
        _verbose_formatted(ctx, format, parts)
        return
    ctx.print("Images space usage:\n\n" + _table(_IMAGES, images))
    ctx.print("\nContainers space usage:\n\n" + _table(_CONTAINERS, containers))
    ctx.print("\nLocal Volumes space usage:\n\n" + _table(_VOLUMES, volumes))
    total = _build_cache(usage)["Size"]
    ctx.print(f"\nBuild cache usage: {total}\n\n" + _table(_CACHE, records))


def _verbose_formatted(ctx: Context, format: str, parts: dict[str, list[Row]]) -> None:
    plain = {k: [{f: v for f, v in row.items() if not callable(v)} for row in rows] for k, rows in parts.items()}
    if format in ("json", "{{json .}}"):
        ctx.out.write(go_json(plain))
        return
    from ketch.cli.gotemplate.template import Template

    ctx.print(Template(format).render(plain))


def _table(columns: list[tuple[str, str]], rows: list[Row]) -> str:
    body = [[str(row[field]) for _, field in columns] for row in rows]
    return table([[title for title, _ in columns], *body])


def _image(image: ApiObject, *, whole: bool) -> Row:
    row = of_image({**image, "RepoTags": (image.get("RepoTags") or [])[:1]}, whole=whole)[0]
    shared = image["SharedSize"]
    if shared >= 0:
        row |= {"SharedSize": human_size(shared, 4), "UniqueSize": human_size(image["Size"] - shared, 4)}
    return row | ({"Digest": ""} if whole else {})


def _containers(usage: ApiObject, *, whole: bool) -> list[Row]:
    return [
        of_container(container, whole=whole) | {"Size": human_size(container.get("SizeRw") or 0)}
        for container in usage.get("Containers") or ()
    ]


def _volumes(usage: ApiObject) -> list[Row]:
    return [of_volume(volume) for volume in usage.get("Volumes") or ()]
