"""``prune``: removal of containers, images, volumes and networks that are not in use; ``--dry-run`` shows them."""

from __future__ import annotations

import sys

from ketch.cli import dry_run
from ketch.cli.options.flags import FlagSet
from ketch.cli.output.listing import filters
from ketch.errors import InvalidArgument, NotFound, Unimplemented
from ketch.notation.sizes import human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.cli.context import Context
    from ketch.cli.options.flags import Options
    from ketch.notation.api_objects import ApiObject


def cmd_containers(args: list[str], ctx: Context) -> int:
    """Remove all stopped containers."""
    spec = _spec("container prune", "Remove all stopped containers")
    opts = _parsed(spec, args)
    return _prune(ctx, opts, "containers", opts["filter"], "all stopped containers.")


def cmd_images(args: list[str], ctx: Context) -> int:
    """Remove unused images."""
    spec = _spec("image prune", "Remove unused images").bool("all", "a", "also those with a name")
    opts = _parsed(spec, args)
    what = "images without at least one container associated to them." if opts["all"] else "dangling images."
    return _prune(ctx, opts, "images", opts["filter"] + (["dangling=false"] if opts["all"] else []), f"all {what}")


def cmd_volumes(args: list[str], ctx: Context) -> int:
    """Delete the volumes that no container uses."""
    spec = _spec("volume prune", "Remove unused local volumes").bool("all", "a", "also those with a name")
    opts = _parsed(spec, args)
    what = "all local volumes" if opts["all"] else "anonymous local volumes"
    chosen = opts["filter"] + (["all=true"] if opts["all"] else [])
    return _prune(ctx, opts, "volumes", chosen, f"{what} not used by at least one container.")


def cmd_networks(args: list[str], ctx: Context) -> int:
    """Remove the networks without containers."""
    opts = _parsed(_spec("network prune", "Remove all unused networks"), args)
    return _prune(ctx, opts, "networks", opts["filter"], "all custom networks not used by at least one container.")


def cmd_system(args: list[str], ctx: Context) -> int:
    """Remove unused containers, networks, images (and volumes)."""
    spec = _spec("system prune", "Remove unused data").bool("all", "a", "all unused images, not just dangling ones")
    spec.bool("volumes", "", "also anonymous volumes")
    opts = _parsed(spec, args)
    if opts["volumes"] and any(item.partition("=")[0].strip() == "until" for item in opts["filter"]):
        raise InvalidArgument('the "until" filter is not supported with "--volumes"')
    kinds = ["containers", "networks", *(["volumes"] if opts["volumes"] else []), "images"]
    chosen = {kind: list(opts["filter"]) for kind in kinds}
    if opts["all"]:
        chosen["images"].append("dangling=false")
    if opts["dry-run"]:
        return dry_run.run(
            ctx, [("POST", f"/{kind}/prune", {"filters": filters(chosen[kind])}) for kind in kinds], opts
        )
    if not opts["force"] and not confirm(ctx, _warning(opts)):
        return 0
    space = 0
    for kind in kinds:
        answer = ctx.client().request("POST", f"/{kind}/prune", {"filters": filters(chosen[kind])}).json()
        _show(ctx, answer)
        space += answer.get("SpaceReclaimed") or 0
    ctx.print("Total reclaimed space: " + human_size(space + _build_cache(ctx, opts), dry_run.DIGITS))
    return 0


def _warning(opts: Options) -> str:
    lines = ["all stopped containers", "all networks not used by at least one container"]
    if opts["volumes"]:
        lines.append("all anonymous volumes not used by at least one container")
    if opts["all"]:
        lines.append("all images without at least one container associated to them")
    else:
        lines.append("all dangling images")
    lines.append("all build cache" if opts["all"] else "unused build cache")
    text = "This will remove:\n" + "".join(f"  - {line}\n" for line in lines)
    if opts["filter"]:
        text += "\n  Items to be pruned will be filtered with:\n" + "".join(f"  - {f}\n" for f in opts["filter"])
    return text + "\n"


def _build_cache(ctx: Context, opts: Options) -> int:
    """Prune the build cache; returns the bytes (a daemon that cannot build has none)."""
    query = {"filters": filters(opts["filter"]), "all": opts["all"] or None}
    try:
        answer = ctx.client().request("POST", "/build/prune", query).json()
    except (NotFound, Unimplemented):
        return 0
    if answer.get("CachesDeleted"):
        ctx.print("Deleted build cache objects:\n" + "\n".join(answer["CachesDeleted"]) + "\n")
    return int(answer.get("SpaceReclaimed") or 0)


def _spec(command: str, summary: str) -> FlagSet:
    spec = FlagSet(command, f"ketch {command} [OPTIONS]", summary)
    spec.bool("force", "f", "do not ask").list("filter", "", "which ones")
    return dry_run.add_flags(spec)


def _parsed(spec: FlagSet, args: list[str]) -> Options:
    opts, rest = spec.parse(args)
    spec.arguments(rest, 0, 0)
    dry_run.check_format(opts)
    return opts


def _prune(ctx: Context, opts: Options, kind: str, chosen: list[str], what: str) -> int:
    query = {"filters": filters(chosen)}
    if opts["dry-run"]:
        return dry_run.run(ctx, [("POST", f"/{kind}/prune", query)], opts)
    if not opts["force"] and not confirm(ctx, f"This will remove {what}\n"):
        return 0
    answer = ctx.client().request("POST", f"/{kind}/prune", query).json()
    _show(ctx, answer)
    if "SpaceReclaimed" in answer:
        ctx.print("Total reclaimed space: " + human_size(answer["SpaceReclaimed"], dry_run.DIGITS))
    return 0


def _show(ctx: Context, answer: ApiObject) -> None:
    """Print the deleted objects by type, in Docker's form."""
    for kind in dry_run.KINDS:
        gone = answer.get(f"{kind}Deleted")
        if kind == "Images":
            gone = [f"{action.lower()}: {what}" for row in gone or () for action, what in row.items()]
        if gone:
            ctx.print(f"Deleted {kind}:\n" + "\n".join(gone) + "\n")


def confirm(ctx: Context, warning: str) -> bool:
    """Ask before something is deleted; anything but y is no, which is no failure."""
    ctx.out.write(f"WARNING! {warning}Are you sure you want to continue? [y/N] ")
    ctx.out.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")
