"""The tables of docs/compatibility.md name every field of the API's description, each once."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ketch.api.wire.container_requests import NetworkingConfig
from ketch.engine.model.records import ContainerConfig, EndpointFields, HostConfig

_ROOT = Path(__file__).parents[3]
_DEFINITIONS = json.loads((_ROOT / "tests/data/engine-api.json").read_text())["definitions"]
_VERDICTS = ("honoured", "refused", "dropped", "shown")


def _properties(schema: dict[str, Any]) -> set[str]:
    found = set(schema.get("properties", {}))
    for part in schema.get("allOf", ()):
        found |= _properties(part)
    if "$ref" in schema:
        found |= _properties(_DEFINITIONS[schema["$ref"].rpartition("/")[2]])
    return found


def _rows(heading: str) -> list[tuple[str, str]]:
    """The rows of a section: (field, what is said of it)."""
    text = (_ROOT / "docs/compatibility.md").read_text()
    section = text.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.*) \| (.*) \|$", section, re.MULTILINE)[1:]
    return [(field, said) for fields, said in rows for field in fields.split(", ")]


@pytest.mark.parametrize(
    ("heading", "definitions", "structs"),
    [
        ("HostConfig", ["HostConfig"], [HostConfig]),
        ("Config", ["ContainerConfig"], [ContainerConfig]),
        (
            "NetworkingConfig and its endpoints",
            ["NetworkingConfig", "EndpointSettings"],
            [NetworkingConfig, EndpointFields],
        ),
    ],
)
def test_every_field_is_accounted_for(
    heading: str, definitions: list[str], structs: list[type[msgspec.Struct]]
) -> None:
    rows = _rows(heading)
    described = set().union(*(_properties(_DEFINITIONS[name]) for name in definitions))
    assert sorted(field for field, _ in rows) == sorted(described)
    known = {field.encode_name for struct in structs for field in msgspec.structs.fields(struct)}
    for field, said in rows:
        assert said.startswith(_VERDICTS), (field, said)
        assert field in known or said.startswith("dropped"), f"{field} is said to be {said}, and is not read"
