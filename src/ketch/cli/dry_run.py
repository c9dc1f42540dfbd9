"""``--dry-run`` of removals: asks the daemon what would be removed, and shows it."""

from __future__ import annotations

from ketch.cli.output.listing import table
from ketch.errors import InvalidArgument
from ketch.notation import documents
from ketch.notation.sizes import human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.cli.context import Context
    from ketch.cli.options.flags import FlagSet, Options
    from ketch.notation.api_objects import ApiObject


DIGITS = 4
KINDS = ("Containers", "Networks", "Volumes", "Images")


def add_flags(spec: FlagSet) -> FlagSet:
    """``--dry-run`` and ``--format``."""
    spec.bool("dry-run", "", "show what would be removed, and remove nothing")
    return spec.string("format", "", "with --dry-run: json")


def check_format(opts: Options) -> None:
    """Check ``--format`` of a dry run (InvalidArgument)."""
    if opts["format"] and not (opts["dry-run"] and opts["format"] in ("json", "{{json .}}")):
        raise InvalidArgument(f"--format {opts['format']}: not supported here", hint="use --dry-run --format json")


def run(ctx: Context, requests: list[tuple[str, str, ApiObject]], opts: Options) -> int:
    """Show what these removals, one after the other, would remove."""
    ctx.only_ketch("--dry-run", "would really remove")
    total: ApiObject = {kind: [] for kind in KINDS} | {"ImagesDeleted": [], "SpaceReclaimed": 0}
    for method, path, query in requests:
        without = [item["Id"] for item in total["Containers"]]
        answer = ctx.client().request(method, path, {**query, "dry-run": True}, {"Without": without}).json()
        for kind in KINDS:
            total[kind] += [item for item in answer.get(kind) or () if item not in total[kind]]
        total["ImagesDeleted"] += answer.get("ImagesDeleted") or []
        total["SpaceReclaimed"] += answer.get("SpaceReclaimed") or 0
    if opts["format"]:
        ctx.print(documents.dumps(total, spaces=False))
        return 0
    for kind in KINDS:
        if total[kind]:
            rows = [_cells(kind, item) for item in total[kind]]
            body = table([[cell for cell in row if cell] for row in rows])
            ctx.print(f"Would remove {kind}:\n{body}\n")
    ctx.print("Total space that would be reclaimed: " + human_size(total["SpaceReclaimed"], DIGITS))
    return 0


def _cells(kind: str, item: ApiObject) -> list[str]:
    ident = "" if kind == "Volumes" else item["Id"].removeprefix("sha256:")[:12]
    return [ident, item["Name"], "" if kind == "Networks" else human_size(item["Size"])]
