"""Values of the flags of ``build`` that have a grammar of their own, on the command line and on the wire."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from ketch.cli.errors import UsageError
from ketch.notation import booleans

if TYPE_CHECKING:
    from ketch.cli.options.flags import Options

_SCOPED = re.compile(r"(manifest|manifest-descriptor|index|index-descriptor)(\[[^\]]*\])?:(.*)\Z", re.DOTALL)
_DISABLED = "Ketch makes no attestations"


def fields(text: str, flag: str) -> dict[str, str]:
    """``type=local,"dest=a,b"`` → names, in lower case, and values (UsageError)."""
    import csv

    try:
        cells = next(csv.reader([text], strict=True), [])
    except csv.Error as e:
        raise UsageError(f"invalid --{flag} `{text}`: {e}") from e
    found = {}
    for cell in cells:
        name, equals, value = cell.partition("=")
        if not equals:
            raise UsageError(f"invalid --{flag} `{text}`: `{cell}` has no value", hint="write NAME=VALUE,…")
        found[name.strip().lower()] = value
    return found


def pairs(items: list[str], flag: str, *, inherit: bool = False) -> dict[str, str]:
    """``NAME=VALUE`` …; a name alone has the empty value or, with ``inherit``, that of our environment, if any."""
    found = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not name:
            raise UsageError(f"invalid --{flag} `{item}`: the name is empty")
        if equals or not inherit:
            found[name] = value
        elif name in os.environ:
            found[name] = os.environ[name]
    return found


def listed(items: list[str]) -> list[str]:
    """Values that may also be written as one, with commas."""
    return [part.strip() for item in items for part in item.split(",") if part.strip()]


def check_attestations(opts: Options) -> None:
    """UsageError unless all attestations are turned off."""
    for flag in ("provenance", "sbom"):
        if flag in opts.given and booleans.parse(opts[flag]) is not False:
            raise UsageError(f"--{flag} {opts[flag]}: {_DISABLED}", hint=f"leave it out, or use --{flag}=false")
    for text in opts["attest"]:
        wanted = fields(text, "attest")
        if booleans.parse(wanted.get("disabled", "false")) is not True:
            raise UsageError(f"--attest {text}: {_DISABLED}", hint="leave it out, or add disabled=true")


def annotation_attributes(items: list[str]) -> dict[str, str]:
    """``[TYPE[PLATFORM]:]KEY=VALUE`` → attributes of an output, as BuildKit names them."""
    found = {}
    for item in items:
        match = _SCOPED.match(item)
        kind, platform, rest = match.groups() if match else ("manifest", None, item)
        key, equals, value = rest.partition("=")
        if not equals or not key:
            raise UsageError(f"invalid --annotation `{item}`", hint="write KEY=VALUE or TYPE:KEY=VALUE")
        scope = "" if kind == "manifest" else f"-{kind}"
        found[f"annotation{scope}{platform or ''}.{key}"] = value
    return found


def call(opts: Options) -> tuple[str, bool]:
    """The evaluation that is asked for (``build``: a build), and whether it is printed as JSON."""
    text = "check" if opts["check"] else str(opts["call"])
    method, _, rest = text.partition(",")
    method = method.removeprefix("method=").removeprefix("lint") or "check"
    options = fields(rest, "call") if rest else {}
    if method not in ("build", "check", "outline", "targets"):
        raise UsageError(f"invalid --call `{text}`", hint="use check, outline or targets")
    if options.get("format", "text") not in ("json", "text"):
        raise UsageError(f"invalid --call `{text}`: format `{options['format']}`", hint="use json or text")
    return method, options.get("format") == "json"


def caches(items: list[str], flag: str) -> list[tuple[str, dict[str, str]]]:
    """``--cache-from`` and ``--cache-to`` → kinds and attributes; a name alone is an image's."""
    found = []
    for item in items:
        if "=" not in item:
            found += [("registry", {"ref": name}) for name in item.split(",")]
            continue
        attributes = fields(item, flag)
        kind = attributes.pop("type", "")
        if not kind:
            raise UsageError(f"invalid --{flag} `{item}`: type is required", hint="write type=registry,ref=…")
        needed = {"local": "src" if flag == "cache-from" else "dest", "registry": "ref"}.get(kind)
        if needed and not attributes.get(needed):
            raise UsageError(f"invalid --{flag} `{item}`: {needed} is required")
        found.append((kind, attributes))
    return found
