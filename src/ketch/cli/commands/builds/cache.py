"""``builder du`` and ``builder prune``: the cache of builds."""

from __future__ import annotations

import time

from ketch.cli.commands.system.prune import confirm
from ketch.cli.options import quantities
from ketch.cli.options.flags import FORMAT, FlagSet
from ketch.cli.output.listing import Listing, filters
from ketch.cli.output.rows import ago
from ketch.errors import InvalidArgument
from ketch.notation import booleans, moments
from ketch.notation.sizes import human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.cli.context import Context
    from ketch.cli.output.listing import Row
    from ketch.notation.api_objects import ApiObject

_COLUMNS = [("ID", "ID"), ("RECLAIMABLE", "Reclaimable"), ("SIZE", "Size"), ("LAST ACCESSED", "LastUsedAt")]
_TITLES = {"CreatedAt": "CREATED AT", "UsageCount": "USAGE COUNT", "Parents": "PARENTS"}
_MUTABLE = "exec.cachemount"
_DIGITS = 4
_BOUNDS = ("keep-storage", "reserved-space", "max-used-space", "min-free-space")


def cmd_prune(args: list[str], ctx: Context) -> int:
    """Remove what builds have left to be used again."""
    spec = FlagSet("builder prune", "ketch builder prune [OPTIONS]", "Remove build cache")
    spec.bool("all", "a", "also what images and builds still need as a beginning").bool("force", "f", "do not ask")
    spec.list("filter", "", "which ones (until=24h, type=exec.cachemount, …)")
    spec.string("keep-storage", "", "the same as --reserved-space")
    spec.string("reserved-space", "", "keep this much in any case")
    spec.string("max-used-space", "", "keep at most this much")
    spec.string("min-free-space", "", "go on until this much of the disk is free")
    opts, rest = spec.parse(args)
    spec.arguments(rest, 0, 0)
    bounds = {name: quantities.size(opts[name], f"--{name}") for name in _BOUNDS if opts[name]}
    what = "all build cache" if opts["all"] else "all dangling build cache"
    query = {"all": opts["all"] or None, "filters": filters(opts["filter"]), **bounds}
    if not opts["force"] and not confirm(ctx, f"This will remove {what}. "):
        return 0
    answer = ctx.client().request("POST", "/build/prune", query).json()
    if answer.get("CachesDeleted"):
        ctx.print("Deleted build cache objects:\n" + "\n".join(answer["CachesDeleted"]) + "\n")
    ctx.print("Total reclaimed space: " + human_size(answer.get("SpaceReclaimed") or 0, _DIGITS))
    return 0


def cmd_du(args: list[str], ctx: Context) -> int:
    """Show what the cache holds."""
    spec = FlagSet("builder du", "ketch builder du [OPTIONS]", "Disk usage of the build cache")
    spec.list("filter", "", "which ones (id, type, parent, description, inuse, shared, until)")
    spec.string("format", "", FORMAT).bool("verbose", "", "all that is known of each record")
    opts, rest = spec.parse(args)
    spec.arguments(rest, 0, 0)
    usage = ctx.client().request("GET", "/system/df", {"type": "build-cache"}).json()
    chosen = _chosen(opts["filter"])
    records = [record for record in usage.get("BuildCache") or () if chosen(record)]
    records.sort(key=lambda record: (-record["Size"], record["ID"]))
    if opts["verbose"]:
        ctx.show("".join(_whole(record) for record in records))
    else:
        ctx.show(Listing(_COLUMNS, _TITLES).text(map(_row, records), opts["format"]))
    if not opts["format"] and not opts["filter"]:
        ctx.show(_summary(records))
    return 0


def _row(record: ApiObject) -> Row:
    mark = "*" if record["Type"] == _MUTABLE else ""
    return {
        "ID": record["ID"] + mark,
        "Parents": record.get("Parents") or [],
        "CreatedAt": record.get("CreatedAt") or "",
        "Mutable": booleans.write(bool(mark)),
        "Reclaimable": booleans.write(not record["InUse"]),
        "Shared": booleans.write(record["Shared"]),
        "Size": human_size(record["Size"]) + ("*" if record["Shared"] else ""),
        "Description": record.get("Description") or "",
        "UsageCount": record.get("UsageCount") or 0,
        "LastUsedAt": ago(record.get("LastUsedAt")),
        "Type": record["Type"],
    }


def _whole(record: ApiObject) -> str:
    """All of a record, a line for each field, as buildx has them."""
    row = _row(record)
    fields = [
        ("ID", record["ID"]),
        ("Parents", ",".join(row["Parents"])),
        ("Created at", row["CreatedAt"]),
        ("Mutable", row["Mutable"]),
        ("Reclaimable", row["Reclaimable"]),
        ("Shared", row["Shared"]),
        ("Size", row["Size"].rstrip("*")),
        ("Description", row["Description"]),
        ("Usage count", str(row["UsageCount"])),
        ("Last used", row["LastUsedAt"]),
        ("Type", row["Type"]),
    ]
    return "".join(f"{name + ':':<14}{value}\n" for name, value in fields if value) + "\n"


def _summary(records: list[ApiObject]) -> str:
    total = sum(record["Size"] for record in records)
    shared = sum(record["Size"] for record in records if record["Shared"])
    rows = [("Shared", shared), ("Private", total - shared)] if shared else []
    rows += [("Reclaimable", sum(r["Size"] for r in records if not r["InUse"])), ("Total", total)]
    return "".join(f"{name + ':':<16}{human_size(size, _DIGITS)}\n" for name, size in rows)


def _chosen(items: list[str]) -> Callable[[ApiObject], bool]:
    """The records that ``--filter`` chooses: those that meet all of them (InvalidArgument)."""
    tests = [_test(*item.partition("=")) for item in items]
    return lambda record: all(test(record) for test in tests)


def _test(name: str, equals: str, value: str) -> Callable[[ApiObject], bool]:
    if name in ("inuse", "shared"):
        wanted = booleans.parse(value) if equals else True
        field = "InUse" if name == "inuse" else "Shared"
        return lambda record: bool(record[field]) is wanted
    if not equals:
        raise InvalidArgument(f"invalid filter `{name}`", hint="write NAME=VALUE")
    match name:
        case "id":
            return lambda record: str(record["ID"]).startswith(value)
        case "type":
            return lambda record: bool(record["Type"] == value)
        case "parent" | "parents":
            return lambda record: value in (record.get("Parents") or ())
        case "description":
            return lambda record: value in (record.get("Description") or "")
        case "until":
            before = moments.parse(value, time.time_ns())
            if before is None:
                raise InvalidArgument(f"invalid filter `until={value}`", hint="write e.g. until=24h")
            return lambda record: (moments.rfc3339(record.get("LastUsedAt") or "") or 0) < before
    raise InvalidArgument(f"invalid filter `{name}`", hint="use id, type, parent, description, inuse, shared or until")
