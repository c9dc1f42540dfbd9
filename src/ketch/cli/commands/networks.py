"""``network create``, ``ls``, ``inspect``, ``connect``, ``disconnect``, ``rm``, ``prune`` and ``repair``."""

from __future__ import annotations

from ketch.cli.each import each
from ketch.cli.gotemplate.strings import natural
from ketch.cli.options.flags import FORMAT, FlagSet
from ketch.cli.output.listing import Listing, filters
from ketch.cli.output.rows import of_network
from ketch.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ketch.cli.context import Context
    from ketch.notation.api_objects import ApiObject

_COLUMNS = [("NETWORK ID", "ID"), ("NAME", "Name"), ("DRIVER", "Driver"), ("SCOPE", "Scope")]
_HEADERS = {"CreatedAt": "CREATED AT", "IPv4": "IPV4", "IPv6": "IPV6", "Internal": "INTERNAL", "Labels": "LABELS"}
_RAW = [("network_id", "ID"), ("name", "Name"), ("driver", "Driver"), ("scope", "Scope")]
_LISTING = Listing(_COLUMNS, _HEADERS, _RAW, quiet="ID")


def cmd_ls(args: list[str], ctx: Context) -> int:
    """List networks."""
    spec = FlagSet("network ls", "ketch network ls [OPTIONS]", "List networks").list("filter", "f", "which ones")
    spec.string("format", "", FORMAT).bool("quiet", "q", "ids only").bool("no-trunc", "", "whole ids")
    opts, rest = spec.parse(args)
    spec.arguments(rest, 0, 0)
    networks = ctx.client().request("GET", "/networks", {"filters": filters(opts["filter"])}).json()
    rows = [of_network(n, whole=opts["no-trunc"]) for n in sorted(networks, key=lambda n: natural(n["Name"]))]
    ctx.show(_LISTING.text(rows, opts["format"], quiet=opts["quiet"]))
    return 0


def cmd_inspect(args: list[str], ctx: Context) -> int:
    """Show all details of networks."""
    from ketch.cli.inspection import inspect

    spec = FlagSet(
        "network inspect", "ketch network inspect [OPTIONS] NETWORK [NETWORK...]", "Display networks in detail"
    )
    spec.string("format", "f", FORMAT).bool("verbose", "v", "no effect: it tells more of a swarm's networks")
    opts, rest = spec.parse(args)
    spec.arguments(rest, 1)
    return inspect(ctx, rest, ["network"], opts["format"])


def cmd_create(args: list[str], ctx: Context) -> int:
    """Make a network."""
    spec = FlagSet("network create", "ketch network create [OPTIONS] NETWORK", "Create a network")
    spec.string("driver", "d", "bridge, macvlan or ipvlan", default="bridge").list("opt", "o", "driver options")
    spec.list("label", "", "a label").list("subnet", "", "a subnet, in CIDR form").list("gateway", "", "its gateway")
    spec.list("ip-range", "", "the part of the subnet for containers").list("aux-address", "", "NAME=ADDRESS in use")
    spec.string("ipam-driver", "", "where addresses come from", default="default").list("ipam-opt", "", "its options")
    spec.bool("internal", "", "no way outside").bool("attachable", "", "as with Docker").bool("ipv6", "", "with IPv6")
    spec.bool("ipv4", "", "with IPv4", default=True).string("scope", "", "where it is known: local")
    spec.bool("config-only", "", "settings alone, which others are made from")
    spec.string("config-from", "", "the network of settings that it is made from")
    opts, rest = spec.parse(args)
    spec.arguments(rest, 1, 1)
    body: ApiObject = {
        "Name": rest[0],
        "Driver": opts["driver"],
        "Internal": opts["internal"],
        "Attachable": opts["attachable"],
        "Scope": opts["scope"],
        "ConfigOnly": opts["config-only"],
        "Options": _pairs(opts["opt"]),
        "Labels": _pairs(opts["label"]),
        "IPAM": {
            "Driver": opts["ipam-driver"],
            "Options": _pairs(opts["ipam-opt"]),
            "Config": pools(opts["subnet"], opts["gateway"], opts["ip-range"], _pairs(opts["aux-address"])),
        },
    }
    if opts["config-from"]:
        body["ConfigFrom"] = {"Network": opts["config-from"]}
    for flag, key in (("ipv4", "EnableIPv4"), ("ipv6", "EnableIPv6")):
        if flag in opts.given:
            body[key] = opts[flag]
    ctx.print(ctx.client().request("POST", "/networks/create", None, body).json()["Id"])
    return 0


def _pairs(items: list[str]) -> dict[str, str]:
    return dict(item.partition("=")[::2] for item in items)


def pools(subnets: list[str], gateways: list[str], ranges: list[str], aux: dict[str, str]) -> list[ApiObject]:
    """The subnets with their ``--gateway``, ``--ip-range`` and ``--aux-address`` (InvalidArgument)."""
    import ipaddress

    found: list[tuple[Any, ApiObject]] = []
    for text in subnets:
        try:
            network = ipaddress.ip_network(text, strict=False)
        except ValueError as e:
            raise InvalidArgument(f"invalid subnet {text}: {e}", hint="use e.g. 172.30.0.0/16") from e
        if any(network.version == other.version and network.overlaps(other) for other, _ in found):
            raise InvalidArgument("multiple overlapping subnet configuration is not supported")
        found.append((network, {"Subnet": text}))

    def pool_of(text: str, what: str) -> ApiObject:
        try:
            address = ipaddress.ip_interface(text).ip
        except ValueError as e:
            raise InvalidArgument(f"invalid {what} {text}: {e}") from e
        for network, entry in found:
            if address in network:
                return entry
        raise InvalidArgument(f"no matching subnet for {what} {text}", hint="name the subnet with --subnet")

    for text in ranges:
        pool_of(text, "range")["IPRange"] = text
    for text in gateways:
        pool_of(text, "gateway")["Gateway"] = text
    for name, address in aux.items():
        pool_of(address, "aux-address").setdefault("AuxiliaryAddresses", {})[name] = address
    return [entry for _, entry in found]


def cmd_rm(args: list[str], ctx: Context) -> int:
    """Remove networks."""
    spec = FlagSet("network rm", "ketch network rm NETWORK [NETWORK...]", "Remove one or more networks")
    spec.bool("force", "f", "a missing one is no error")
    opts, rest = spec.parse(args)
    spec.arguments(rest, 1)

    def remove(name: str) -> bool:
        from ketch.errors import NotFound

        try:
            ctx.client().request("DELETE", f"/networks/{name}")
        except NotFound:
            if not opts["force"]:
                raise
            return False
        return True

    return each(ctx, rest, remove, lambda name, removed: name if removed else "")


def cmd_connect(args: list[str], ctx: Context) -> int:
    """Connect a container to a network."""
    spec = FlagSet(
        "network connect", "ketch network connect [OPTIONS] NETWORK CONTAINER", "Connect a container to a network"
    )
    spec.list("alias", "", "another name for the container there").string("ip", "", "its IPv4 address")
    spec.string("ip6", "", "its IPv6 address").list("link", "", "a name for another container")
    spec.list("driver-opt", "", "driver options").int("gw-priority", "", "the highest is the way outside")
    spec.list("link-local-ip", "", "a link-local address")
    opts, rest = spec.parse(args)
    spec.arguments(rest, 2, 2)
    settings: ApiObject = {}
    if opts["ip"] or opts["ip6"]:
        settings["IPAMConfig"] = {"IPv4Address": opts["ip"], "IPv6Address": opts["ip6"]}
    for flag, key in (("alias", "Aliases"), ("link", "Links")):
        if opts[flag]:
            settings[key] = opts[flag]
    if opts["driver-opt"]:
        settings["DriverOpts"] = _pairs(opts["driver-opt"])
    if opts["gw-priority"]:
        settings["GwPriority"] = opts["gw-priority"]
    body = {"Container": rest[1], "EndpointConfig": settings}
    ctx.client().request("POST", f"/networks/{rest[0]}/connect", None, body)
    return 0


def cmd_disconnect(args: list[str], ctx: Context) -> int:
    """Disconnect a container from a network."""
    spec = FlagSet(
        "network disconnect",
        "ketch network disconnect [OPTIONS] NETWORK CONTAINER",
        "Disconnect a container from a network",
    )
    spec.bool("force", "f", "also a container that is gone")
    opts, rest = spec.parse(args)
    spec.arguments(rest, 2, 2)
    body = {"Container": rest[1], "Force": opts["force"]}
    ctx.client().request("POST", f"/networks/{rest[0]}/disconnect", None, body)
    return 0


def cmd_repair(args: list[str], ctx: Context) -> int:
    """Restore links, addresses and firewall rules that other programs removed."""
    spec = FlagSet(
        "network repair", "ketch network repair", "Put back links, addresses and firewall rules that others removed"
    )
    _, rest = spec.parse(args)
    spec.arguments(rest, 0, 0)
    answer = ctx.client().request("POST", "/ketch/networks/repair").json()
    ctx.print("\n".join(answer["Done"]) or "nothing was missing")
    for warning in answer["Warnings"]:
        ctx.warn(f"WARNING: {warning}")
    return 0
