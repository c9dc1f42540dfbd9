"""Owner marks of links and firewall tables: the data root that they belong to.

    link's alias      ketch:<id of the network or the endpoint>:<owner>
    table's comment   ketch:<owner>

``owner`` is made from the data root's path.  What has no mark, or another's, is never removed or changed.
"""

from __future__ import annotations

from typing import NamedTuple

_PREFIX = "ketch:"


class OwnerMark(NamedTuple):
    """``owner`` is empty on links of versions that did not write it."""

    thing: str
    owner: str


def alias(thing: str, owner: str) -> str:
    """The alias of a link."""
    return f"{_PREFIX}{thing}:{owner}"


def of_link(text: str) -> OwnerMark | None:
    """The mark in a link's alias; None when the link was not made by Ketch."""
    if not text.startswith(_PREFIX):
        return None
    thing, _, owner = text.removeprefix(_PREFIX).partition(":")
    return OwnerMark(thing, owner)


def comment(owner: str) -> str:
    """The comment of a firewall table."""
    return _PREFIX + owner


def of_table(text: str) -> str:
    """The owner in a table's comment; empty: not known."""
    return text.removeprefix(_PREFIX) if text.startswith(_PREFIX) else ""
