"""``import``, ``load``, ``save`` and ``image bootstrap``: images in and out, with their progress."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, BinaryIO

from ketch.cli.flags import FlagSet
from ketch.cli.images import split_tag
from ketch.cli.units import human_size
from ketch.errors import InvalidArgument, KetchError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from ketch.cli.context import Context
    from ketch.client.http import Response

_CHUNK = 1 << 18


def chunks(path: str) -> Iterator[bytes]:
    """A file, or standard input for an empty name or ``-``, piece by piece."""
    with _open(path) as f:
        while data := f.read(_CHUNK):
            yield data


def _open(path: str) -> BinaryIO:
    if path in ("", "-"):
        if sys.stdin.isatty():
            raise InvalidArgument("requested to read from a terminal", hint="give a file, or pipe the archive in")
        return open(0, "rb", closefd=False)
    try:
        return open(path, "rb")
    except OSError as e:
        raise InvalidArgument(f"open `{path}`: {e.strerror}") from e


class Progress:
    """Prints the daemon's JSON progress: drawn in place on a terminal, a line for each step elsewhere."""

    def __init__(self, ctx: Context, *, quiet: bool = False) -> None:
        self._ctx = ctx
        self._quiet = quiet
        self._drawn = sys.stderr.isatty() and not quiet
        self._last: dict[str, str] = {}
        self._line = False

    def run(self, items: Iterator[Any]) -> str:
        """Show everything; returns the last plain status (KetchError when the daemon says so)."""
        status = ""
        for item in items:
            if "error" in item:
                self._end_line()
                raise KetchError(item["error"])
            if "stream" in item:
                self._end_line()
                self._ctx.print(item["stream"].rstrip("\n"))
                continue
            status = item.get("status", "")
            if not self._quiet:
                self._step(item)
        self._end_line()
        return status

    def _step(self, item: dict[str, Any]) -> None:
        text = f"{item['id']}: {item['status']}" if item.get("id") else item["status"]
        detail = item.get("progressDetail") or {}
        if detail.get("total"):
            text += f" {human_size(detail.get('current', 0))}/{human_size(detail['total'])}"
        if text.startswith("sha256:"):
            return
        if self._drawn:
            width = os.get_terminal_size(2).columns - 1
            self._ctx.err.write("\r\033[K" + text[:width])
            self._ctx.err.flush()
            self._line = True
        elif self._last.get(item.get("id", "")) != item["status"]:
            self._last[item.get("id", "")] = item["status"]
            self._ctx.warn(text)

    def _end_line(self) -> None:
        if self._line:
            self._ctx.err.write("\r\033[K")
            self._ctx.err.flush()
            self._line = False


def cmd_load(args: list[str], ctx: Context) -> int:
    """Read images from an archive."""
    spec = FlagSet("load", "ketch load [OPTIONS]", "Load images from a tar archive or standard input")
    spec.string("input", "i", "read from this file").bool("quiet", "q", "no progress").string(
        "platform", "", "which one"
    )
    opts, rest = spec.parse(args)
    spec.arguments(rest, 0, 0)
    response = ctx.client().request(
        "POST", "/images/load", {"quiet": opts["quiet"] or None}, chunks(opts["input"]), stream=True
    )
    Progress(ctx, quiet=opts["quiet"]).run(response.stream_lines())
    return 0


def cmd_import(args: list[str], ctx: Context) -> int:
    """Make an image from the tar of a root filesystem."""
    spec = FlagSet(
        "import", "ketch import [OPTIONS] FILE|- [REPOSITORY[:TAG]]", "Import a tarball to create a filesystem image"
    )
    spec.list("change", "c", "apply a Dockerfile instruction").string("message", "m", "say what it is")
    spec.string("platform", "", "what it runs on")
    opts, rest = spec.parse(args)
    spec.arguments(rest, 1, 2)
    if "://" in rest[0]:
        raise InvalidArgument(
            f"import `{rest[0]}`: only files can be imported", hint="fetch it first, then import the file"
        )
    repo, tag = split_tag(rest[1]) if len(rest) > 1 else ("", "")
    query = {
        "fromSrc": "-", "repo": repo or None, "tag": tag or None, "changes": opts["change"],
        "message": opts["message"] or None, "platform": opts["platform"] or None,
    }  # fmt: skip
    response = ctx.client().request("POST", "/images/create", query, chunks(rest[0]), stream=True)
    ctx.print(Progress(ctx).run(response.stream_lines()))
    return 0


def cmd_bootstrap(args: list[str], ctx: Context) -> int:
    """Make a base image from the distribution's packages."""
    spec = FlagSet(
        "image bootstrap", "ketch image bootstrap [OPTIONS] debian:SUITE|busybox",
        "Make a base image from the distribution's own packages, without a registry",
    )  # fmt: skip
    spec.bool("quiet", "q", "no progress")
    opts, rest = spec.parse(args)
    spec.arguments(rest, 1, 1)
    response = ctx.client().request("POST", "/ketch/images/bootstrap", {"ref": rest[0]}, stream=True)
    Progress(ctx, quiet=opts["quiet"]).run(response.stream_lines())
    ctx.print(ctx.client().request("GET", f"/images/{rest[0]}/json").json()["Id"])
    return 0


def cmd_save(args: list[str], ctx: Context) -> int:
    """Write images to an archive."""
    spec = FlagSet("save", "ketch save [OPTIONS] IMAGE [IMAGE...]", "Save images to a tar archive")
    spec.string("output", "o", "write to this file").string("platform", "", "which one")
    opts, rest = spec.parse(args)
    spec.arguments(rest, 1)
    if not opts["output"] and sys.stdout.isatty():
        raise InvalidArgument("cowardly refusing to save to a terminal", hint="use -o FILE or redirect")
    response = ctx.client().request("GET", "/images/get", {"names": rest}, stream=True)
    write_out(response, opts["output"])
    return 0


def write_out(response: Response, path: str) -> None:
    """A stream of the daemon to standard output, or to a file that appears when it is whole."""
    if not path:
        for chunk in response.iter_chunks():
            sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()
        return
    partial = path + ".part"
    try:
        with open(partial, "wb") as f:
            for chunk in response.iter_chunks():
                f.write(chunk)
        os.rename(partial, path)
    except OSError as e:
        raise InvalidArgument(f"write `{path}`: {e.strerror}") from e
    finally:
        if os.path.exists(partial):
            os.unlink(partial)
