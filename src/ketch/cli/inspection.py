"""Inspection of objects of all types: found by name, printed as JSON or by a template."""

from __future__ import annotations

import json

from ketch import printable
from ketch.cli.image_names import platform_json
from ketch.errors import InvalidArgument, KetchError, NotFound
from ketch.notation import documents

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ketch.cli.context import Context

# In this order a name is looked for when --type does not say what it is.
PATHS = {
    "container": "/containers/{}/json",
    "image": "/images/{}/json",
    "network": "/networks/{}",
    "volume": "/volumes/{}",
}


def inspect(
    ctx: Context, refs: list[str], kinds: list[str], format: str, *, size: bool = False, platform: str = ""
) -> int:
    """Inspect the daemon's objects (`show`)."""
    return show(ctx, refs, lambda ref: _find(ctx, ref, kinds, size=size, platform=platform), format)


def show(ctx: Context, refs: list[str], find: Callable[[str], Any], format: str) -> int:
    """Print objects by JSON or a template; those found are printed even when others are missing (then 1)."""
    template = None
    if format and format != "json":
        from ketch.cli.gotemplate.template import Template

        template = Template(format)
    found: list[Any] = []
    errors: list[KetchError] = []
    for ref in refs:
        try:
            found.append(find(ref))
        except KetchError as e:
            errors.append(e)
    if template is not None:
        for item in found:
            ctx.print(template.render(item))
    elif format == "json":
        ctx.print(documents.dumps(found, spaces=False))
    else:
        ctx.print(printable.json_text(json.dumps(found, indent=4, ensure_ascii=False)))
    ctx.out.flush()
    for error in errors:
        ctx.complain(error)
    return 1 if errors else 0


def _find(ctx: Context, ref: str, kinds: list[str], *, size: bool, platform: str) -> Any:
    for kind in kinds:
        query: dict[str, Any] | None = {"size": True} if size and kind == "container" else None
        if platform:
            query = {"platform": platform_json(platform)}
        try:
            return ctx.client().request("GET", PATHS[kind].format(ref), query).json()
        except NotFound:
            if len(kinds) == 1:
                raise
        except InvalidArgument:
            if kind != "image":  # a name of another kind of object need not be a reference
                raise
    raise NotFound(f"no such object: {ref}")
