"""Fields of nested dictionaries by their path: ``HostConfig.Memory``."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ketch.notation.api_objects import ApiObject


def put(target: ApiObject, path: str, value: Any) -> None:
    """Set a field; a list is appended to the existing one."""
    outer, dot, inner = path.partition(".")
    if dot:
        put(target.setdefault(outer, {}), inner, value)
    elif isinstance(value, list):
        target[path] = [*target.get(path, ()), *value]
    else:
        target[path] = value


def get(source: ApiObject, path: str) -> Any:
    """The value of a field, None when it is missing."""
    found: Any = source
    for name in path.split("."):
        found = (found or {}).get(name)
    return found
