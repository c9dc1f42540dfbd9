"""``manifest``: indexes of images for several platforms, as ``docker manifest`` makes them, through the daemon."""

from __future__ import annotations

import json

from ketch.cli import credentials
from ketch.cli.options.flags import FlagSet
from ketch.errors import NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ketch.cli.context import Context

_FOR = "is put together by the daemon, and Docker's cannot"


def _ask(ctx: Context, method: str, path: str, name: str, body: Any = None) -> Any:
    ctx.only_ketch("ketch manifest", _FOR)
    header = credentials.header(credentials.of_image(name))
    return ctx.client().request(method, path, body=body, headers=header).json()


def cmd_inspect(args: list[str], ctx: Context) -> int:
    """Show a manifest or index from a registry, or a draft."""
    spec = FlagSet("manifest inspect", "ketch manifest inspect [OPTIONS] NAME", "Display an image manifest, or index")
    spec.bool("verbose", "v", "with its descriptor").bool("insecure", "", "no effect: see insecure-registries")
    opts, rest = spec.parse(args)
    spec.arguments(rest, 1, 1)
    try:
        pending = _ask(ctx, "GET", f"/ketch/manifests/{rest[0]}/local", rest[0])
    except NotFound:
        found = _ask(ctx, "GET", f"/ketch/manifests/{rest[0]}/json", rest[0])
        ctx.print(json.dumps(found if opts["verbose"] else found["Manifest"], indent=4))
        return 0
    index = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [entry["descriptor"] for entry in pending["entries"]],
    }
    ctx.print(json.dumps(pending if opts["verbose"] else index, indent=4))
    return 0


def cmd_create(args: list[str], ctx: Context) -> int:
    """Create a draft of an index."""
    usage = "ketch manifest create [OPTIONS] INDEX MANIFEST [MANIFEST...]"
    spec = FlagSet("manifest create", usage, "Create a local index, for annotating and pushing to a registry")
    spec.bool("amend", "a", "add to one that is there").bool("insecure", "", "no effect: see insecure-registries")
    opts, rest = spec.parse(args)
    spec.arguments(rest, 2)
    body = {"Name": rest[0], "Manifests": rest[1:], "Amend": opts["amend"]}
    made = _ask(ctx, "POST", "/ketch/manifests/create", rest[0], body)
    ctx.print(f"Created manifest list {made['Name']}")
    return 0


def cmd_annotate(args: list[str], ctx: Context) -> int:
    """Set the platform of an image in a draft."""
    usage = "ketch manifest annotate [OPTIONS] INDEX MANIFEST"
    spec = FlagSet("manifest annotate", usage, "Add information to an image of a local index")
    spec.string("os", "", "operating system").string("arch", "", "architecture").string("variant", "", "its variant")
    spec.string("os-version", "", "version of the operating system")
    spec.list("os-features", "", "features that it needs of it")
    opts, rest = spec.parse(args)
    spec.arguments(rest, 2, 2)
    platform = {
        "os": opts["os"],
        "architecture": opts["arch"],
        "variant": opts["variant"],
        "os.version": opts["os-version"],
        "os.features": opts["os-features"],
    }
    body = {"Name": rest[0], "Manifest": rest[1], "Platform": {k: v for k, v in platform.items() if v}}
    _ask(ctx, "POST", "/ketch/manifests/annotate", rest[0], body)
    return 0


def cmd_push(args: list[str], ctx: Context) -> int:
    """Push an index to its registry."""
    spec = FlagSet("manifest push", "ketch manifest push [OPTIONS] INDEX", "Push an index to its repository")
    spec.bool("purge", "p", "forget it here afterwards").bool("insecure", "", "no effect: see insecure-registries")
    opts, rest = spec.parse(args)
    spec.arguments(rest, 1, 1)
    done = _ask(ctx, "POST", "/ketch/manifests/push", rest[0], {"Name": rest[0], "Purge": opts["purge"]})
    ctx.print(done["Digest"])
    return 0


def cmd_rm(args: list[str], ctx: Context) -> int:
    """Remove drafts."""
    spec = FlagSet("manifest rm", "ketch manifest rm INDEX [INDEX...]", "Delete one or more local indexes")
    _, rest = spec.parse(args)
    spec.arguments(rest, 1)
    for name in rest:
        _ask(ctx, "DELETE", f"/ketch/manifests/{name}", name)
    return 0
