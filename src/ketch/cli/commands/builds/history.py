"""``build history``: the builds that the daemon remembers."""

from __future__ import annotations

import json
import time

from ketch.cli.each import each
from ketch.cli.options.flags import FORMAT, FlagSet, HelpRequested
from ketch.cli.output.build_display import BuildDisplay
from ketch.cli.output.listing import Listing, since, table
from ketch.errors import InvalidArgument, NotFound
from ketch.notation import moments

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.cli.context import Context
    from ketch.cli.output.listing import Row
    from ketch.notation.api_objects import ApiObject

_PATH = "/ketch/builds"
_COLUMNS = [
    ("BUILD ID", "Ref"),
    ("NAME", "Name"),
    ("STATUS", "Status"),
    ("CREATED AT", "CreatedAt"),
    ("DURATION", "Duration"),
]
_WORDS = {"running": "Running", "completed": "Completed", "error": "Error", "canceled": "Canceled"}
_USAGE = "Usage:  ketch build history COMMAND\n\nCommands:\n  inspect\n  logs\n  ls\n  rm\n"


def cmd_history(args: list[str], ctx: Context) -> int:
    """Look at past builds."""
    commands = {"ls": _ls, "rm": _rm, "inspect": _inspect, "logs": _logs}
    if not args or args[0] not in commands:
        if args[:1] in (["--help"], ["-h"]):
            raise HelpRequested(_USAGE)
        ctx.show(_USAGE)
        return 1 if args else 0
    ctx.only_ketch("build history", "does not tell of its builds in this way")
    return commands[args[0]](args[1:], ctx)


def _ls(args: list[str], ctx: Context) -> int:
    spec = FlagSet("build history ls", "ketch build history ls [OPTIONS]", "List builds")
    spec.string("format", "", FORMAT).bool("no-trunc", "", "whole names").bool("quiet", "q", "only ids")
    spec.list("filter", "", "which ones (status=error, name=…)")
    opts, rest = spec.parse(args)
    spec.arguments(rest, 0, 0)
    rows = [_row(build, whole=opts["no-trunc"]) for build in _builds(ctx) if _matches(build, opts["filter"])]
    ctx.show(Listing(_COLUMNS, {}, quiet="Ref").text(rows, opts["format"], quiet=opts["quiet"]))
    return 0


def _builds(ctx: Context) -> list[ApiObject]:
    found: list[ApiObject] = ctx.client().request("GET", _PATH).json() or []
    return sorted(found, key=lambda build: (build["status"] != "running", -_at(build["created"])))


def _matches(build: ApiObject, chosen: list[str]) -> bool:
    for item in chosen:
        name, equals, value = item.partition("=")
        if not equals or name not in ("status", "name", "ref"):
            raise InvalidArgument(f"invalid filter `{item}`", hint="use status=…, name=… or ref=…")
        if value.lower() not in str(build.get(name, "")).lower():
            return False
    return True


def _at(text: str | None) -> int:
    return (moments.rfc3339(text) if text else None) or 0


def _row(build: ApiObject, *, whole: bool) -> Row:
    name = str(build.get("name") or "")
    began, ended = _at(build["created"]), _at(build.get("completed"))
    took = (ended or time.time_ns()) - began
    return {
        "Ref": build["ref"],
        "Name": name if whole or len(name) <= 36 else f"..{name[-34:]}",
        "Status": _WORDS.get(build["status"], build["status"]),
        "CreatedAt": since(began / 1e9),
        "Duration": f"{took / 1e9:.1f}s{'' if ended else '+'}",
        "TotalSteps": build.get("total_steps", 0),
        "CachedSteps": build.get("cached_steps", 0),
    }


def _the(ctx: Context, reference: str) -> str:
    """The id that a reference means: a beginning, or ``^N``, the Nth before the last; nothing: the last one."""
    builds = _builds(ctx)
    if reference in ("", "^0") or (reference.startswith("^") and reference[1:].isdigit()):
        number = int(reference[1:] or 0)
        if number < len(builds):
            return str(builds[number]["ref"])
        raise NotFound("no build records found" if not builds else f"there are only {len(builds)} builds")
    found = [str(build["ref"]) for build in builds if str(build["ref"]).startswith(reference)]
    if reference in found or len(found) == 1:
        return reference if reference in found else found[0]
    raise NotFound(f"no build `{reference}`" if not found else f"`{reference}` is the beginning of several builds")


def _rm(args: list[str], ctx: Context) -> int:
    spec = FlagSet("build history rm", "ketch build history rm [OPTIONS] [REF...]", "Remove records of builds")
    opts, rest = spec.bool("all", "", "all of them").parse(args)
    if bool(rest) is opts["all"]:
        raise InvalidArgument("give the builds' ids, or --all" if not rest else "--all and ids: give one of them")

    def remove(name: str) -> None:
        ctx.client().request("DELETE", f"{_PATH}/{_the(ctx, name)}")

    return each(ctx, [b["ref"] for b in _builds(ctx)] if opts["all"] else rest, remove)


def _inspect(args: list[str], ctx: Context) -> int:
    spec = FlagSet("build history inspect", "ketch build history inspect [OPTIONS] [REF]", "Show a build")
    opts, rest = spec.string("format", "", "json: all that is known").parse(args)
    spec.arguments(rest, 0, 1)
    build = ctx.client().request("GET", f"{_PATH}/{_the(ctx, rest[0] if rest else '')}").json()
    if opts["format"] in ("json", "{{json .}}"):
        ctx.show(json.dumps(build, indent=2) + "\n")
        return 0
    if opts["format"]:
        from ketch.cli.gotemplate.template import Template

        ctx.print(Template(opts["format"]).render(build))
        return 0
    row = _row(build, whole=True)
    steps = f"{build.get('total_steps', 0)} ({build.get('cached_steps', 0)} cached)"
    facts = [
        ("Name", row["Name"]),
        ("Ref", row["Ref"]),
        ("Context", build.get("context")),
        ("Dockerfile", build.get("dockerfile")),
        ("Status", row["Status"]),
        ("Created", build["created"]),
        ("Duration", row["Duration"]),
        ("Steps", steps),
        ("Platforms", ", ".join(build.get("platforms") or ())),
        ("Image", build.get("image")),
        ("Error", build.get("error")),
    ]
    ctx.print(table([[f"{name}:", str(value)] for name, value in facts if value]))
    for name, value in sorted((build.get("arguments") or {}).items()):
        ctx.print(f"Build arg {name}={value}")
    return 0


def _logs(args: list[str], ctx: Context) -> int:
    spec = FlagSet("build history logs", "ketch build history logs [OPTIONS] [REF]", "Show what a build wrote")
    opts, rest = spec.string("progress", "", "plain, rawjson or tty", default="plain").parse(args)
    spec.arguments(rest, 0, 1)
    reference = _the(ctx, rest[0] if rest else "")
    response = ctx.client().request("GET", f"{_PATH}/{reference}/logs", stream=True)
    with BuildDisplay(ctx.err, opts["progress"]) as display:
        for item in response.stream_lines():
            if "status" in item:
                display.feed(item["status"])
    return 0
