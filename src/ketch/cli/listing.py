"""Tables and ``--format`` for everything that lists: columns as Docker aligns them, JSON lines, Go templates."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ketch.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from ketch.cli.context import Context

_GAP, _MINIMUM = 3, 10
_JSON = ("json", "{{json .}}")


def table(rows: list[list[str]]) -> str:
    """Columns aligned with blanks: at least 10 wide, 3 apart; the last one is not padded."""
    if not rows:
        return ""
    widths = [max(max(len(row[i]) for row in rows) + _GAP, _MINIMUM) for i in range(len(rows[0]) - 1)]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        lines.append("".join([*cells, row[-1]]))
    return "\n".join(lines)


def show(
    ctx: Context,
    rows: Iterable[dict[str, Any]],
    *,
    columns: list[tuple[str, str]],
    headers: dict[str, str] | None = None,
    form: str = "",
    quiet: str = "",
) -> None:
    """Print rows: as a table of ``columns`` (title, field), as ``form`` says, or with ``quiet`` that field alone.

    ``headers`` has the titles of further fields, for ``table …`` formats.
    """
    if quiet and not form:
        for row in rows:
            ctx.print(str(row[quiet]))
        return
    if form in ("", "table"):
        body = [[_cell(row[field]) for _, field in columns] for row in rows]
        ctx.print(table([[title for title, _ in columns], *body]))
        return
    if form in _JSON:
        for row in rows:
            ctx.print(
                json.dumps(
                    {k: v for k, v in row.items() if not k.startswith("_")}, separators=(",", ":"), ensure_ascii=False
                )
            )
        return
    titles = {**{field: title for title, field in columns}, **(headers or {})}
    _templated(ctx, list(rows), form, titles)


def _templated(ctx: Context, rows: list[dict[str, Any]], form: str, titles: dict[str, str]) -> None:
    from ketch.cli.gotemplate import Template

    as_table = form.startswith(("table ", "table\t"))
    text = form[5:].lstrip() if as_table else form
    text = text.replace("\\t", "\t").replace("\\n", "\n")
    template = Template(text)
    lines = [template.render(row) for row in rows]
    if as_table:
        known = {**{field: field.upper() for row in rows[:1] for field in row}, **titles}
        lines.insert(0, template.render(known))
        ctx.print(table([line.split("\t") for line in lines]) if "\t" in text else "\n".join(lines))
        return
    for line in lines:
        ctx.print(line)


def _cell(value: Any) -> str:
    return "" if value is None else str(value)


def filters(items: list[str]) -> str | None:
    """``--filter name=value`` … → what the API takes; None without any (InvalidArgument for nonsense)."""
    if not items:
        return None
    result: dict[str, dict[str, bool]] = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not equals:
            raise InvalidArgument(f"invalid filter `{item}`", hint="write NAME=VALUE")
        result.setdefault(name.strip().lower(), {})[value.strip()] = True
    return json.dumps(result, separators=(",", ":"))


def ellipsis(text: str, width: int) -> str:
    """Cut a long text to ``width`` with an ellipsis."""
    return text if len(text) <= width else text[: width - 1] + "…"


def since(created: float) -> str:
    """``5 minutes ago`` for seconds since 1970."""
    import time

    from ketch.cli.units import human_duration

    return human_duration(time.time() - created) + " ago" if created > 0 else "N/A"
