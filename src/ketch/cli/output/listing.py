"""Tables and ``--format`` for everything that lists: columns as Docker aligns them, JSON lines, Go templates."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ketch import printable
from ketch.cli.errors import UsageError
from ketch.cli.gotemplate.strings import go_json

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
    rows = [[printable.cell(cell) for cell in row] for row in rows]
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
    raw: list[tuple[str, str]] | None = None,
) -> None:
    """Print rows: as a table of ``columns`` (title, field), as ``form`` says, or with ``quiet`` that field alone.

    ``headers`` has the titles of further fields, for ``table …`` formats; ``raw`` the lines of ``--format raw``.
    Callables in a row are what templates can call; JSON and tables do without them.
    """
    text = text_of(rows, columns=columns, headers=headers, form=form, quiet=quiet, raw=raw)
    if text:
        ctx.show(text)


def text_of(
    rows: Iterable[dict[str, Any]],
    *,
    columns: list[tuple[str, str]],
    headers: dict[str, str] | None = None,
    form: str = "",
    quiet: str = "",
    raw: list[tuple[str, str]] | None = None,
) -> str:
    """What ``show`` prints."""
    if form in ("", "table"):
        if quiet:
            return "".join(f"{row[quiet]}\n" for row in rows)
        body = [[_cell(row[field]) for _, field in columns] for row in rows]
        return table([[title for title, _ in columns], *body]) + "\n"
    if form in _JSON:
        return "".join(f"{as_json(row)}\n" for row in rows)
    if form == "raw" and raw:
        return "".join(_raw(row, [(n, f) for n, f in raw if not quiet or f == quiet], quiet) for row in rows)
    titles = {**{field: title for title, field in columns}, **(headers or {})}
    return _templated(list(rows), form, titles)


def as_json(row: dict[str, Any]) -> str:
    """One row as one line, escaped as Go does."""
    plain = {k: v for k, v in row.items() if not callable(v)}
    return go_json(plain)


def _raw(row: dict[str, Any], fields: list[tuple[str, str]], quiet: str) -> str:
    lines = "".join(f"{name}: {_cell(row[field])}".rstrip(" ") + "\n" for name, field in fields)
    return lines if quiet else lines + "\n"


def _templated(rows: list[dict[str, Any]], form: str, titles: dict[str, str]) -> str:
    from ketch.cli.gotemplate.template import Template

    as_table = form.startswith("table")
    text = (form[5:] if as_table else form).strip(" ").replace("\\t", "\t").replace("\\n", "\n")
    template = Template(text)
    lines = [template.render(row) for row in rows]
    if not as_table:
        return "".join(f"{line}\n" for line in lines)
    known: dict[str, Any] = {field: _title(field, titles) for row in rows[:1] for field in row}
    known |= {**titles, "Label": label_title}
    lines.insert(0, template.render_titles(known))
    return (table([line.split("\t") for line in lines]) if "\t" in text else "\n".join(lines)) + "\n"


def _title(field: str, titles: dict[str, str]) -> str:
    return titles.get(field, field.upper())


def label_title(name: str) -> str:
    """The title of a column that shows one label: ``com.example.my-team`` → ``my team``."""
    return name.rpartition(".")[2].replace("-", " ").replace("_", " ")


def _cell(value: Any) -> str:
    return "" if value is None else printable.cell(str(value))


def filters(items: list[str]) -> str | None:
    """``--filter name=value`` … → what the API takes; None without any (UsageError for nonsense)."""
    if not items:
        return None
    result: dict[str, dict[str, bool]] = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not equals:
            raise UsageError(f"invalid filter `{item}`", hint="write NAME=VALUE")
        result.setdefault(name.strip().lower(), {})[value.strip()] = True
    return json.dumps(result, separators=(",", ":"))


def labels(pairs: dict[str, str] | None) -> str:
    """``a=1,b=2``."""
    return ",".join(f"{k}={v}" for k, v in sorted((pairs or {}).items()))


def since(created: float) -> str:
    """``5 minutes ago`` for seconds since 1970."""
    import time

    from ketch.notation.ages import age

    return age(time.time() - created) + " ago" if created > 0 else "N/A"
