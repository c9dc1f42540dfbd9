"""``network ls`` and ``inspect``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ketch.cli.flags import FlagSet
from ketch.cli.listing import filters, show

if TYPE_CHECKING:
    from ketch.cli.context import Context

_COLUMNS = [("NETWORK ID", "ID"), ("NAME", "Name"), ("DRIVER", "Driver"), ("SCOPE", "Scope")]


def cmd_ls(args: list[str], ctx: Context) -> int:
    """List networks."""
    spec = FlagSet("network ls", "ketch network ls [OPTIONS]", "List networks").list("filter", "f", "which ones")
    spec.string("format", "", "how").bool("quiet", "q", "ids only").bool("no-trunc", "", "whole ids")
    opts, rest = spec.parse(args)
    spec.arguments(rest, 0, 0)
    rows = [
        {
            "Driver": n["Driver"],
            "ID": n["Id"] if opts["no-trunc"] else n["Id"][:12],
            "Name": n["Name"],
            "Scope": n["Scope"],
        }
        for n in ctx.client().request("GET", "/networks", {"filters": filters(opts["filter"])}).json()
    ]
    rows.sort(key=lambda r: r["Name"])
    show(ctx, rows, columns=_COLUMNS, form=opts["format"], quiet="ID" if opts["quiet"] else "")
    return 0


def cmd_inspect(args: list[str], ctx: Context) -> int:
    """Everything about networks."""
    from ketch.cli.inspect import many

    spec = FlagSet(
        "network inspect", "ketch network inspect [OPTIONS] NETWORK [NETWORK...]", "Display networks in detail"
    )
    spec.string("format", "f", "how")
    opts, rest = spec.parse(args)
    spec.arguments(rest, 1)
    return many(ctx, rest, ["network"], opts["format"])
