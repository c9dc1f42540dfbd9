"""``top`` and ``port``: a container's processes, and its published ports."""

from __future__ import annotations

from ketch import printable
from ketch.cli.options.flags import FORMAT, FlagSet
from ketch.errors import NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.cli.context import Context


def cmd_top(args: list[str], ctx: Context) -> int:
    """List the processes of a container; without one, show what all containers use."""
    spec = FlagSet(
        "top",
        "ketch top [OPTIONS] | ketch top CONTAINER [ps OPTIONS]",
        "Display the running processes of a container, or the load of all containers",
        interspersed=False,
    )
    spec.string("sort", "", "by cpu, memory, network, block, pids or name (default cpu)")
    spec.bool("reverse", "r", "the smallest first").bool("all", "a", "also containers that do not run")
    spec.string("interval", "", "seconds between two readings (default 1)")
    spec.bool("no-stream", "", "only the first result").string("format", "", FORMAT)
    opts, rest = spec.parse(args)
    if not rest:
        from ketch.cli.top.live import show_all

        return show_all(ctx, opts)
    query = {"ps_args": " ".join(rest[1:])} if rest[1:] else None
    answer = ctx.client().request("GET", f"/containers/{rest[0]}/top", query).json()
    rows = [[printable.cell(cell) for cell in row] for row in (answer["Titles"], *answer["Processes"])]
    widths = [max(20, max(len(row[i]) for row in rows) + 1) for i in range(len(rows[0]) - 1)]
    for row in rows:
        ctx.print("".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]))
    return 0


def cmd_port(args: list[str], ctx: Context) -> int:
    """List a container's published ports."""
    spec = FlagSet("port", "ketch port CONTAINER [PRIVATE_PORT[/PROTO]]", "List port mappings of a container")
    _, rest = spec.parse(args)
    spec.arguments(rest, 1, 2)
    facts = ctx.client().request("GET", f"/containers/{rest[0]}/json").json()
    ports = facts["NetworkSettings"]["Ports"] or {}
    if len(rest) > 1:
        wanted = rest[1] if "/" in rest[1] else f"{rest[1]}/tcp"
        if not ports.get(wanted):
            raise NotFound(f"no public port '{wanted}' published for {rest[0]}")
        for binding in ports[wanted]:
            ctx.print(_address(binding))
        return 0
    for port in sorted(ports, key=lambda p: (int(p.partition("/")[0]), p)):
        for binding in ports[port] or ():
            ctx.print(f"{port} -> {_address(binding)}")
    return 0


def _address(binding: dict[str, str]) -> str:
    host = binding["HostIp"]
    return f"[{host}]:{binding['HostPort']}" if ":" in host else f"{host}:{binding['HostPort']}"
