"""The paths that a build takes from its contexts, which are all that a client must send."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ketch.build.dockerfile.convert.plan import Node


class UsedPaths:
    """Paths by the stage or context that they are taken of; ``context``: those of the build context."""

    def __init__(self) -> None:
        self.context: set[str] = set()
        self._nodes: dict[int, set[str]] = {}

    def of(self, node: Node) -> set[str]:
        """The paths that are taken of a node."""
        return self._nodes.setdefault(id(node), set())


def follow_attrs(paths: set[str]) -> dict[str, str]:
    """The attribute of a local source that lists its paths; none where the whole is taken."""
    if not paths or "/" in paths:
        return {}
    return {"local.followpaths": listed(sorted(path.lstrip("/") for path in paths))}


def listed(texts: list[str]) -> str:
    """Texts as Go writes them in JSON."""
    found = json.dumps(texts, ensure_ascii=False, separators=(",", ":"))
    for char in "<>&\u2028\u2029":
        found = found.replace(char, f"\\u{ord(char):04x}")
    return found
