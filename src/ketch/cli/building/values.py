"""Values of the flags of ``build`` that have a grammar of their own, on the command line and on the wire."""

from __future__ import annotations

import os
import re

from ketch.cli.errors import UsageError
from ketch.notation import booleans

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.cli.options.flags import Options

_SCOPED = re.compile(r"(manifest|manifest-descriptor|index|index-descriptor)(\[[^\]]*\])?:(.*)\Z", re.DOTALL)
_DEFAULT_PROVENANCE = "mode=min,inline-only=true"


def fields(text: str, flag: str, *, as_written: bool = False) -> dict[str, str]:
    """``type=local,"dest=a,b"`` → names, in lower case unless ``as_written``, and values (UsageError)."""
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
        found[name.strip() if as_written else name.strip().lower()] = value
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


def attestations(opts: Options, *, by_default: bool) -> dict[str, str]:
    """The attestations that the flags ask for: options by type (UsageError).

    ``by_default``: images get a provenance that tells nothing of arguments, unless BUILDX_NO_DEFAULT_ATTESTATIONS says
    otherwise.
    """
    found: dict[str, str | None] = {}
    for text in [*opts["attest"], *_short(opts)]:
        cells = fields(text, "attest", as_written=True)
        kind, disabled = cells.pop("type", ""), booleans.parse(cells.pop("disabled", "false"))
        if not kind:
            raise UsageError(f"invalid --attest `{text}`: attestation type not specified", hint="write type=provenance")
        if disabled is None:
            raise UsageError(f"invalid --attest `{text}`: disabled is true or false")
        if kind in found:
            raise UsageError(f"duplicate attestation field {kind}", hint="give each type once")
        found[kind] = None if disabled else _joined(cells)
    without = booleans.parse(os.environ.get("BUILDX_NO_DEFAULT_ATTESTATIONS", "")) is True
    if by_default and not without and "provenance" not in found:
        found["provenance"] = _DEFAULT_PROVENANCE
    return {kind: text for kind, text in found.items() if text is not None}


def _short(opts: Options) -> list[str]:
    """``--provenance`` and ``--sbom``, as ``--attest`` has them."""
    found = []
    for kind in ("provenance", "sbom"):
        if kind in opts.given and opts[kind]:
            wanted = booleans.parse(opts[kind])
            rest = opts[kind] if wanted is None else f"disabled={booleans.write(not wanted)}"
            found.append(f"type={kind},{rest}")
    return found


def _joined(cells: dict[str, str]) -> str:
    """Names and values as one line of CSV."""
    import csv
    import io

    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow([f"{name}={value}" for name, value in cells.items()])
    return line.getvalue() if cells else ""


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
