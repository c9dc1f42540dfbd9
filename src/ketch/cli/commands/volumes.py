"""``volume ls``, ``create``, ``inspect``, ``rm``, ``prune``, ``backup``, ``restore``."""

from __future__ import annotations

import sys

from ketch.cli.each import each
from ketch.cli.files import chunks, write_out
from ketch.cli.gotemplate.strings import natural
from ketch.cli.options.flags import FORMAT, FlagSet
from ketch.cli.output.listing import Listing, filters
from ketch.cli.output.rows import of_volume
from ketch.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.cli.context import Context


_HEADERS = {
    "Availability": "AVAILABILITY",
    "Group": "GROUP",
    "Labels": "LABELS",
    "Links": "LINKS",
    "Mountpoint": "MOUNTPOINT",
    "Scope": "SCOPE",
    "Size": "SIZE",
    "Status": "STATUS",
}
_LISTING = Listing(
    columns=[("DRIVER", "Driver"), ("VOLUME NAME", "Name")],
    headers=_HEADERS,
    raw=[("name", "Name"), ("driver", "Driver")],
    quiet="Name",
)


def cmd_ls(args: list[str], ctx: Context) -> int:
    """List volumes."""
    spec = FlagSet("volume ls", "ketch volume ls [OPTIONS]", "List volumes").list("filter", "f", "which ones")
    spec.string("format", "", FORMAT).bool("quiet", "q", "names only")
    opts, rest = spec.parse(args)
    spec.arguments(rest, 0, 0)
    volumes = ctx.client().request("GET", "/volumes", {"filters": filters(opts["filter"])}).json()["Volumes"] or []
    rows = [of_volume(v) for v in sorted(volumes, key=lambda v: natural(v["Name"]))]
    ctx.show(_LISTING.text(rows, opts["format"], quiet=opts["quiet"]))
    return 0


def cmd_create(args: list[str], ctx: Context) -> int:
    """Make a volume."""
    spec = FlagSet("volume create", "ketch volume create [OPTIONS] [VOLUME]", "Create a volume").list(
        "label", "", "a label"
    )
    spec.string("driver", "d", "which driver", default="local").list("opt", "o", "driver options").string(
        "name", "", "name"
    )
    opts, rest = spec.parse(args)
    spec.arguments(rest, 0, 1)
    body = {
        "Name": rest[0] if rest else opts["name"],
        "Driver": opts["driver"],
        "DriverOpts": dict(o.partition("=")[::2] for o in opts["opt"]),
        "Labels": dict(o.partition("=")[::2] for o in opts["label"]),
    }
    ctx.print(ctx.client().request("POST", "/volumes/create", None, body).json()["Name"])
    return 0


def cmd_inspect(args: list[str], ctx: Context) -> int:
    """Show all details of volumes."""
    from ketch.cli.inspection import inspect

    spec = FlagSet(
        "volume inspect", "ketch volume inspect [OPTIONS] VOLUME [VOLUME...]", "Display information on volumes"
    )
    spec.string("format", "f", FORMAT)
    opts, rest = spec.parse(args)
    spec.arguments(rest, 1)
    return inspect(ctx, rest, ["volume"], opts["format"])


def cmd_rm(args: list[str], ctx: Context) -> int:
    """Delete volumes and their data."""
    spec = FlagSet("volume rm", "ketch volume rm [OPTIONS] VOLUME [VOLUME...]", "Remove one or more volumes")
    spec.bool("force", "f", "a missing one is no error")
    opts, rest = spec.parse(args)
    spec.arguments(rest, 1)
    query = {"force": opts["force"] or None}
    return each(ctx, rest, lambda name: ctx.client().request("DELETE", f"/volumes/{name}", query))


def cmd_backup(args: list[str], ctx: Context) -> int:
    """Write a volume's content to a tar archive."""
    spec = FlagSet("volume backup", "ketch volume backup [OPTIONS] VOLUME", "Write a volume's content to a tar archive")
    spec.string("output", "o", "write to this file")
    opts, rest = spec.parse(args)
    spec.arguments(rest, 1, 1)
    if not opts["output"] and sys.stdout.isatty():
        raise InvalidArgument("cowardly refusing to write an archive to a terminal", hint="use -o FILE or redirect")
    write_out(ctx.client().request("GET", f"/ketch/volumes/{rest[0]}/archive", stream=True), opts["output"])
    return 0


def cmd_restore(args: list[str], ctx: Context) -> int:
    """Fill a volume from a tar archive; it is made if it is not there."""
    spec = FlagSet(
        "volume restore", "ketch volume restore [OPTIONS] VOLUME", "Fill a volume from a tar archive or standard input"
    )
    spec.string("input", "i", "read from this file").bool("force", "f", "replace what the volume holds")
    opts, rest = spec.parse(args)
    spec.arguments(rest, 1, 1)
    query = {"force": opts["force"] or None}
    ctx.client().request("PUT", f"/ketch/volumes/{rest[0]}/archive", query, chunks(opts["input"]))
    ctx.print(rest[0])
    return 0
