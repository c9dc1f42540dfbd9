"""``build``: an image, or something else, made of a Dockerfile."""

from __future__ import annotations

import json
import os
import sys

from ketch import printable
from ketch.cli.building import flags, ketchd
from ketch.cli.building.request import BuildRequest
from ketch.cli.output.build_display import BuildDisplay
from ketch.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ketch.cli.context import Context


def cmd_build(args: list[str], ctx: Context) -> int:
    """Build an image."""
    if args[:1] == ["history"] and (len(args) > 1 or not os.path.isdir("history")):  # else it is a context's name
        from ketch.cli.commands.builds.history import cmd_history

        return cmd_history(args[1:], ctx)
    spec = flags.flag_set()
    opts, rest = spec.parse(args)
    spec.arguments(rest, 1, 1)
    mode = flags.mode(opts)
    build = BuildRequest(opts, rest[0], ctx.host)
    if os.path.isfile(opts["iidfile"]):
        os.unlink(opts["iidfile"])  # of an earlier build, which a failed one must not leave
    if not ctx.is_ketch():
        from ketch.cli.building import classic

        image = classic.run(ctx, build, quiet=mode in ("quiet", "none"))
        return _finish(ctx, build, {"image": image}, quiet=mode == "quiet")
    try:
        with BuildDisplay(ctx.err, mode, f"building with ketchd at {ctx.host}", details=opts["debug"]) as display:
            result = ketchd.run(ctx, build, display)
    except ketchd.BuildFailed as e:
        _explain(ctx, e.explained)
        if e.excerpt:
            ctx.warn(e.excerpt)
        if e.image:
            _open_shell(ctx, e)
        raise e.error from None
    _explain(ctx, result["explain"])
    if build.method != "build":
        return _answer(ctx, build, result)
    return _finish(ctx, build, result, quiet=mode == "quiet")


def _finish(ctx: Context, build: BuildRequest, result: dict[str, Any], *, quiet: bool) -> int:
    """Tell of the result where the flags want it."""
    image = str(result.get("image") or "")
    if quiet and image:
        ctx.print(image)
    if build.opts["iidfile"]:
        _write(build.opts["iidfile"], image)
    if build.opts["metadata-file"]:
        facts = result.get("metadata") or {"containerimage.config.digest": image}
        _write(build.opts["metadata-file"], json.dumps(facts, indent=2))
    return 0


def _write(path: str, text: str) -> None:
    try:
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
    except OSError as e:
        raise InvalidArgument(f"write `{path}`: {e.strerror}") from e


def _open_shell(ctx: Context, failed: ketchd.BuildFailed) -> None:
    """Run a shell in what a failed step left; without a terminal, tell how to."""
    image = failed.image.removeprefix("sha256:")[:12]
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        ctx.warn(f"the files as the step left them are image {image}; look at them with: ketch run --rm -it {image}")
        return
    from ketch.cli.commands.containers.run import cmd_run

    ctx.warn(f"{failed.error.message}\nA shell in what the step left; its end ends the build.")
    try:
        cmd_run(["--rm", "-it", failed.image], ctx)
    finally:
        ctx.client().request("DELETE", f"/images/{failed.image}", {"force": "1"})


def _answer(ctx: Context, build: BuildRequest, result: dict[str, Any]) -> int:
    """Print what ``--call`` asked for; a check that found something ends with 1."""
    facts = result.get("metadata") or {}
    text = str(facts.get("result.json" if build.as_json else "result.txt") or "")
    ctx.show(text if text.endswith("\n") else f"{text}\n")
    return int(facts.get("result.statuscode") or 0)


def _explain(ctx: Context, steps: list[dict[str, Any]]) -> None:
    """Tell of each step that was not cached why not."""
    if not steps:
        return
    lines = ["", "Steps that were not cached:"]
    for step in steps:
        lines.append(f"  {printable.cell(str(step.get('name', '')))}")
        lines.append(f"    {printable.cell(str(step.get('reason', '')))}")
        lines += [f"      {printable.cell(str(detail))}" for detail in step.get("details") or ()]
    ctx.warn("\n".join(lines))
