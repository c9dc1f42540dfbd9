"""The Engine API's own description (swagger 2.0) as a judge of what was answered.

Its definitions become JSON Schemas that are closed: a property that the description does not know is an error, unless
it is one of Ketch's own or of dockerd's habits below.  ``tests/data/engine-api.json`` has what the description states,
without its words (``scripts/api-facts`` writes it).
"""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any

import jsonschema

if TYPE_CHECKING:
    from tests.support.tap import Exchange

FILE = os.path.join(
    os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "data/engine-api.json"
)
_RANGES = {
    "uint8": (0, 2**8 - 1),
    "uint16": (0, 2**16 - 1),
    "uint32": (0, 2**32 - 1),
    "uint64": (0, 2**64 - 1),
    "int8": (-(2**7), 2**7 - 1),
    "int32": (-(2**31), 2**31 - 1),
    "int64": (-(2**63), 2**63 - 1),
}
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)\Z")
_KEPT = (
    "type",
    "minLength",
    "maxLength",
    "enum",
    "pattern",
    "minimum",
    "maximum",
    "minItems",
    "maxItems",
    "required",
    "format",
)
_STREAMS = ("raw-stream", "multiplexed-stream", "x-tar", "octet-stream")
_ERROR = {"message": str, "kind": str}
Schema = dict[str, Any]
# Properties that are Ketch's own (docs/api.md), and those that the description forgets: dockerd has them, too.
EXTRAS = frozenset(("OnFailure", "IDMappings"))
HABITS = frozenset(
    {"GET /events  from", "GET /events  id", "GET /events  status"}  # (of old; gone in 1.52)
    | {"GET /containers/{id}/changes"}  # null: none
    | {"GET /exec/{id}/json ExitCode"}  # null while it has none
    # Where dockerd writes Go's empty lists and maps as null, and clients know it.
    | {
        "Config.Cmd",  # of images without
        "Config.Entrypoint",
        "Config.Env",  # of imported images
        "Config.Volumes",
        "Config.Labels",
        "Options",
        "Labels",
        "Warnings",
        "ImagesDeleted",
        "NetworksDeleted",
        "GenericResources",
        "Plugins.Authorization",
        "IPAM.Options",
        "RegistryConfig.Mirrors",
        "IPAM.Config",
    }
    | {
        f"HostConfig.{name}"
        for name in (
            "Binds",
            "BlkioDeviceReadBps",
            "BlkioDeviceReadIOps",
            "BlkioDeviceWriteBps",
            "BlkioDeviceWriteIOps",
            "BlkioWeightDevice",
            "CapAdd",
            "CapDrop",
            "DeviceCgroupRules",
            "DeviceRequests",
            "Devices",
            "Dns",
            "DnsOptions",
            "DnsSearch",
            "ExtraHosts",
            "GroupAdd",
            "Links",
            "SecurityOpt",
            "Ulimits",
            "VolumesFrom",
            "MemorySwappiness",
            "OomKillDisable",
            "PortBindings",
        )
    }
    | {f"NetworkSettings.Networks.*.{name}" for name in ("Aliases", "DNSNames", "Links")}
)


def load_description() -> dict[str, Any]:
    """The facts of the description, as swagger."""
    with open(FILE, encoding="utf-8") as f:
        description: dict[str, Any] = json.load(f)
    return description


class Contract:
    """Every operation of the description; ``check`` says what is wrong with an exchange."""

    def __init__(self, description: dict[str, Any], extras: frozenset[str], habits: frozenset[str]) -> None:
        self._extras = extras
        self._habits = habits
        self._produces = description["produces"]
        definitions = description["definitions"]
        self._defs = {name: _convert(_flat(node, definitions)) for name, node in definitions.items()}
        self._definitions = definitions
        self.operations: dict[tuple[str, str], dict[str, Any]] = {}
        self._patterns: list[tuple[re.Pattern[str], str]] = []
        for path, methods in description["paths"].items():
            kind = r"/(.+)" if path.startswith(("/images", "/distribution", "/plugins")) else r"/([^/]+)"
            self._patterns.append((re.compile(re.sub(r"/\{\w+\}", lambda _m, kind=kind: kind, path) + r"\Z"), path))
            for method, operation in methods.items():
                if method != "parameters":
                    self.operations[method.upper(), path] = operation
        self._patterns.sort(key=lambda entry: entry[1].count("{"))  # /images/json is no image's name

    def operation_of(self, exchange: Exchange) -> tuple[str, str] | None:
        """The (method, template) that an exchange is an example of."""
        path = re.sub(r"\A/v1\.\d+(?=/)", "", exchange.target.partition("?")[0])
        for pattern, template in self._patterns:
            if pattern.match(path):
                method = exchange.method
                if method == "HEAD" and (method, template) not in self.operations:
                    method = "GET"
                if (method, template) in self.operations:
                    return method, template
        return None

    def check(self, exchange: Exchange) -> list[str]:
        """Sentences about what does not agree with the description; none when all does."""
        key = self.operation_of(exchange)
        if key is None:
            return []
        operation, problems = self.operations[key], []
        response = {str(status): one for status, one in operation["responses"].items()}.get(str(exchange.status))
        media = exchange.headers.get("content-type", "").partition(";")[0]
        if exchange.method == "HEAD" or exchange.status == 101:
            return []
        if response is None:
            return self._undescribed(exchange)
        schema = response.get("schema")
        if exchange.status >= 400:
            return self._error(exchange, media)
        if schema is None:
            if exchange.body.strip() and media not in self._media(operation) and not media.endswith(_STREAMS):
                problems.append(f"{exchange}: a body of {media} where none is described")
            return problems
        if media not in self._media(operation):
            problems.append(f"{exchange}: content type {media}, not one of {', '.join(self._media(operation))}")
        if media == "application/json" and schema.get("type") != "string":
            problems += self._bodies(exchange, key, schema)
        problems += [
            f"{exchange}: no header {h}" for h in response.get("headers", ()) if h.lower() not in exchange.headers
        ]
        return problems

    def _media(self, operation: dict[str, Any]) -> list[str]:
        return operation.get("produces", self._produces)

    def _undescribed(self, exchange: Exchange) -> list[str]:
        if exchange.status in (400, 501):  # any request can be malformed, and what is not there yet says so
            return self._error(exchange, exchange.headers.get("content-type", "").partition(";")[0])
        return [f"{exchange}: this status is not described: {exchange.body[:200]!r}"]

    def _error(self, exchange: Exchange, media: str) -> list[str]:
        try:
            body = exchange.json
        except ValueError:
            return [f"{exchange}: an error that is not JSON ({media}): {exchange.body[:200]!r}"]
        if media != "application/json" or {k: type(v) for k, v in body.items()} != _ERROR:
            return [f"{exchange}: an error must be {{message, kind}}: {body}"]
        return []

    def _bodies(self, exchange: Exchange, key: tuple[str, str], schema: Schema) -> list[str]:
        validator = jsonschema.Draft202012Validator(
            {**_convert(_flat(schema, self._definitions)), "$defs": self._defs}, format_checker=_FORMATS
        )
        stream = exchange.headers.get("transfer-encoding") == "chunked"
        texts = [line for line in exchange.body.splitlines() if line.strip()] if stream else [exchange.body]
        problems = []
        for text in texts:
            for error in validator.iter_errors(json.loads(text)):
                problems += self._new_problems(f"{key[0]} {key[1]}", _place(error), error)
        return list(dict.fromkeys(problems))

    def _new_problems(self, where: str, place: str, error: jsonschema.ValidationError) -> list[str]:
        if error.validator == "additionalProperties":
            names = set(error.instance) - set(error.schema["properties"]) - self._extras
            found = [n for n in names if f"{where} {place} {n}" not in self._habits]
            return [f"{where} {place} {name}: not described" for name in found]
        if error.validator == "anyOf":  # null, or …: the alternative to null tells more
            return [
                told
                for one in error.context or ()
                if one.schema_path[0] == 0
                for told in self._new_problems(where, _place(one), one)
            ]
        about = f"{where} {place}".rstrip()
        shown = re.sub(r"(?s)(?<=Networks\.).+(?=\.)", "*", place)
        habits = self._habits
        if error.instance is None and (about in habits or any(shown == h or shown.endswith("." + h) for h in habits)):
            return []
        return [f"{about}: {error.message[:200]}"]


def _place(error: jsonschema.ValidationError) -> str:
    return ".".join("*" if isinstance(p, int) else str(p) for p in error.absolute_path)


_FORMATS = jsonschema.FormatChecker(())


@_FORMATS.checks("date-time")
def _is_time(value: object) -> bool:
    return not isinstance(value, str) or value == "" or _TIME.match(value) is not None


def _flat(node: Schema, definitions: Schema) -> Schema:
    """A schema whose ``allOf`` is one list of properties, so that what is none of them can be told."""
    if "allOf" not in node:
        return node
    properties, required = dict(node.get("properties", {})), list(node.get("required", ()))
    for part in node["allOf"]:
        whole = definitions[part["$ref"].removeprefix("#/definitions/")] if "$ref" in part else part
        whole = _flat(whole, definitions)
        properties |= whole.get("properties", {})
        required += whole.get("required", ())
    return {"type": "object", "properties": properties, **({"required": required} if required else {})}


def _convert(node: Schema) -> Schema:
    """A swagger schema as a JSON Schema of 2020 that refuses properties which it does not name."""
    if ref := node.get("$ref"):
        return _nullable({"$ref": "#/$defs/" + ref.removeprefix("#/definitions/")}, node)
    answer = {key: node[key] for key in _KEPT if key in node}
    low, high = _RANGES.get(str(node.get("format")), (None, None))
    if low is not None:
        answer.setdefault("minimum", low)
        answer.setdefault("maximum", high)
    if answer.get("format") == "dateTime":
        answer["format"] = "date-time"
    if "items" in node:
        answer["items"] = _convert(node["items"])
    if "properties" in node:
        answer["properties"] = {name: _convert(one) for name, one in node["properties"].items()}
    if "allOf" in node:
        answer["allOf"] = [_convert(one) for one in node["allOf"]]
    more = node.get("additionalProperties")
    if isinstance(more, dict):
        answer["additionalProperties"] = _convert(more)
    elif more is None and "properties" in node:
        answer["additionalProperties"] = False
    return _nullable(answer, node)


def _nullable(schema: Schema, node: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]} if node.get("x-nullable") else schema
