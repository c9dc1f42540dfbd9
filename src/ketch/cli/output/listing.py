"""Output of lists: tables with Docker's alignment, and ``--format`` with JSON lines or Go templates."""

from __future__ import annotations

from ketch import printable
from ketch.cli.errors import UsageError
from ketch.cli.gotemplate.strings import go_json
from ketch.notation import documents

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    Fields = list[tuple[str, str]]

    Row = dict[str, Any]  # a line of a table, by the names of the fields in --format

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


class Listing:
    """The form of one type's lists.

    ``columns`` of the table (title, field), titles of further fields for ``table …`` formats, the lines of
    ``--format raw`` (name, field), and the field that ``--quiet`` prints alone.
    """

    def __init__(
        self, columns: Fields, headers: dict[str, str] | None = None, raw: Fields | None = None, quiet: str = ""
    ) -> None:
        self._columns, self._headers, self._raw, self._quiet = columns, headers or {}, raw or [], quiet

    def text(self, rows: Iterable[Row], format: str, *, quiet: bool = False) -> str:
        """The rows as a table, or as ``format`` says.

        Callables in a row are what templates can call; JSON and tables do without them.
        """
        if format in ("", "table"):
            if quiet:
                return "".join(f"{row[self._quiet]}\n" for row in rows)
            body = [[_cell(row[field]) for _, field in self._columns] for row in rows]
            return table([[title for title, _ in self._columns], *body]) + "\n"
        if format in _JSON:
            return "".join(f"{as_json(row)}\n" for row in rows)
        if format == "raw" and self._raw:
            fields = [(name, field) for name, field in self._raw if not quiet or field == self._quiet]
            return "".join(_raw(row, fields, quiet=quiet) for row in rows)
        titles = {**{field: title for title, field in self._columns}, **self._headers}
        return _templated(list(rows), format, titles)


def as_json(row: Row) -> str:
    """One row as one line, escaped as Go does."""
    plain = {k: v for k, v in row.items() if not callable(v)}
    return go_json(plain)


def _raw(row: Row, fields: list[tuple[str, str]], *, quiet: bool) -> str:
    lines = "".join(f"{name}: {_cell(row[field])}".rstrip(" ") + "\n" for name, field in fields)
    return lines if quiet else lines + "\n"


def _templated(rows: list[Row], format: str, titles: dict[str, str]) -> str:
    from ketch.cli.gotemplate.template import Template

    as_table = format.startswith("table")
    text = (format[5:] if as_table else format).strip(" ").replace("\\t", "\t").replace("\\n", "\n")
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
    """``--filter name=value`` … → the API's value; None without any (UsageError)."""
    if not items:
        return None
    result: dict[str, dict[str, bool]] = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not equals:
            raise UsageError(f"invalid filter `{item}`", hint="write NAME=VALUE")
        result.setdefault(name.strip().lower(), {})[value.strip()] = True
    return documents.dumps(result, spaces=False)


def labels(pairs: dict[str, str] | None) -> str:
    """``a=1,b=2``."""
    return ",".join(f"{k}={v}" for k, v in sorted((pairs or {}).items()))


def since(created: float) -> str:
    """``5 minutes ago`` for seconds since 1970."""
    import time

    from ketch.notation.ages import age

    return age(time.time() - created) + " ago" if created > 0 else "N/A"
