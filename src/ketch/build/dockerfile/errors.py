"""Errors in a Dockerfile: where they are, and the lines around them as a person is shown them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ketch.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Sequence

_RULE = "-" * 20


class Span(NamedTuple):
    """The lines of a file that something takes, counted from one, the last one included."""

    start: int
    end: int


class DockerfileError(InvalidArgument):
    """A Dockerfile is not as it must be.

    ``span`` is None where no file was read; ``word`` is what stands wrongly in those lines, nothing when it is all.
    ``others`` are the lines that have part in it.
    """

    def __init__(
        self,
        message: str,
        *,
        span: Span | None = None,
        word: str = "",
        hint: str | None = None,
        others: Sequence[Span] = (),
    ) -> None:
        super().__init__(message, hint=hint)
        self.span = span
        self.word = word
        self.others = others


def excerpt(text: str, name: str, span: Span, word: str = "") -> str:
    """``NAME:LINE`` and the lines around it, as BuildKit shows them; carets below ``word`` where it stands there.

    A line by itself is shown with two lines before and after it, several with one; where one end of the file is
    near, the other side gets more.
    """
    lines = text.removeprefix("\ufeff").split("\n")
    start, end = span.start, min(span.end, len(lines))
    wanted = 4 if end == start else 2
    first, last, shown = start, end, 0
    while shown < wanted:
        if first > 1:
            first, shown = first - 1, shown + 1
        if last < len(lines):
            last, shown = last + 1, shown + 1
        shown += 1
    found = [f"{name}:{start}", _RULE]
    marked = not word
    for number in range(first, last + 1):
        inside = start <= number <= end
        line = lines[number - 1].removesuffix("\r")
        found.append(f" {number:3} | {'>>>' if inside else '   '} {line}")
        if inside and not marked and word in line:
            before = "".join("\t" if char == "\t" else " " for char in line[: line.index(word)])
            found.append(f"     |     {before}{'^' * len(word)}")
            marked = True
    return "\n".join([*found, _RULE])
