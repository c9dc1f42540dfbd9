"""``info``: the daemon's settings and the machine's facts."""

from __future__ import annotations

from ketch import __version__
from ketch.cli.options.flags import FORMAT, FlagSet
from ketch.notation import booleans, documents
from ketch.notation.sizes import human_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from ketch.cli.context import Context
    from ketch.notation.api_objects import ApiObject


def cmd_info(args: list[str], ctx: Context) -> int:
    """Show facts of the daemon and its machine."""
    spec = FlagSet("info", "ketch info [OPTIONS]", "Display system-wide information").string("format", "f", FORMAT)
    opts, rest = spec.parse(args)
    spec.arguments(rest, 0, 0)
    format = opts["format"]
    if format:
        _formatted(ctx, format)
        return 0
    ctx.print(f"Client:\n Version:    {__version__}\n Context:    default\n Debug Mode: false\n\nServer:")
    info = ctx.client().request("GET", "/info").json()
    for line in lines(info):
        ctx.print(f" {line}")
    ctx.print()
    for warning in info.get("Warnings") or ():
        ctx.warn(warning)
    return 0


def _formatted(ctx: Context, format: str) -> None:
    from ketch.cli.commands.system.version import client_facts

    template = None
    if format not in ("json", "{{json .}}"):
        from ketch.cli.gotemplate.template import Template

        template = Template(format)
    info = ctx.client().request("GET", "/info").json()
    info["ClientInfo"] = {"Debug": False, **client_facts(), "Plugins": [], "Warnings": None}
    ctx.print(template.render(info) if template else documents.dumps(info, spaces=False))


def lines(info: ApiObject) -> Iterator[str]:
    """Docker's page about a server, line by line."""
    yield f"Containers: {info['Containers']}"
    for name in ("Running", "Paused", "Stopped"):
        yield f" {name}: {info['Containers' + name]}"
    yield from _named(info, ("Images", "Images"), ("Server Version", "ServerVersion"), ("Storage Driver", "Driver"))
    for name, value in info.get("DriverStatus") or ():
        yield f" {name}: {value}"
    yield from _named(
        info,
        ("Logging Driver", "LoggingDriver"),
        ("Cgroup Driver", "CgroupDriver"),
        ("Cgroup Version", "CgroupVersion"),
    )
    yield "Plugins:"
    for name in ("Volume", "Network", "Authorization", "Log"):
        plugins = info["Plugins"].get(name)
        if plugins or name != "Authorization":
            yield f" {name}: {' '.join(plugins or ())}"
    yield f"Swarm: {info['Swarm']['LocalNodeState']}"
    yield from _runtimes(info)
    yield from _security(info)
    yield from _named(
        info,
        ("Kernel Version", "KernelVersion"),
        ("Operating System", "OperatingSystem"),
        ("OSType", "OSType"),
        ("Architecture", "Architecture"),
        ("CPUs", "NCPU"),
    )
    yield f"Total Memory: {human_bytes(info['MemTotal'])}"
    yield from _named(info, ("Name", "Name"), ("ID", "ID"), ("Docker Root Dir", "DockerRootDir"))
    yield f"Debug Mode: {booleans.write(info.get('Debug'))}"
    for title, key in (("HTTP Proxy", "HttpProxy"), ("HTTPS Proxy", "HttpsProxy"), ("No Proxy", "NoProxy")):
        if info.get(key):
            yield f"{title}: {info[key]}"
    yield from _block("Labels:", info.get("Labels") or ())
    yield f"Experimental: {booleans.write(info.get('ExperimentalBuild'))}"
    yield from _registries(info.get("RegistryConfig") or {})
    yield f"Live Restore Enabled: {booleans.write(info.get('LiveRestoreEnabled'))}"


def _runtimes(info: ApiObject) -> Iterator[str]:
    yield f"Runtimes: {' '.join(sorted(info.get('Runtimes') or ()))}"
    yield f"Default Runtime: {info['DefaultRuntime']}"
    yield f"Init Binary: {info.get('InitBinary', '')}"
    commits = [
        (name, (info.get(key) or {}).get("ID", ""))
        for name, key in (("containerd", "ContainerdCommit"), ("runc", "RuncCommit"), ("init", "InitCommit"))
    ]
    if any(commit for _, commit in commits):  # a server without these programs says nothing about them
        for name, commit in commits:
            yield f"{name} version: {commit}"


def _security(info: ApiObject) -> Iterator[str]:
    options = info.get("SecurityOptions") or ()
    if options:
        yield "Security Options:"
    for option in options:
        for key, _, value in (part.partition("=") for part in option.split(",")):
            yield f" {value}" if key == "name" else f"  {key.capitalize()}: {value}"


def _registries(config: ApiObject) -> Iterator[str]:
    names = [name for name, entry in (config.get("IndexConfigs") or {}).items() if not entry["Secure"]]
    insecure = [*names, *(config.get("InsecureRegistryCIDRs") or ())]
    yield from _block("Insecure Registries:", insecure)
    yield from _block("Registry Mirrors:", config.get("Mirrors") or ())


def _block(title: str, items: Any) -> Iterator[str]:
    if items:
        yield title
        for item in items:
            yield f" {item}"


def _named(info: ApiObject, *names: tuple[str, str]) -> Iterator[str]:
    for title, key in names:
        yield f"{title}: {info[key]}"
