"""``import-docker``: images, volumes, networks and containers of a Docker on this machine, made anew in Ketch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ketch.cli.importing import execution, plan
from ketch.cli.importing.ours import Ours
from ketch.cli.importing.source import KINDS
from ketch.cli.importing.sources import opened
from ketch.cli.options import progress_flags
from ketch.cli.options.flags import FORMAT, FlagSet
from ketch.cli.output import progress
from ketch.cli.output.listing import Listing
from ketch.errors import InvalidArgument
from ketch.notation.sizes import human_size

if TYPE_CHECKING:
    from ketch.cli.context import Context
    from ketch.cli.importing.plan import Part
    from ketch.cli.options.flags import Options
    from ketch.cli.output.listing import Row

_LISTING = Listing(
    columns=[("ACTION", "Action"), ("KIND", "Kind"), ("NAME", "Name"), ("SIZE", "Size"), ("NOTE", "Note")]
)
_VOLUMES = ("copy", "bind")


def cmd_import_docker(args: list[str], ctx: Context) -> int:
    """Plan, and with ``--yes`` carry out, the import of what a Docker has."""
    spec = FlagSet(
        "import-docker",
        "ketch import-docker [OPTIONS] [CONTAINER...]",
        "Import images, volumes, networks and containers from Docker; without --yes show what would be done",
    )
    spec.string("from", "", "Docker's address, or its data root while no dockerd runs").bool("yes", "y", "do it")
    spec.list("skip", "", "leave out images, volumes, networks or containers")
    spec.string("volumes", "", "copy their files, or bind them where they are", default="copy")
    spec.bool("changes", "", "also what containers wrote into their roots, as an image of each")
    spec.string("format", "", FORMAT)
    progress_flags.add_flags(spec)
    opts, rest = spec.parse(args)
    wish = _wish(opts, rest)
    ctx.only_ketch("import-docker", "cannot be imported into")
    with opened(opts["from"]) as source:
        ours = Ours(ctx.client())
        planner = plan.Planner(source, ours, wish)
        parts = planner.parts()
        if not opts["yes"]:
            return _show_plan(ctx, parts, opts["format"])
        return _carry_out(
            ctx, execution.Execution(ctx, source, ours, planner, lambda: _progress(ctx, opts)), parts, opts
        )


def _wish(opts: Options, names: list[str]) -> plan.Wish:
    kinds = {f"{kind}s": kind for kind in KINDS}
    skipped = [word for item in opts["skip"] for word in item.split(",")]
    for word in skipped:
        if word not in kinds:
            raise InvalidArgument(f"--skip {word}: not a kind", hint=f"one of {', '.join(kinds)}")
    if opts["volumes"] not in _VOLUMES:
        raise InvalidArgument(f"--volumes {opts['volumes']}: not known", hint="copy or bind")
    return plan.Wish(tuple(names), tuple(kinds[word] for word in skipped), opts["volumes"] == "bind", opts["changes"])


def _progress(ctx: Context, opts: Options) -> progress.Progress:
    mode = progress_flags.chosen(opts)
    drawn = mode == "auto" and ctx.err.isatty()
    return progress.Progress(ctx, "auto" if drawn else "quiet", ctx.err)


def _show_plan(ctx: Context, parts: list[Part], form: str) -> int:
    ctx.show(_LISTING.text([_row(part) for part in parts], form))
    if not form and any(part.action == plan.IMPORT for part in parts):
        ctx.warn("This is a plan. Nothing is done without --yes, and nothing of Docker's is changed.")
    return int(any(part.action == plan.UNREADABLE for part in parts))


def _carry_out(ctx: Context, execution_: execution.Execution, parts: list[Part], opts: Options) -> int:
    results = execution_.run(parts, lambda part: _tell(ctx, part, opts))
    failed = [part for part in results if part.action == execution.FAILED]
    if not opts["format"] and not opts["quiet"]:
        done = sum(part.action == execution.IMPORTED for part in results)
        there = sum(part.action == plan.THERE for part in results)
        skipped = sum(part.action == plan.SKIPPED for part in results)
        ctx.print(f"{done} imported, {there} there before, {skipped} skipped, {len(failed)} failed")
    if failed:
        ctx.warn("ketch: what failed can be imported again: what is there by then is not touched")
    return int(bool(failed))


def _tell(ctx: Context, part: Part, opts: Options) -> None:
    if opts["format"]:
        ctx.show(_LISTING.text([_row(part)], opts["format"]))
    elif part.action == execution.FAILED:
        ctx.out.flush()
        ctx.warn(f"ketch: import {part.kind} {part.name}: {part.note}")
    elif not opts["quiet"]:
        ctx.print(f"{part.action} {part.kind} {part.name}" + (f": {part.note}" if part.note else ""))
    ctx.out.flush()


def _row(part: Part) -> Row:
    size = human_size(part.size, 4) if part.size >= 0 else ""
    return {"Action": part.action, "Kind": part.kind, "Name": part.name, "Size": size, "Note": part.note}
