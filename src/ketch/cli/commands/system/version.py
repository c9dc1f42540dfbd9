"""``version``: the versions of the command line and of the daemon."""

from __future__ import annotations

import os
import sys
import time

from ketch import __version__
from ketch.cli.options.flags import FORMAT, FlagSet
from ketch.errors import KetchError
from ketch.notation import architectures, documents

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.cli.context import Context
    from ketch.notation.api_objects import ApiObject

API_VERSION = "1.51"
_CLIENT_WIDTH, _SERVER_WIDTH = 19, 18
# (title, key in a component's details) of the engine; the others' details are shown as they are
_ENGINE = (("Go version", "GoVersion"), ("Git commit", "GitCommit"), ("Built", "BuildTime"))


def cmd_version(args: list[str], ctx: Context) -> int:
    """Show the versions of this command and of the daemon."""
    spec = FlagSet("version", "ketch version [OPTIONS]", "Show version information")
    spec.string("format", "f", FORMAT).bool("short", "", "the command's version alone")
    opts, rest = spec.parse(args)
    spec.arguments(rest, 0, 0)
    if opts["short"]:
        ctx.print(f"ketch version {__version__}")
        return 0
    template = None
    if opts["format"] not in ("", "json", "{{json .}}"):
        from ketch.cli.gotemplate.template import Template

        template = Template(opts["format"])
    mine, server, problem = client_facts(), None, None
    try:
        server = ctx.client().request("GET", "/version").json()
    except KetchError as e:
        problem = e
    else:
        _readable_times(server)
    facts = {"Client": mine, "Server": server}
    if template is not None:
        ctx.print(template.render(facts))
    elif opts["format"]:
        ctx.print(documents.dumps(facts, spaces=False))
    else:
        _show(ctx, mine, server)
    if problem is not None:
        raise problem
    return 0


def client_facts() -> dict[str, str]:
    """The facts of this command, in Docker's fields."""
    return {
        "Version": __version__,
        "ApiVersion": API_VERSION,
        "DefaultAPIVersion": API_VERSION,
        "GitCommit": "",
        "GoVersion": "",
        "PythonVersion": sys.version.partition(" ")[0],
        "Os": "linux",
        "Arch": architectures.goarch(os.uname().machine),
        "BuildTime": "",
        "Context": "default",
    }


def _readable_times(server: ApiObject) -> None:
    for component in server.get("Components") or ():
        details = component.get("Details") or {}
        if details.get("BuildTime"):
            details["BuildTime"] = readable(details["BuildTime"])


def readable(stamp: str) -> str:
    """``2026-05-07T21:09:36.0…`` → ``Thu May  7 21:09:36 2026``; as it is when it is no such time."""
    from ketch.notation import moments  # here: only other daemons have such times

    moment = moments.rfc3339(stamp)
    if moment is None:
        return stamp
    return time.strftime("%a %b %e %H:%M:%S %Y", time.gmtime(moment // 10**9))


def _show(ctx: Context, mine: dict[str, str], server: ApiObject | None) -> None:
    ctx.print("Client:")
    rows = [
        ("Version", mine["Version"]),
        ("API version", mine["ApiVersion"]),
        ("Python version", mine["PythonVersion"]),
        ("OS/Arch", f"{mine['Os']}/{mine['Arch']}"),
        ("Context", mine["Context"]),
    ]
    _facts(ctx, " ", rows, _CLIENT_WIDTH)
    if not server:
        return
    ctx.print(f"\nServer: {server.get('Platform', {}).get('Name', '')}".rstrip())
    for component in server.get("Components") or ():
        ctx.print(f" {component['Name']}:")
        _facts(ctx, "  ", component_facts(component), _SERVER_WIDTH)


def component_facts(component: ApiObject) -> list[tuple[str, str]]:
    """The lines about one part of the server."""
    details = component.get("Details") or {}
    rows = [("Version", component["Version"])]
    if "ApiVersion" not in details:
        return rows + sorted(details.items())
    rows.append(("API version", f"{details['ApiVersion']} (minimum version {details['MinAPIVersion']})"))
    rows += [(title, details[key]) for title, key in _ENGINE if details.get(key, "none") not in ("", "none")]
    rows.append(("OS/Arch", f"{details['Os']}/{details['Arch']}"))
    if "Experimental" in details:
        rows.append(("Experimental", details["Experimental"]))
    return rows


def _facts(ctx: Context, indent: str, rows: list[tuple[str, str]], width: int) -> None:
    for name, value in rows:
        ctx.print(f"{indent}{name + ':':<{width}}{value}")
