"""Docker's records on the disk, in the form in which its API shows them."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ketch.notation.api_objects import ApiObject

_GENERIC = "com.docker.network.generic"


def image(image_id: str, config: ApiObject, size: int) -> ApiObject:
    """An image, from its configuration (OCI image-spec, config.md), as far as an import asks."""
    return {
        "Id": image_id,
        "Created": config.get("created"),
        "Architecture": config.get("architecture"),
        "Config": config.get("config") or {},
        "RootFS": {"Layers": config["rootfs"].get("diff_ids") or []},
        "Size": size,
    }


def container(config: ApiObject, host: ApiObject) -> ApiObject:
    """A container, from ``config.v2.json`` and ``hostconfig.json``; none runs."""
    networks = (config.get("NetworkSettings") or {}).get("Networks") or {}
    macs = [one.get("DesiredMacAddress") for one in networks.values() if one.get("DesiredMacAddress")]
    mounts = [
        {**mount, "Type": mount.get("Type") or ("volume" if mount.get("Name") else "bind")}
        for mount in (config.get("MountPoints") or {}).values()
    ]
    return {
        "Id": text(config["ID"]),
        "Name": text(config["Name"]),
        "Image": text(config["Image"]),
        "Created": config.get("Created"),
        "State": {"Running": False},
        "Config": {
            **config["Config"],
            "Image": text(config["Config"]["Image"]),
            "MacAddress": macs[0] if macs else "",
        },
        "HostConfig": host,
        "Mounts": mounts,
        "NetworkSettings": {"Networks": networks},
    }


def text(value: object) -> str:
    """A text (TypeError: it is something else; UnicodeEncodeError: it has halves of characters)."""
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    value.encode()
    return value


def volume(record: ApiObject, place: str) -> ApiObject:
    """A volume, from its record in dockerd's database; ``place`` has the directories of all."""
    name = text(record["Name"])
    return {**record, "Name": name, "Driver": text(record["Driver"]), "Mountpoint": os.path.join(place, name, "_data")}


def volume_of_options(name: str, known: ApiObject, place: str) -> ApiObject:
    """A volume without a record, from what its driver keeps beside its files."""
    pairs = (("type", "MountType"), ("o", "MountOpts"), ("device", "MountDevice"))
    options = {option: text(known[key]) for option, key in pairs if known.get(key)}
    return volume({"Name": name, "Driver": "local", "Labels": None, "Options": options or None}, place)


def network(record: ApiObject) -> ApiObject:
    """A network, from its record in libnetwork's store."""
    pools = [_pool(info, asked) for version in "46" for info, asked in _pairs(record, version)]
    return {
        "Name": text(record["name"]),
        "Id": text(record["id"]),
        "Driver": text(record["networkType"]),
        "Scope": record.get("scope") or "local",
        "Internal": record.get("internal") or False,
        "Attachable": record.get("attachable") or False,
        "EnableIPv4": record.get("enableIPv4", True),
        "EnableIPv6": record.get("enableIPv6") or False,
        "ConfigOnly": record.get("configOnly") or False,
        "ConfigFrom": {"Network": record.get("configFrom") or ""},
        "Options": (record.get("generic") or {}).get(_GENERIC) or {},
        "Labels": record.get("labels") or {},
        "IPAM": {
            "Driver": record.get("ipamType") or "default",
            "Options": record.get("ipamOptions") or {},
            "Config": pools,
        },
    }


def _pairs(record: ApiObject, version: str) -> list[tuple[ApiObject, ApiObject]]:
    """Each pool, with what was asked for it; JSON in JSON."""
    found = json.loads(record.get(f"ipamV{version}Info") or "[]") or []
    asked = json.loads(record.get(f"ipamV{version}Config") or "[]") or []
    if record.get("configOnly"):  # nothing is allocated for it
        found = [
            {"IPAMData": json.dumps({"Pool": one.get("PreferredPool"), "Gateway": one.get("Gateway")})} for one in asked
        ]
    asked += [{}] * (len(found) - len(asked))
    return [(json.loads(one["IPAMData"]), other) for one, other in zip(found, asked, strict=False)]


def _pool(info: ApiObject, asked: ApiObject) -> ApiObject:
    return {
        "Subnet": info["Pool"],
        "Gateway": (info.get("Gateway") or "").partition("/")[0],
        "IPRange": asked.get("SubPool") or "",
        "AuxiliaryAddresses": asked.get("AuxAddresses") or {},
    }
