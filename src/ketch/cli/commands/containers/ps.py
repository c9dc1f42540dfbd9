"""``ps``: the list of containers."""

from __future__ import annotations

from ketch.cli import colours
from ketch.cli.options.flags import FORMAT, FlagSet
from ketch.cli.output.listing import Listing, filters
from ketch.cli.output.rows import of_container

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.cli.context import Context
    from ketch.notation.api_objects import ApiObject

_COLUMNS = [
    ("CONTAINER ID", "ID"),
    ("IMAGE", "Image"),
    ("COMMAND", "Command"),
    ("CREATED", "RunningFor"),
    ("STATUS", "Status"),
    ("PORTS", "Ports"),
    ("NAMES", "Names"),
]
_HEADERS = {
    "CreatedAt": "CREATED AT",
    "Size": "SIZE",
    "Labels": "LABELS",
    "Mounts": "MOUNTS",
    "Networks": "NETWORKS",
    "LocalVolumes": "LOCAL VOLUMES",
    "State": "STATE",
    "Platform": "PLATFORM",
}
_RAW = [
    ("container_id", "ID"),
    ("image", "Image"),
    ("command", "Command"),
    ("created_at", "CreatedAt"),
    ("state", "State"),
    ("status", "Status"),
    ("names", "Names"),
    ("labels", "Labels"),
    ("ports", "Ports"),
]


def cmd_ps(args: list[str], ctx: Context) -> int:
    """List containers."""
    spec = FlagSet("ps", "ketch ps [OPTIONS]", "List containers")
    spec.bool("all", "a", "also those that do not run").list("filter", "f", "which ones").string("format", "", FORMAT)
    spec.int("last", "n", "the newest so many").bool("latest", "l", "the newest one")
    spec.bool("no-trunc", "", "whole texts")
    spec.bool("quiet", "q", "ids only").bool("size", "s", "sizes on disk")
    spec.bool("watch", "w", "go on, and show what changes")
    opts, rest = spec.parse(args)
    spec.arguments(rest, 0, 0)
    format = opts["format"]
    if format and opts["quiet"]:
        ctx.warn("WARNING: Ignoring custom format, because both --format and --quiet are set.")
        format = format if format == "raw" else ""
    limit = 1 if opts["latest"] else opts["last"]
    with_size = opts["size"] or ".Size" in format or format == "{{json .}}"
    query = {
        "all": opts["all"] or None,
        "limit": str(limit) if limit else None,
        "size": with_size or None,
        "filters": filters(opts["filter"]),
    }
    size = opts["size"] and format in ("", "table", "raw")
    columns = [*_COLUMNS, ("SIZE", "Size")] if size else _COLUMNS
    listing = Listing(columns, _HEADERS, [*_RAW, ("size", "Size")] if size else _RAW, quiet="ID")

    def render(containers: list[ApiObject], titles: bool) -> str:
        rows = [of_container(c, whole=opts["no-trunc"]) for c in containers]
        text = listing.text(rows, format, quiet=opts["quiet"])
        untitled = not titles and not opts["quiet"] and (not format or format.startswith("table"))
        return text.partition("\n")[2] if untitled else text

    coloured = format in ("", "table") and not opts["quiet"] and colours.wanted(ctx.out)
    if opts["watch"]:
        from ketch.cli.commands.containers.watch import watch

        return watch(ctx, query, render, coloured)
    text = render(ctx.client().request("GET", "/containers/json", query).json(), True)
    if coloured:
        ctx.out.write("\n".join(colours.states(text.split("\n"))))  # a table's cells are safe
    else:
        ctx.show(text)
    return 0
