"""Images, containers, volumes, networks and the build cache in the fields of Docker's ``--format``."""

from __future__ import annotations

import time

from ketch.cli.gotemplate.strings import ellipsis, quote
from ketch.cli.output.listing import labels, since
from ketch.notation import booleans
from ketch.notation.sizes import human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.cli.output.listing import Row
    from ketch.notation.api_objects import ApiObject


def of_image(image: ApiObject, *, whole: bool, digests: bool = False) -> list[Row]:
    """An image in the fields of Docker's ``--format``, once for each of its names."""
    names = [(*tag.rpartition(":")[::2], "<none>") for tag in image.get("RepoTags") or ()]
    known = {d.partition("@")[0]: d.partition("@")[2] for d in image.get("RepoDigests") or ()}
    if digests:
        names = [(repo, tag, known.get(repo, "<none>")) for repo, tag, _ in names]
    if not names:
        names = [(repo, "<none>", digest if digests else "<none>") for repo, digest in known.items()]
    return [
        {
            "Containers": "N/A" if image.get("Containers", -1) < 0 else str(image["Containers"]),
            "CreatedAt": time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(image["Created"])),
            "CreatedSince": since(image["Created"]),
            "Digest": digest,
            "ID": image["Id"] if whole else image["Id"].removeprefix("sha256:")[:12],
            "Repository": repo,
            "SharedSize": "N/A",
            "Size": human_size(image["Size"]),
            "Tag": tag,
            "UniqueSize": "N/A",
            "VirtualSize": human_size(image.get("VirtualSize") or image["Size"], 4),
        }
        for repo, tag, digest in names or [("<none>", "<none>", "<none>")]
    ]


def of_container(container: ApiObject, *, whole: bool) -> Row:
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


def _size(container: ApiObject) -> str:
    written = human_size(container.get("SizeRw") or 0)
    whole = container.get("SizeRootFs") or 0
    return f"{written} (virtual {human_size(whole)})" if whole else written


def ports(rows: list[ApiObject]) -> str:
    """Ports as ``443/tcp, 0.0.0.0:8080->80/tcp``; ports published under their own numbers form ranges."""
    groups: dict[tuple[str, str], list[list[int]]] = {}
    others = []
    for port in sorted(rows, key=lambda r: (r["PrivatePort"], r.get("IP", ""), r.get("PublicPort", 0), r["Type"])):
        number, address = port["PrivatePort"], port.get("IP", "")
        if address and port["PublicPort"] != number:
            others.append(f"{_host(address)}:{port['PublicPort']}->{number}/{port['Type']}")
            continue
        runs = groups.setdefault((address, port["Type"]), [])
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


def of_volume(volume: ApiObject) -> Row:
    """One volume in the fields of Docker's ``--format``."""
    usage = volume.get("UsageData")
    return {
        "Availability": "N/A",
        "Driver": volume["Driver"],
        "Group": "N/A",
        "Label": lambda name: (volume["Labels"] or {}).get(name, ""),
        "Labels": labels(volume["Labels"]),
        "Links": str(usage["RefCount"]) if usage else "N/A",
        "Mountpoint": volume["Mountpoint"],
        "Name": volume["Name"],
        "Scope": volume["Scope"],
        "Size": human_size(usage["Size"], 4) if usage else "N/A",
        "Status": "N/A",
    }


def of_network(network: ApiObject, *, whole: bool) -> Row:
    """One network in the fields of Docker's ``--format``."""
    return {
        "CreatedAt": network["Created"].replace("T", " ").removesuffix("Z") + " +0000 UTC",
        "Driver": network["Driver"],
        "ID": network["Id"] if whole else network["Id"][:12],
        "IPv4": booleans.write(network.get("EnableIPv4")),
        "IPv6": booleans.write(network.get("EnableIPv6")),
        "Internal": booleans.write(network.get("Internal")),
        "Label": lambda name: (network.get("Labels") or {}).get(name, ""),
        "Labels": labels(network.get("Labels")),
        "Name": network["Name"],
        "Scope": network["Scope"],
    }


def of_cache_record(record: ApiObject) -> Row:
    """A record of the build cache in the fields of Docker's ``--format``."""
    return {
        "CacheType": record["Type"],
        "CreatedSince": ago(record.get("CreatedAt")),
        "Description": record.get("Description") or "",
        "ID": record["ID"],
        "InUse": booleans.write(record["InUse"]),
        "LastUsedSince": ago(record.get("LastUsedAt")),
        "Parents": ",".join(record.get("Parents") or ()),
        "Shared": booleans.write(record["Shared"]),
        "Size": human_size(record["Size"], 4),
        "UsageCount": str(record.get("UsageCount") or 0),
    }


def ago(text: str | None) -> str:
    """``5 minutes ago`` for a time of RFC 3339; nothing for none."""
    from ketch.notation import moments  # here: lists of containers and images do without

    ns = moments.rfc3339(text) if text else None
    return since(ns / 1e9) if ns is not None and ns > 0 else ""
