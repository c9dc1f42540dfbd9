"""The likeness of images in Docker and in Ketch: their ids depend on where they are stored."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from ketch.notation.api_objects import ApiObject

# What decides how containers run; old dockerds tell more, which is the same for all images.
_CONFIG = (
    "User",
    "ExposedPorts",
    "Env",
    "Entrypoint",
    "Cmd",
    "Volumes",
    "WorkingDir",
    "Labels",
    "StopSignal",
    "Healthcheck",
    "OnBuild",
    "Shell",
)
_TIME = re.compile(r"(.*?)(\.[0-9]{1,40})?(Z|[+-][0-9:]{1,8})")
_NEVER = "0001-01-01T00:00:00Z"


class Likeness(NamedTuple):
    """The facts by which an image is known again; ``config`` is JSON."""

    created: str
    architecture: str
    layers: tuple[str, ...]
    config: str


def likeness(facts: ApiObject) -> Likeness:
    """The likeness of an image, as it is inspected."""
    layers = (facts.get("RootFS") or {}).get("Layers") or ()
    created = _time(facts.get("Created") or "")
    return Likeness(created, facts.get("Architecture") or "", tuple(layers), _config(facts.get("Config") or {}))


def _config(config: ApiObject) -> str:
    """A configuration without what is not set, which each daemon tells in its own way."""
    told = {key: config[key] for key in _CONFIG if config.get(key)}
    if "Healthcheck" in told:
        told["Healthcheck"] = {key: value for key, value in told["Healthcheck"].items() if value}
    return json.dumps(told, sort_keys=True)


def _time(text: Any) -> str:
    """A time as Go writes it, whatever wrote it."""
    match = _TIME.fullmatch(str(text))
    if match is None:
        return str(text)
    fraction = (match[2] or "").rstrip("0").rstrip(".")
    time = match[1] + fraction + ("Z" if match[3] in ("+00:00", "-00:00") else match[3])
    return "" if time == _NEVER else time
