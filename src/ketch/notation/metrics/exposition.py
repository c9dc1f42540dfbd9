"""Prometheus' text exposition format, version 0.0.4."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    Labels = dict[str, str]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Point(NamedTuple):
    """One value; ``suffix`` follows the family's name: a histogram's samples have several."""

    labels: Labels
    value: float
    suffix: str = ""


class Family(NamedTuple):
    """Samples of one name; ``kind`` is counter, gauge or histogram, ``text`` is for people."""

    name: str
    kind: str
    text: str
    samples: list[Point]


def write(families: Iterable[Family]) -> str:
    """The text that is answered; a family without samples is left out."""
    lines: list[str] = []
    for family in families:
        if family.samples:
            lines += [f"# HELP {family.name} {family.text}", f"# TYPE {family.name} {family.kind}"]
            lines += [_line(family.name, sample) for sample in family.samples]
    return "\n".join(lines) + "\n"


def of_histogram(labels: Labels, bounds: Sequence[float], buckets: Sequence[int], total: float) -> list[Point]:
    """The samples of a histogram: of a bucket for each bound, and one above; each has those below it, too."""
    samples, below = [], 0
    for bound, count in zip((*(f"{bound:g}" for bound in bounds), "+Inf"), buckets, strict=True):
        below += count
        samples.append(Point({**labels, "le": bound}, below, "_bucket"))
    return [*samples, Point(labels, total, "_sum"), Point(labels, below, "_count")]


def _line(name: str, sample: Point) -> str:
    labels = ",".join(f'{key}="{_escaped(value)}"' for key, value in sample.labels.items())
    return f"{name}{sample.suffix}{f'{{{labels}}}' if labels else ''} {sample.value!r}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
