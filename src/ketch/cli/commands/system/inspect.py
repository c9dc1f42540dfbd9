"""``inspect`` for containers, images, volumes and networks."""

from __future__ import annotations

from ketch.cli.inspection import PATHS, inspect
from ketch.cli.options.flags import FORMAT, FlagSet
from ketch.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.cli.context import Context
    from ketch.client.http import Client


def cmd_inspect(args: list[str], ctx: Context) -> int:
    """Show all details of objects, as JSON or by a template."""
    spec = FlagSet("inspect", "ketch inspect [OPTIONS] NAME|ID [NAME|ID...]", "Return low-level information on objects")
    spec.string("format", "f", FORMAT).bool("size", "s", "sizes on disk").string("type", "", "what kind of object")
    spec.string("as", "", "containers as what would make them again: run, compose")
    opts, rest = spec.parse(args)
    spec.arguments(rest, 1)
    if opts["as"]:
        return _recreate(ctx, rest, opts["as"])
    kinds = [opts["type"]] if opts["type"] else list(PATHS)
    if kinds[0] not in PATHS:
        raise InvalidArgument(f'"{opts["type"]}" is not a valid value for --type', hint=f"use {', '.join(PATHS)}")
    return inspect(ctx, rest, kinds, opts["format"], size=opts["size"])


def cmd_container(args: list[str], ctx: Context) -> int:
    """Show all details of containers."""
    return _of_kind("container", args, ctx)


def cmd_image(args: list[str], ctx: Context) -> int:
    """Show all details of images."""
    return _of_kind("image", args, ctx)


def _has_own_cgroups(client: Client) -> bool:
    """Whether a container that asks for none has a cgroup namespace of its own."""
    return "name=cgroupns" in (client.request("GET", "/info").json().get("SecurityOptions") or ())


def _recreate(ctx: Context, refs: list[str], format: str) -> int:
    """``--as run|compose``: all containers are there, or nothing is printed (NotFound)."""
    from ketch.cli.recreate.create_request import CreateRequest

    if format not in ("run", "compose"):
        raise InvalidArgument(f'"{format}" is not a valid value for --as', hint="use run or compose")
    client = ctx.client()
    found = []
    for ref in refs:
        facts = client.request("GET", f"/containers/{ref}/json").json()
        image = client.request("GET", f"/images/{facts['Image']}/json").json()
        if facts["HostConfig"].get("CgroupnsMode") == "host" and not _has_own_cgroups(client):
            del facts["HostConfig"]["CgroupnsMode"]
        found.append(CreateRequest(facts, image.get("Config") or {}))
    if format == "run":
        from ketch.cli.recreate.as_run import command_line

        for request in found:
            ctx.print(command_line(request))
            for secret in request.secrets:
                ctx.warn(
                    f"WARNING: {request.name}: the daemon does not tell where secret {secret} comes from; put it in"
                )
    else:
        from ketch.cli.output import yaml_text
        from ketch.cli.recreate import as_compose

        ctx.show(yaml_text.dump(as_compose.document(found)))
        for request in found:
            for what in as_compose.left_out(request, found):
                ctx.warn(f"WARNING: {request.name}: Compose has no words for {what}; left out")
    return 0


def _of_kind(kind: str, args: list[str], ctx: Context) -> int:
    usage = f"ketch {kind} inspect [OPTIONS] {kind.upper()} [{kind.upper()}...]"
    spec = FlagSet(f"{kind} inspect", usage, f"Display detailed information on one or more {kind}s")
    spec.string("format", "f", FORMAT)
    if kind == "container":
        spec.bool("size", "s", "sizes on disk").string("as", "", "as what would make them again: run, compose")
    elif kind == "image":
        spec.string("platform", "", "of several, this one")
    opts, rest = spec.parse(args)
    spec.arguments(rest, 1)
    if kind == "container" and opts["as"]:
        return _recreate(ctx, rest, opts["as"])
    platform = opts["platform"] if kind == "image" else ""
    return inspect(ctx, rest, [kind], opts["format"], size=kind == "container" and opts["size"], platform=platform)
