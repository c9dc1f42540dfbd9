"""``import``, ``load``, ``save`` and ``image bootstrap``, with progress."""

from __future__ import annotations

import os
import sys

from ketch.cli.files import chunks, write_out
from ketch.cli.image_names import platform_json, split_tag
from ketch.cli.options import progress_flags
from ketch.cli.options.flags import FlagSet
from ketch.cli.output import progress
from ketch.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.cli.context import Context


def cmd_load(args: list[str], ctx: Context) -> int:
    """Read images from an archive."""
    spec = FlagSet("load", "ketch load [OPTIONS]", "Load images from a tar archive or standard input")
    progress_flags.add_flags(spec).string("input", "i", "read from this file").list("platform", "", "which one")
    opts, rest = spec.parse(args)
    spec.arguments(rest, 0, 0)
    query = {"quiet": opts["quiet"] or None, "platform": [platform_json(item) for item in opts["platform"]]}
    response = ctx.client().request("POST", "/images/load", query, chunks(opts["input"]), stream=True)
    mode = progress_flags.chosen(opts)
    if mode == "auto" and not ctx.out.isatty():
        mode = "quiet"
    progress.Progress(ctx, mode).run(response.stream_lines())
    return 0


def cmd_import(args: list[str], ctx: Context) -> int:
    """Make an image from the tar of a root filesystem."""
    spec = FlagSet(
        "import",
        "ketch import [OPTIONS] FILE|-|URL [REPOSITORY[:TAG]]",
        "Import a tarball to create a filesystem image",
    )
    spec.list("change", "c", "apply a Dockerfile instruction").string("message", "m", "say what it is")
    spec.string("platform", "", "what it runs on")
    opts, rest = spec.parse(args)
    spec.arguments(rest, 1, 2)
    remote = "://" in rest[0]
    repo, tag = split_tag(rest[1]) if len(rest) > 1 else ("", "")
    query = {
        "fromSrc": rest[0] if remote else "-",
        "repo": repo or None,
        "tag": tag or None,
        "changes": opts["change"],
        "message": opts["message"] or None,
        "platform": opts["platform"] or None,
    }
    response = ctx.client().request("POST", "/images/create", query, None if remote else chunks(rest[0]), stream=True)
    ctx.print(progress.Progress(ctx, "auto", ctx.err).run(response.stream_lines()))
    return 0


def cmd_bootstrap(args: list[str], ctx: Context) -> int:
    """Make a base image from the distribution's packages."""
    spec = FlagSet(
        "image bootstrap",
        "ketch image bootstrap [OPTIONS] debian:SUITE|busybox",
        "Make a base image from the distribution's own packages, without a registry",
    )
    progress_flags.add_flags(spec)
    opts, rest = spec.parse(args)
    spec.arguments(rest, 1, 1)
    response = ctx.client().request("POST", "/ketch/images/bootstrap", {"ref": rest[0]}, stream=True)
    progress.Progress(ctx, progress_flags.chosen(opts), ctx.err).run(response.stream_lines())
    ctx.print(ctx.client().request("GET", f"/images/{rest[0]}/json").json()["Id"])
    return 0


def cmd_save(args: list[str], ctx: Context) -> int:
    """Write images to an archive."""
    spec = FlagSet("save", "ketch save [OPTIONS] IMAGE [IMAGE...]", "Save images to a tar archive")
    spec.string("output", "o", "write to this file").list("platform", "", "of several, this one")
    opts, rest = spec.parse(args)
    spec.arguments(rest, 1)
    if not opts["output"] and sys.stdout.isatty():
        raise InvalidArgument("cowardly refusing to save to a terminal", hint="use -o FILE or redirect")
    query = {"names": rest, "platform": [platform_json(item) for item in opts["platform"]]}
    response = ctx.client().request("GET", "/images/get", query, stream=True)
    if not opts["output"] or not ctx.err.isatty():
        write_out(response, opts["output"])
        return 0
    shown = progress.Progress(ctx, "auto", ctx.err)
    size, name = _content_size(ctx, rest), os.path.basename(opts["output"])
    write_out(response, opts["output"], lambda done: shown.moved(name, "Saving", done, max(size, done)))
    shown.moved(name, "Saved", 0, 0)
    return 0


def _content_size(ctx: Context, names: list[str]) -> int:
    """The approximate size of an archive of these images; 0 when the daemon does not tell."""
    total = 0
    for name in names:
        facts = ctx.client().request("GET", f"/images/{name}/json", {"manifests": True}).json()
        total += sum(item["Size"]["Content"] for item in facts.get("Manifests") or ())
    return total
