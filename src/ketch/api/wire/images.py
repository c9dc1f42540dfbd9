"""An image in Docker's JSON: the row of a list and the answer of inspect."""

from __future__ import annotations

import os
import re
from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from ketch.notation import times

if TYPE_CHECKING:
    from ketch.engine.engine import Engine
    from ketch.images.model import Image
    from ketch.notation.api_objects import ApiObject

_CONFIG_NAMES = {
    "user": "User",
    "exposed_ports": "ExposedPorts",
    "env": "Env",
    "entrypoint": "Entrypoint",
    "cmd": "Cmd",
    "volumes": "Volumes",
    "working_dir": "WorkingDir",
    "labels": "Labels",
    "stop_signal": "StopSignal",
    "on_build": "OnBuild",
    "shell": "Shell",
    "healthcheck": "Healthcheck",
    "args_escaped": "ArgsEscaped",
}
_TIME = re.compile(r"([^.]*)(\.[0-9]{1,40})?(Z|[+-][0-9:]{1,8})")
_ALWAYS = ("Env", "Cmd", "Entrypoint", "Labels", "OnBuild", "Volumes", "User", "WorkingDir")


def run_config(image: Image) -> ApiObject:
    """The ``Config`` of an image."""
    config = image.config.config
    answer: ApiObject = {}
    for attribute, name in _CONFIG_NAMES.items():
        value = getattr(config, attribute, None) if config else None
        if value or name in _ALWAYS:
            answer[name] = msgspec.to_builtins(value)
    answer["User"] = answer["User"] or ""
    answer["WorkingDir"] = answer["WorkingDir"] or ""
    return answer


def row(engine: Engine, image: Image, containers: int = -1) -> ApiObject:
    """One entry of ``GET /images/json``."""
    config = image.config.config
    return {
        "Id": image.id,
        "ParentId": _parent(engine, image),
        "RepoTags": list(image.repo_tags),
        "RepoDigests": list(image.repo_digests),
        "Created": image.created // 1_000_000_000,
        "Size": image.size,
        "SharedSize": -1,
        "Containers": containers,
        "Labels": (config.labels if config else None) or None,
    }


def containers_by_image(engine: Engine) -> Counter[str]:
    """The number of containers that were made from each image, by its id."""
    return Counter(container.image_id for container in engine.containers.list())


def _parent(engine: Engine, image: Image) -> str:
    """The image that this one was committed on, while it is here."""
    return image.parent if image.parent in engine.images.store.catalog.images else ""


def _comment(image: Image) -> str:
    steps = image.config.history or ()
    return getattr(image.config, "comment", None) or (steps[-1].comment if steps else None) or ""


def _graph(dirs: list[str]) -> dict[str, str]:
    """``GraphDriver``: the newest layer's directory, under the keys that dockerd has."""
    upper = dirs[0] if dirs else ""
    beside = os.path.dirname(upper)
    data = {"UpperDir": upper, "WorkDir": os.path.join(beside, "work"), "MergedDir": os.path.join(beside, "merged")}
    return data | ({"LowerDir": ":".join(dirs[1:])} if dirs[1:] else {})


def _created(text: str | None) -> str:
    """The time of a configuration as Go writes it: with its zone, without zeros at the end."""
    if text is None or (match := _TIME.fullmatch(text)) is None:
        return ""
    fraction = (match[2] or "")[:10].rstrip("0").rstrip(".")
    return match[1] + fraction + ("Z" if match[3] in ("+00:00", "-00:00") else match[3])


def inspect(engine: Engine, image: Image) -> ApiObject:
    """The body of ``GET /images/{name}/json``."""
    dirs = engine.containers.details.layer_directories(image.chain_ids)
    config = image.config
    known: ApiObject = {"Created": _created(config.created), "Variant": config.variant, "OsVersion": config.os_version}
    return {name: value for name, value in known.items() if value} | {
        "Id": image.id,
        "RepoTags": list(image.repo_tags),
        "RepoDigests": list(image.repo_digests),
        "Parent": _parent(engine, image),
        "Comment": _comment(image),
        "DockerVersion": config.docker_version or "",
        "Author": config.author or "",
        "Config": run_config(image),
        "Architecture": image.config.architecture,
        "Os": image.config.os,
        "Size": image.size,
        "GraphDriver": {
            "Name": "overlay2",
            "Data": _graph(dirs),
        },
        "RootFS": {"Type": config.rootfs.type, **({"Layers": list(image.diff_ids)} if image.diff_ids else {})},
        "Metadata": {"LastTagTime": times.rfc3339_or_never(image.last_tagged)},
    }
