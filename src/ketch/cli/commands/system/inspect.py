"""``inspect`` for containers, images, volumes and networks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ketch import printable
from ketch.cli.options.flags import FlagSet
from ketch.errors import InvalidArgument, KetchError, NotFound

if TYPE_CHECKING:
    from typing import Any

    from ketch.cli.context import Context

# In this order a name is looked for when --type does not say what it is.
_PATHS = {
    "container": "/containers/{}/json",
    "image": "/images/{}/json",
    "network": "/networks/{}",
    "volume": "/volumes/{}",
}


def cmd_inspect(args: list[str], ctx: Context) -> int:
    """Everything about one or more objects, as JSON or as a template says."""
    spec = FlagSet("inspect", "ketch inspect [OPTIONS] NAME|ID [NAME|ID...]", "Return low-level information on objects")
    spec.string("format", "f", "how").bool("size", "s", "sizes on disk").string("type", "", "what kind of object")
    spec.string("as", "", "containers as what would make them again: run, compose")
    opts, rest = spec.parse(args)
    spec.arguments(rest, 1)
    if opts["as"]:
        return _recreate(ctx, rest, opts["as"])
    kinds = [opts["type"]] if opts["type"] else list(_PATHS)
    if kinds[0] not in _PATHS:
        raise InvalidArgument(f'"{opts["type"]}" is not a valid value for --type', hint=f"use {', '.join(_PATHS)}")
    return many(ctx, rest, kinds, opts["format"], size=opts["size"])


def cmd_container(args: list[str], ctx: Context) -> int:
    """Everything about containers alone."""
    return _of_kind("container", args, ctx)


def cmd_image(args: list[str], ctx: Context) -> int:
    """Everything about images alone."""
    return _of_kind("image", args, ctx)


def _recreate(ctx: Context, refs: list[str], form: str) -> int:
    """``--as run|compose``: all containers are there, or nothing is printed (NotFound)."""
    from ketch.cli.recreate import configuration

    if form not in ("run", "compose"):
        raise InvalidArgument(f'"{form}" is not a valid value for --as', hint="use run or compose")
    client = ctx.client()
    found = []
    for ref in refs:
        facts = client.request("GET", f"/containers/{ref}/json").json()
        image = client.request("GET", f"/images/{facts['Image']}/json").json()
        found.append(configuration.Wanted(facts, image.get("Config") or {}))
    if form == "run":
        from ketch.cli.recreate.as_run import command_line

        for one in found:
            ctx.print(command_line(one))
            for secret in one.secrets:
                ctx.warn(f"WARNING: {one.name}: the daemon does not tell where secret {secret} comes from; put it in")
    else:
        from ketch.cli.output import yaml_text
        from ketch.cli.recreate import as_compose

        ctx.show(yaml_text.dump(as_compose.document(found)))
        for one in found:
            for what in as_compose.left_out(one, found):
                ctx.warn(f"WARNING: {one.name}: Compose has no words for {what}; left out")
    return 0


def _of_kind(kind: str, args: list[str], ctx: Context) -> int:
    usage = f"ketch {kind} inspect [OPTIONS] {kind.upper()} [{kind.upper()}...]"
    spec = FlagSet(f"{kind} inspect", usage, f"Display detailed information on one or more {kind}s")
    spec.string("format", "f", "how")
    if kind == "container":
        spec.bool("size", "s", "sizes on disk").string("as", "", "as what would make them again: run, compose")
    elif kind == "image":
        spec.string("platform", "", "of several, this one")
    opts, rest = spec.parse(args)
    spec.arguments(rest, 1)
    if kind == "container" and opts["as"]:
        return _recreate(ctx, rest, opts["as"])
    platform = opts["platform"] if kind == "image" else ""
    return many(ctx, rest, [kind], opts["format"], size=kind == "container" and opts["size"], platform=platform)


def many(ctx: Context, refs: list[str], kinds: list[str], form: str, *, size: bool = False, platform: str = "") -> int:
    """Inspect each; what was found is printed even when something was not."""
    template = None
    if form and form != "json":
        from ketch.cli.gotemplate.template import Template

        template = Template(form)
    found: list[Any] = []
    errors: list[KetchError] = []
    for ref in refs:
        try:
            found.append(_one(ctx, ref, kinds, size=size, platform=platform))
        except KetchError as e:
            errors.append(e)
    if template is not None:
        for one in found:
            ctx.print(template.render(one))
    elif form == "json":
        ctx.print(json.dumps(found, separators=(",", ":")))
    else:
        ctx.print(printable.json_text(json.dumps(found, indent=4, ensure_ascii=False)))
    ctx.out.flush()
    for error in errors:
        ctx.warn(f"ketch: {error.message}" + (f"\n  {error.hint}" if error.hint else ""))
    return 1 if errors else 0


def _one(ctx: Context, ref: str, kinds: list[str], *, size: bool, platform: str) -> Any:
    for kind in kinds:
        query: dict[str, Any] | None = {"size": True} if size and kind == "container" else None
        if platform:
            from ketch.cli.commands.images.images import platform_json

            query = {"platform": platform_json(platform)}
        try:
            return ctx.client().request("GET", _PATHS[kind].format(ref), query).json()
        except NotFound:
            if len(kinds) == 1:
                raise
        except InvalidArgument:
            if kind != "image":  # a name of another kind of object need not be a reference
                raise
    raise NotFound(f"no such object: {ref}")
