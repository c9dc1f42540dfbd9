"""What the daemon knows of objects, as JSON or as a template says."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ketch import printable
from ketch.cli.options.image_names import platform_json
from ketch.errors import InvalidArgument, KetchError, NotFound

if TYPE_CHECKING:
    from typing import Any

    from ketch.cli.context import Context

# In this order a name is looked for when --type does not say what it is.
PATHS = {
    "container": "/containers/{}/json",
    "image": "/images/{}/json",
    "network": "/networks/{}",
    "volume": "/volumes/{}",
}


def many(ctx: Context, refs: list[str], kinds: list[str], form: str, *, size: bool = False, platform: str = "") -> int:
    """Inspect each; what was found is printed even when something was not."""
    template = None
    if form and form != "json":
        from ketch.cli.gotemplate.template import Template

        template = Template(form)
    found: list[Any] = []
    errors: list[KetchError] = []
    for ref in refs:
        try:
            found.append(_one(ctx, ref, kinds, size=size, platform=platform))
        except KetchError as e:
            errors.append(e)
    if template is not None:
        for one in found:
            ctx.print(template.render(one))
    elif form == "json":
        ctx.print(json.dumps(found, separators=(",", ":")))
    else:
        ctx.print(printable.json_text(json.dumps(found, indent=4, ensure_ascii=False)))
    ctx.out.flush()
    for error in errors:
        ctx.warn(f"ketch: {error.message}" + (f"\n  {error.hint}" if error.hint else ""))
    return 1 if errors else 0


def _one(ctx: Context, ref: str, kinds: list[str], *, size: bool, platform: str) -> Any:
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
