"""The oldest format of ``docker save``: a directory for each layer, and ``repositories`` with the names.

    repositories             {"NAME": {"TAG": ID}}
    ID/json                  a configuration with the id of the layer below it (``parent``)
    ID/layer.tar             the layer

Its configurations know no digests of layers; those of today are made out of them, as dockerd does it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from ketch.errors import InvalidArgument
from ketch.oci import reference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REPOSITORIES = "repositories"
_ID = re.compile(r"[0-9a-f]{64}\Z")
_DROPPED = frozenset(("id", "parent", "Size", "parent_id", "layer_id", "throwaway"))
_LONGEST_CHAIN = 1000
_ESCAPED = ((b"<", b"\\u003c"), (b">", b"\\u003e"), (b"&", b"\\u0026"))


class OldImage(msgspec.Struct, kw_only=True):
    """One image: the ids of its layers, lowest first, and the configurations that belong to them."""

    ids: list[str]
    configs: list[dict[str, Any]]

    @property
    def paths(self) -> list[str]:
        """The files of the layers."""
        return [f"{ident}/layer.tar" for ident in self.ids]

    def upwards(self) -> Iterator[OldImage]:
        """The images that this one was made of, lowest first, and itself."""
        for count in range(1, len(self.ids) + 1):
            yield OldImage(ids=self.ids[:count], configs=self.configs[:count])

    def config(self, diff_ids: list[str]) -> bytes:
        """The configuration of today, as JSON with Docker's order and escapes."""
        facts = {name: value for name, value in self.configs[-1].items() if name not in _DROPPED}
        facts["rootfs"] = {"type": "layers", "diff_ids": diff_ids}
        facts["history"] = [_step(config) for config in self.configs]
        data = msgspec.json.encode(dict(sorted(facts.items())))
        for plain, escaped in _ESCAPED:
            data = data.replace(plain, escaped)
        return data


def _step(config: dict[str, Any]) -> dict[str, Any]:
    """The entry of the history for a layer."""
    made_by = config.get("container_config")
    command = made_by.get("Cmd") if isinstance(made_by, dict) else None
    command = [command] if isinstance(command, str) else command
    words = [word for word in command if isinstance(word, str)] if isinstance(command, list) else []
    step = {
        "created": config.get("created"),
        "created_by": " ".join(words),
        "author": config.get("author"),
        "comment": config.get("comment"),
    }
    return {name: value for name, value in step.items() if value}


def images(read: Callable[[str], Any], has: Callable[[str], bool]) -> list[tuple[OldImage, list[str]]]:
    """The images that have names, with these; ``read`` decodes a file of JSON (InvalidArgument)."""
    names: dict[str, list[str]] = {}
    table = read(REPOSITORIES)
    if not isinstance(table, dict | None):
        raise InvalidArgument(f"load: {REPOSITORIES} is not an object")
    for name, tags in (table or {}).items():
        if not isinstance(tags, dict | None):
            raise InvalidArgument(f"load: {REPOSITORIES}: the tags of `{name}` are not an object")
        for tag, ident in (tags or {}).items():
            parsed = reference.parse(name)
            if not reference.is_tag(tag):
                raise InvalidArgument("invalid tag format")
            names.setdefault("" if ident is None else str(ident), []).append(f"{parsed.repository}:{tag}")
    return [(_image(ident, read, has), own) for ident, own in names.items()]


def _image(ident: str, read: Callable[[str], Any], has: Callable[[str], bool]) -> OldImage:
    ids: list[str] = []
    configs: list[dict[str, Any]] = []
    below: Any = ident
    while below or not ids:
        if not isinstance(below, str) or not _ID.match(below) or not has(f"{below}/json"):
            raise InvalidArgument(f"invalid target ID: {below}", hint="the archive lacks a layer, or is no image's")
        if len(ids) >= _LONGEST_CHAIN:
            raise InvalidArgument(f"load: image {ident} has more than {_LONGEST_CHAIN} layers, or is its own parent")
        config = read(f"{below}/json")
        if not isinstance(config, dict):
            raise InvalidArgument(f"load: {below}/json is not an object")
        ids.insert(0, below)
        configs.insert(0, config)
        below = config.get("parent")
    return OldImage(ids=ids, configs=configs)
