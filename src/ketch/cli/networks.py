"""``network ls`` and ``inspect``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ketch.cli.flags import FlagSet
from ketch.cli.gostrings import natural
from ketch.cli.listing import filters, labels, show

if TYPE_CHECKING:
    from typing import Any

    from ketch.cli.context import Context

_COLUMNS = [("NETWORK ID", "ID"), ("NAME", "Name"), ("DRIVER", "Driver"), ("SCOPE", "Scope")]
_HEADERS = {
    "CreatedAt": "CREATED AT", "IPv4": "IPV4", "IPv6": "IPV6", "Internal": "INTERNAL", "Labels": "LABELS"
}  # fmt: skip


def cmd_ls(args: list[str], ctx: Context) -> int:
    """List networks."""
    spec = FlagSet("network ls", "ketch network ls [OPTIONS]", "List networks").list("filter", "f", "which ones")
    spec.string("format", "", "how").bool("quiet", "q", "ids only").bool("no-trunc", "", "whole ids")
    opts, rest = spec.parse(args)
    spec.arguments(rest, 0, 0)
    networks = ctx.client().request("GET", "/networks", {"filters": filters(opts["filter"])}).json()
    rows = [row(n, whole=opts["no-trunc"]) for n in sorted(networks, key=lambda n: natural(n["Name"]))]
    show(
        ctx, rows, columns=_COLUMNS, headers=_HEADERS, form=opts["format"], quiet="ID" if opts["quiet"] else "",
        raw=[("network_id", "ID"), ("name", "Name"), ("driver", "Driver"), ("scope", "Scope")],
    )  # fmt: skip
    return 0


def row(network: dict[str, Any], *, whole: bool) -> dict[str, Any]:
    """One network in the fields of Docker's ``--format``."""
    return {
        "CreatedAt": network["Created"].replace("T", " ").removesuffix("Z") + " +0000 UTC",
        "Driver": network["Driver"],
        "ID": network["Id"] if whole else network["Id"][:12],
        "IPv4": _flag(network.get("EnableIPv4")),
        "IPv6": _flag(network.get("EnableIPv6")),
        "Internal": _flag(network.get("Internal")),
        "Label": lambda name: (network.get("Labels") or {}).get(name, ""),
        "Labels": labels(network.get("Labels")),
        "Name": network["Name"],
        "Scope": network["Scope"],
    }


def _flag(value: Any) -> str:
    return "true" if value else "false"


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
