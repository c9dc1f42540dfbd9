"""``ps``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ketch.cli.flags import FlagSet
from ketch.cli.listing import ellipsis, filters, show, since
from ketch.cli.units import human_size

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


def cmd_ps(args: list[str], ctx: Context) -> int:
    """List containers."""
    spec = FlagSet("ps", "ketch ps [OPTIONS]", "List containers")
    spec.bool("all", "a", "also those that do not run").list("filter", "f", "which ones").string("format", "", "how")
    spec.int("last", "n", "the newest so many").bool("latest", "l", "the newest one").bool(
        "no-trunc", "", "whole texts"
    )
    spec.bool("quiet", "q", "ids only").bool("size", "s", "sizes on disk")
    opts, rest = spec.parse(args)
    spec.arguments(rest, 0, 0)
    limit = 1 if opts["latest"] else opts["last"]
    with_size = opts["size"] or ".Size" in opts["format"]
    query = {
        "all": opts["all"] or None,
        "limit": str(limit) if limit else None,
        "size": with_size or None,
        "filters": filters(opts["filter"]),
    }
    containers = ctx.client().request("GET", "/containers/json", query).json()
    rows = [row(c, whole=opts["no-trunc"]) for c in containers]
    columns = [*_COLUMNS, ("SIZE", "Size")] if with_size and not opts["format"] else _COLUMNS
    show(ctx, rows, columns=columns, headers=_HEADERS, form=opts["format"], quiet="ID" if opts["quiet"] else "")
    return 0


def row(container: dict[str, Any], *, whole: bool) -> dict[str, Any]:
    """One container in the fields of Docker's ``--format``."""
    image = container["Image"] or "<no image>"
    if not whole and image == container["ImageID"]:
        image = image.removeprefix("sha256:")[:12]
    command = container["Command"]
    mounts = [m.get("Name") or m.get("Source") or "" for m in container.get("Mounts") or ()]
    return {
        "Command": f'"{command if whole else ellipsis(command, 20)}"',
        "CreatedAt": time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(container["Created"])),
        "ID": container["Id"] if whole else container["Id"][:12],
        "Image": image,
        "Labels": ",".join(f"{k}={v}" for k, v in sorted((container.get("Labels") or {}).items())),
        "LocalVolumes": str(sum(m.get("Driver") == "local" for m in container.get("Mounts") or ())),
        "Mounts": ",".join(m if whole else ellipsis(m, 15) for m in mounts),
        "Names": ",".join(name.lstrip("/") for name in container["Names"] if name.count("/") == 1),
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
    """``0.0.0.0:8080->80/tcp, 443/tcp``; neighbours are joined to ranges."""
    groups: dict[tuple[str, str, int | None], list[int]] = {}
    for one in sorted(rows, key=lambda r: (r["PrivatePort"], r.get("IP", ""), r["Type"])):
        public = one.get("PublicPort")
        difference = None if public is None else public - one["PrivatePort"]
        groups.setdefault((one.get("IP", ""), one["Type"], difference), []).append(one["PrivatePort"])
    shown: list[tuple[int, str]] = []
    for (address, kind, difference), numbers in groups.items():
        for first, last in _runs(numbers):
            inner = f"{first}-{last}" if last > first else str(first)
            text = f"{inner}/{kind}"
            if difference is not None:
                outer = f"{first + difference}-{last + difference}" if last > first else str(first + difference)
                host = f"[{address}]" if ":" in address else address
                text = f"{host}:{outer}->{text}"
            shown.append((first, text))
    return ", ".join(text for _, text in sorted(shown))


def _runs(numbers: list[int]) -> list[tuple[int, int]]:
    runs: list[tuple[int, int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return runs
