"""``ui``: where the daemon's page is, and how to log in."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ketch.cli.options.flags import FlagSet
from ketch.contexts import suppress

if TYPE_CHECKING:
    from ketch.cli.context import Context
    from ketch.cli.options.flags import Options

_VISIT = """<!doctype html>
<meta charset="utf-8"><meta name="referrer" content="no-referrer"><meta http-equiv="refresh" content="0;url={url}">
<title>Ketch</title><a href="{url}">Ketch</a>
"""


def cmd_ui(args: list[str], ctx: Context) -> int:
    """Print the address of the daemon's page, with a one-time token; the page is served from then on."""
    spec = FlagSet(
        "ui", "ketch ui [OPTIONS]", "Print an address that opens the daemon's page, and open it in a browser"
    )
    spec.string("address", "", "ADDRESS:PORT to serve it on (default 127.0.0.1:2370, or ketchd's --ui)")
    spec.bool("log-out", "", "End all sessions of the page, in whatever browser, and the addresses that were not used")
    spec.bool("no-browser", "", "Open no browser, where there is one")
    opts, rest = spec.parse(args)
    spec.arguments(rest, 0, 0)
    ctx.only_ketch("ui", "it has no page")
    if opts["log-out"]:
        return _log_out(ctx)
    answer = ctx.client().request("POST", "/ketch/ui", body={"Address": opts["address"]}).json()
    ctx.print(answer["Url"])
    if ctx.err.isatty():
        ctx.warn(f"The address works once, within {answer['ValidSeconds'] // 60} minutes.")
    if _has_browser(ctx, opts):
        _visit(ctx, answer["Url"])
    return 0


def _log_out(ctx: Context) -> int:
    ended = ctx.client().request("DELETE", "/ketch/ui/sessions").json()["Ended"]
    ctx.print(f"Ended {ended} session{'' if ended == 1 else 's'}")
    return 0


def _has_browser(ctx: Context, opts: Options) -> bool:
    """Whether somebody sits there who may have a browser on the daemon's machine."""
    if opts["no-browser"] or not (ctx.out.isatty() and ctx.err.isatty()):
        return False
    here = isinstance(ctx.host, str) and ctx.host.startswith("unix://")
    return here and any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def _visit(ctx: Context, url: str) -> None:
    """Have the desktop's browser open an address, by way of a file: what a program is called with, all users see."""
    import subprocess

    from ketch import places, programs

    opener = programs.find("xdg-open")
    if opener is None or places.runtime_directory_problem():
        return
    path = os.path.join(os.environ["XDG_RUNTIME_DIR"], "ketch-ui.html")  # one for all: it goes with the user's session
    try:
        with suppress(FileNotFoundError):
            os.unlink(path)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as f:
            f.write(_VISIT.format(url=url))
        subprocess.Popen(
            [opener, path],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=programs.environment(),
            start_new_session=True,
        )
    except OSError as e:
        ctx.warn(f"WARNING: open a browser: {e.strerror}")
