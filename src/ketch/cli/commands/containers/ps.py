"""``ps``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ketch.cli.gotemplate.strings import ellipsis, quote
from ketch.cli.options.flags import FlagSet
from ketch.cli.output.listing import filters, labels, since, text_of
from ketch.cli.output.units import human_size

if TYPE_CHECKING:
    from typing import Any

    from ketch.cli.context import Context

_COLUMNS = [
    ("CONTAINER ID", "ID"), ("IMAGE", "Image"), ("COMMAND", "Command"), ("CREATED", "RunningFor"), ("STATUS", "Status"),
    ("PORTS", "Ports"), ("NAMES", "Names"),
]  # fmt: skip
_HEADERS = {
    "CreatedAt": "CREATED AT", "Size": "SIZE", "Labels": "LABELS", "Mounts": "MOUNTS", "Networks": "NETWORKS",
    "LocalVolumes": "LOCAL VOLUMES", "State": "STATE", "Platform": "PLATFORM",
}  # fmt: skip
_RAW = [
    ("container_id", "ID"), ("image", "Image"), ("command", "Command"), ("created_at", "CreatedAt"), ("state", "State"),
    ("status", "Status"), ("names", "Names"), ("labels", "Labels"), ("ports", "Ports"),
]  # fmt: skip


def cmd_ps(args: list[str], ctx: Context) -> int:
    """List containers."""
    spec = FlagSet("ps", "ketch ps [OPTIONS]", "List containers")
    spec.bool("all", "a", "also those that do not run").list("filter", "f", "which ones").string("format", "", "how")
    spec.int("last", "n", "the newest so many").bool("latest", "l", "the newest one").bool(
        "no-trunc", "", "whole texts"
    )
    spec.bool("quiet", "q", "ids only").bool("size", "s", "sizes on disk")
    spec.bool("watch", "w", "go on, and show what changes")
    opts, rest = spec.parse(args)
    spec.arguments(rest, 0, 0)
    form = opts["format"]
    if form and opts["quiet"]:
        ctx.warn("WARNING: Ignoring custom format, because both --format and --quiet are set.")
        form = form if form == "raw" else ""
    limit = 1 if opts["latest"] else opts["last"]
    with_size = opts["size"] or ".Size" in form or form == "{{json .}}"
    query = {
        "all": opts["all"] or None,
        "limit": str(limit) if limit else None,
        "size": with_size or None,
        "filters": filters(opts["filter"]),
    }
    size = opts["size"] and form in ("", "table", "raw")
    columns = [*_COLUMNS, ("SIZE", "Size")] if size else _COLUMNS

    def render(containers: list[dict[str, Any]], titles: bool) -> str:
        rows = [row(c, whole=opts["no-trunc"]) for c in containers]
        text = text_of(
            rows, columns=columns, headers=_HEADERS, form=form, quiet="ID" if opts["quiet"] else "",
            raw=[*_RAW, ("size", "Size")] if size else _RAW,
        )  # fmt: skip
        untitled = not titles and not opts["quiet"] and (not form or form.startswith("table"))
        return text.partition("\n")[2] if untitled else text

    if opts["watch"]:
        from ketch.cli.commands.containers.watch import watch

        return watch(ctx, query, render)
    ctx.show(render(ctx.client().request("GET", "/containers/json", query).json(), True))
    return 0


def row(container: dict[str, Any], *, whole: bool) -> dict[str, Any]:
    """One container in the fields of Docker's ``--format``."""
    image = container["Image"] or "<no image>"
    if not whole and image == container["ImageID"]:
        image = image.removeprefix("sha256:")[:12]
    command = container["Command"]
    mounts = [m.get("Name") or m.get("Source") or "" for m in container.get("Mounts") or ()]
    return {
        "Command": quote(command if whole else ellipsis(command, 20)),
        "CreatedAt": time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(container["Created"])),
        "ID": container["Id"] if whole else container["Id"][:12],
        "Image": image,
        "Labels": labels(container.get("Labels")),
        "Label": lambda name: (container.get("Labels") or {}).get(name, ""),
        "LocalVolumes": str(sum(m.get("Driver") == "local" for m in container.get("Mounts") or ())),
        "Mounts": ",".join(m if whole else ellipsis(m, 15) for m in mounts),
        "Names": ",".join(name.lstrip("/") for name in container["Names"] if whole or name.count("/") == 1),
        "Networks": ",".join(sorted((container.get("NetworkSettings") or {}).get("Networks") or {})),
        "Platform": None,
        "Ports": ports(container.get("Ports") or []),
        "RunningFor": since(container["Created"]),
        "Size": _size(container),
        "State": container["State"],
        "Status": container["Status"],
    }


def _size(container: dict[str, Any]) -> str:
    written = human_size(container.get("SizeRw") or 0)
    whole = container.get("SizeRootFs") or 0
    return f"{written} (virtual {human_size(whole)})" if whole else written


def ports(rows: list[dict[str, Any]]) -> str:
    """``443/tcp, 0.0.0.0:8080->80/tcp``; what is published under its own number is joined to ranges."""
    groups: dict[tuple[str, str], list[list[int]]] = {}
    others = []
    for one in sorted(rows, key=lambda r: (r["PrivatePort"], r.get("IP", ""), r.get("PublicPort", 0), r["Type"])):
        number, address = one["PrivatePort"], one.get("IP", "")
        if address and one["PublicPort"] != number:
            others.append(f"{_host(address)}:{one['PublicPort']}->{number}/{one['Type']}")
            continue
        runs = groups.setdefault((address, one["Type"]), [])
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    # as Docker does: ranges that ended before another began come first, then the last one of each group
    early = [_range(key, run) for key, runs in groups.items() for run in runs[:-1]]
    return ", ".join([*early, *(_range(key, runs[-1]) for key, runs in groups.items()), *others])


def _range(key: tuple[str, str], run: list[int]) -> str:
    (address, kind), (first, last) = key, run
    text = str(first) if first == last else f"{first}-{last}"
    return f"{_host(address)}:{text}->{text}/{kind}" if address else f"{text}/{kind}"


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address
