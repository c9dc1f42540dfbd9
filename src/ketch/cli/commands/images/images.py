"""``images``, ``history``, ``tag``, ``rmi``, ``image prune``."""

from __future__ import annotations

from ketch.cli.gotemplate.strings import ellipsis
from ketch.cli.image_names import platform_json, split_tag
from ketch.cli.options.flags import FORMAT, FlagSet
from ketch.cli.output.listing import Listing, filters, since
from ketch.cli.output.rows import of_image
from ketch.errors import InvalidArgument, KetchError, NotFound
from ketch.notation import times
from ketch.notation.sizes import human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.cli.context import Context

_IMAGES = [
    ("REPOSITORY", "Repository"),
    ("TAG", "Tag"),
    ("IMAGE ID", "ID"),
    ("CREATED", "CreatedSince"),
    ("SIZE", "Size"),
]
_HISTORY = [
    ("IMAGE", "ID"),
    ("CREATED", "CreatedSince"),
    ("CREATED BY", "CreatedBy"),
    ("SIZE", "Size"),
    ("COMMENT", "Comment"),
]
_IMAGE_HEADERS = {
    "Digest": "DIGEST",
    "CreatedAt": "CREATED AT",
    "Containers": "CONTAINERS",
    "VirtualSize": "SIZE",
    "SharedSize": "SHARED SIZE",
    "UniqueSize": "UNIQUE SIZE",
}
_RAW_IMAGES = [
    ("repository", "Repository"),
    ("tag", "Tag"),
    ("digest", "Digest"),
    ("image_id", "ID"),
    ("created_at", "CreatedAt"),
    ("virtual_size", "Size"),
]
_DIGESTS = [*_IMAGES[:2], ("DIGEST", "Digest"), *_IMAGES[2:]]


def cmd_images(args: list[str], ctx: Context) -> int:
    """List images."""
    spec = FlagSet("images", "ketch images [OPTIONS] [REPOSITORY[:TAG]]", "List images")
    spec.bool("all", "a", "all images").bool("digests", "", "show digests").list("filter", "f", "which ones")
    spec.string("format", "", FORMAT).bool("no-trunc", "", "whole ids").bool("quiet", "q", "ids only")
    spec.bool("tree", "", "with the platforms of each")
    opts, rest = spec.parse(args)
    spec.arguments(rest, 0, 1)
    chosen = opts["filter"] + [f"reference={r}" for r in rest]
    query = {"all": opts["all"] or None, "filters": filters(chosen), "manifests": opts["tree"] or None}
    images = ctx.client().request("GET", "/images/json", query).json()
    if opts["tree"]:
        if opts["quiet"] or opts["format"] or opts["no-trunc"] or opts["digests"]:
            raise InvalidArgument("--tree goes with no other way to show images")
        from ketch.cli.commands.images import tree

        ctx.print("\n".join(tree.lines(images, plain="utf" not in (ctx.out.encoding or "").lower())))
        return 0
    digests = opts["digests"] or ".Digest" in opts["format"]
    listed = [row for image in images for row in of_image(image, whole=opts["no-trunc"], digests=digests)]
    raw = [row for row in _RAW_IMAGES if opts["digests"] or row[1] != "Digest"]
    listing = Listing(_DIGESTS if opts["digests"] else _IMAGES, _IMAGE_HEADERS, raw, quiet="ID")
    ctx.show(listing.text(listed, opts["format"], quiet=opts["quiet"]))
    return 0


def cmd_history(args: list[str], ctx: Context) -> int:
    """List the steps by which an image was made."""
    spec = FlagSet("history", "ketch history [OPTIONS] IMAGE", "Show the history of an image")
    spec.string("format", "", FORMAT).bool("human", "H", "sizes and dates for people", default=True)
    spec.bool("no-trunc", "", "whole texts").bool("quiet", "q", "ids only")
    spec.string("platform", "", "of several, this one")
    opts, rest = spec.parse(args)
    spec.arguments(rest, 1, 1)
    query = {"platform": platform_json(opts["platform"]) if opts["platform"] else None}
    whole, human = opts["no-trunc"], opts["human"]
    rows = []
    for step in ctx.client().request("GET", f"/images/{rest[0]}/history", query).json():
        created = times.rfc3339(step["Created"] * 10**9)
        image = step["Id"] if whole or step["Id"] == "<missing>" else step["Id"].removeprefix("sha256:")[:12]
        by = step["CreatedBy"].replace("\t", " ")
        rows.append(
            {
                "Comment": step["Comment"],
                "CreatedAt": created,
                "CreatedBy": by if whole else ellipsis(by, 45),
                "CreatedSince": since(step["Created"]) if human else created,
                "ID": image,
                "Size": human_size(step["Size"]) if human else str(step["Size"]),
            }
        )
    columns = _HISTORY if human else [*_HISTORY[:1], ("CREATED AT", "CreatedSince"), *_HISTORY[2:]]
    listing = Listing(columns, {"CreatedAt": "CREATED AT"}, quiet="ID")
    ctx.show(listing.text(rows, opts["format"], quiet=opts["quiet"]))
    return 0


def cmd_tag(args: list[str], ctx: Context) -> int:
    """Add a name to an image."""
    spec = FlagSet("tag", "ketch tag SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]", "Create a tag that refers to an image")
    _, rest = spec.parse(args)
    spec.arguments(rest, 2, 2)
    repo, tag = split_tag(rest[1])
    ctx.client().request("POST", f"/images/{rest[0]}/tag", {"repo": repo, "tag": tag})
    return 0


def cmd_rmi(args: list[str], ctx: Context) -> int:
    """Remove images."""
    spec = FlagSet("rmi", "ketch rmi [OPTIONS] IMAGE [IMAGE...]", "Remove one or more images")
    spec.bool("force", "f", "also when a stopped container uses it").bool("no-prune", "", "keep untagged parents")
    spec.list("platform", "", "only if it is for this one")
    opts, rest = spec.parse(args)
    spec.arguments(rest, 1)
    platforms = [platform_json(item) for item in opts["platform"]]
    failed = False
    for ref in rest:
        query = {"force": opts["force"] or None, "noprune": opts["no-prune"] or None, "platforms": platforms}
        try:
            answer = ctx.client().request("DELETE", f"/images/{ref}", query).json()
        except KetchError as e:
            ctx.complain(e)
            failed = failed or not (opts["force"] and isinstance(e, NotFound))
            continue
        for row in answer:
            for action, what in row.items():
                ctx.print(f"{action}: {what}")
    return int(failed)
