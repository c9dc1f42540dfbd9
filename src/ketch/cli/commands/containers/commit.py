"""``commit``, ``diff`` and ``export``: the changes in a container's files."""

from __future__ import annotations

import sys

from ketch import printable
from ketch.cli.files import write_out
from ketch.cli.image_names import split_tag
from ketch.cli.options.flags import FlagSet
from ketch.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.cli.context import Context

_LETTERS = "CAD"


def cmd_commit(args: list[str], ctx: Context) -> int:
    """Make an image from a container."""
    spec = FlagSet(
        "commit",
        "ketch commit [OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
        "Create a new image from a container's changes",
    )
    spec.string("author", "a", "who made it").list("change", "c", "apply a Dockerfile instruction")
    spec.string("message", "m", "say what it is").bool("pause", "p", "pause the container meanwhile", default=True)
    opts, rest = spec.parse(args)
    spec.arguments(rest, 1, 2)
    repo, tag = split_tag(rest[1]) if len(rest) > 1 else ("", "")
    query = {
        "container": rest[0],
        "repo": repo or None,
        "tag": tag or None,
        "author": opts["author"] or None,
        "comment": opts["message"] or None,
        "changes": opts["change"],
        "pause": opts["pause"],
    }
    ctx.print(ctx.client().request("POST", "/commit", query).json()["Id"])
    return 0


def cmd_diff(args: list[str], ctx: Context) -> int:
    """List a container's changes: added, changed, deleted."""
    spec = FlagSet(
        "diff", "ketch diff CONTAINER", "Inspect changes to files or directories on a container's filesystem"
    )
    _, rest = spec.parse(args)
    spec.arguments(rest, 1, 1)
    for change in ctx.client().request("GET", f"/containers/{rest[0]}/changes").json() or ():
        line = f"{_LETTERS[change['Kind']]} {change['Path']}"
        ctx.print(printable.cell(line) if ctx.out.isatty() else line)
    return 0


def cmd_export(args: list[str], ctx: Context) -> int:
    """Write a container's root filesystem as a tar archive."""
    spec = FlagSet("export", "ketch export [OPTIONS] CONTAINER", "Export a container's filesystem as a tar archive")
    spec.string("output", "o", "write to this file")
    opts, rest = spec.parse(args)
    spec.arguments(rest, 1, 1)
    if not opts["output"] and sys.stdout.isatty():
        raise InvalidArgument("cowardly refusing to save to a terminal", hint="use -o FILE or redirect")
    write_out(ctx.client().request("GET", f"/containers/{rest[0]}/export", stream=True), opts["output"])
    return 0
