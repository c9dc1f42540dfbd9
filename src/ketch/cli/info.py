"""``info``, ``version`` and ``system df``."""

from __future__ import annotations

import json
import platform
from typing import TYPE_CHECKING

from ketch import __version__
from ketch.cli.flags import FlagSet
from ketch.cli.listing import show
from ketch.cli.units import human_bytes, human_size
from ketch.errors import KetchError

if TYPE_CHECKING:
    from typing import Any

    from ketch.cli.context import Context

API_VERSION = "1.51"


def _formatted(ctx: Context, form: str, value: Any) -> bool:
    if not form:
        return False
    if form in ("json", "{{json .}}"):
        ctx.print(json.dumps(value, separators=(",", ":")))
    else:
        from ketch.cli.gotemplate import Template

        ctx.print(Template(form).render(value))
    return True


def cmd_version(args: list[str], ctx: Context) -> int:
    """Versions of this command and of the daemon."""
    spec = FlagSet("version", "ketch version [OPTIONS]", "Show version information")
    spec.string("format", "f", "how").bool("short", "", "the command's version alone")
    opts, rest = spec.parse(args)
    spec.arguments(rest, 0, 0)
    if opts["short"]:
        ctx.print(f"ketch version {__version__}")
        return 0
    mine = {
        "Platform": {"Name": "Ketch"}, "Version": __version__, "ApiVersion": API_VERSION,
        "DefaultAPIVersion": API_VERSION,
        "GitCommit": "", "Python": platform.python_version(), "Os": "linux", "Arch": _arch(), "BuildTime": "",
        "Context": "default",
    }  # fmt: skip
    server, problem = None, None
    try:
        server = ctx.client().request("GET", "/version").json()
    except KetchError as e:
        problem = e
    if not _formatted(ctx, opts["format"], {"Client": mine, "Server": server}):
        ctx.print("Client:")
        _facts(ctx, 1, [("Version", __version__), ("API version", API_VERSION), ("Python version", mine["Python"]),
                        ("OS/Arch", f"linux/{mine['Arch']}"), ("Context", "default")], 19)  # fmt: skip
        if server:
            _server(ctx, server)
    if problem is not None:
        raise problem
    return 0


def _arch() -> str:
    machine = platform.machine()
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


def _server(ctx: Context, server: dict[str, Any]) -> None:
    ctx.print(f"\nServer: {server['Platform']['Name']}")
    for component in server["Components"]:
        ctx.print(f" {component['Name']}:")
        details = component.get("Details") or {}
        rows = [("Version", component["Version"])]
        if "ApiVersion" in details:
            rows.append(("API version", f"{details['ApiVersion']} (minimum version {details['MinAPIVersion']})"))
            rows.append(("OS/Arch", f"{details['Os']}/{details['Arch']}"))
        else:
            rows += sorted(details.items())
        _facts(ctx, 2, rows, 18)


def _facts(ctx: Context, indent: int, rows: list[tuple[str, Any]], width: int) -> None:
    for name, value in rows:
        ctx.print(f"{' ' * indent}{name + ':':<{width}}{value}")


def cmd_info(args: list[str], ctx: Context) -> int:
    """The daemon and its machine."""
    spec = FlagSet("info", "ketch info [OPTIONS]", "Display system-wide information").string("format", "f", "how")
    opts, rest = spec.parse(args)
    spec.arguments(rest, 0, 0)
    info = ctx.client().request("GET", "/info").json()
    if _formatted(ctx, opts["format"], info):
        return 0
    ctx.print(f"Client:\n Version:    {__version__}\n Context:    default\n\nServer:")
    ctx.print(f" Containers: {info['Containers']}")
    for name in ("Running", "Paused", "Stopped"):
        ctx.print(f"  {name}: {info['Containers' + name]}")
    rows = [("Images", "Images"), ("Server Version", "ServerVersion"), ("Storage Driver", "Driver")]
    for title, key in rows:
        ctx.print(f" {title}: {info[key]}")
    for name, value in info["DriverStatus"] or ():
        ctx.print(f"  {name}: {value}")
    for title, key in (
        ("Logging Driver", "LoggingDriver"),
        ("Cgroup Driver", "CgroupDriver"),
        ("Cgroup Version", "CgroupVersion"),
    ):
        ctx.print(f" {title}: {info[key]}")
    ctx.print(" Plugins:")
    for name in ("Volume", "Network", "Log"):
        ctx.print(f"  {name}: {' '.join(info['Plugins'][name] or ())}")
    ctx.print(f" Runtimes: {' '.join(sorted(info['Runtimes']))}\n Default Runtime: {info['DefaultRuntime']}")
    ctx.print(" Security Options:")
    for option in info["SecurityOptions"] or ():
        ctx.print(f"  {option.partition(',')[0].removeprefix('name=')}")
    for title, key in (
        ("Kernel Version", "KernelVersion"), ("Operating System", "OperatingSystem"), ("OSType", "OSType"),
        ("Architecture", "Architecture"), ("CPUs", "NCPU"),
    ):  # fmt: skip
        ctx.print(f" {title}: {info[key]}")
    ctx.print(f" Total Memory: {human_bytes(info['MemTotal'])}")
    for title, key in (("Name", "Name"), ("ID", "ID"), ("Docker Root Dir", "DockerRootDir")):
        ctx.print(f" {title}: {info[key]}")
    for warning in info["Warnings"] or ():
        ctx.warn(warning)
    return 0


_DF = [
    ("TYPE", "Type"), ("TOTAL", "TotalCount"), ("ACTIVE", "Active"), ("SIZE", "Size"), ("RECLAIMABLE", "Reclaimable")
]  # fmt: skip


def cmd_df(args: list[str], ctx: Context) -> int:
    """Disk usage by kind of object."""
    spec = FlagSet("system df", "ketch system df [OPTIONS]", "Show disk usage").string("format", "", "how")
    opts, rest = spec.parse(args)
    spec.arguments(rest, 0, 0)
    usage = ctx.client().request("GET", "/system/df").json()
    images, containers, volumes = usage["Images"] or [], usage["Containers"] or [], usage["Volumes"] or []
    idle_images = sum(i["Size"] for i in images if not i["Containers"])
    idle = sum(c.get("SizeRw", 0) for c in containers if c["State"] != "running")
    unused = sum(v["UsageData"]["Size"] for v in volumes if not v["UsageData"]["RefCount"])
    rows = [
        _df("Images", len(images), sum(bool(i["Containers"]) for i in images), usage["LayersSize"], idle_images),
        _df("Containers", len(containers), sum(c["State"] == "running" for c in containers),
            sum(c.get("SizeRw", 0) for c in containers), idle),
        _df("Local Volumes", len(volumes), sum(v["UsageData"]["RefCount"] > 0 for v in volumes),
            sum(v["UsageData"]["Size"] for v in volumes), unused),
        _df("Build Cache", 0, 0, 0, 0),
    ]  # fmt: skip
    show(ctx, rows, columns=_DF, form=opts["format"])
    return 0


def _df(kind: str, total: int, active: int, size: int, idle: int) -> dict[str, Any]:
    share = f" ({100 * idle // size}%)" if size and kind != "Build Cache" else ""
    return {
        "Active": str(active),
        "Reclaimable": human_size(idle) + share,
        "Size": human_size(size),
        "TotalCount": str(total),
        "Type": kind,
    }
