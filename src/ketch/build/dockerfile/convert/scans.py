"""Parts of a build whose packages are to be listed beside those of its result: as arguments of stages say.

BUILDKIT_SBOM_SCAN_CONTEXT is about the build context and counts for the target; BUILDKIT_SBOM_SCAN_STAGE is about the
stage itself.  A value is a truth value or the names of stages; a stage has those of the one that it begins with, else
the file's.  Neither is a variable.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from ketch.notation import booleans

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ketch.build.dockerfile.convert.state import StageState
    from ketch.build.llb.vertex import Edge

_OF_CONTEXT, _OF_STAGE = "BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"
ARGS = frozenset((_OF_CONTEXT, _OF_STAGE))
_CONTEXT = "context"


class Scans(Struct, frozen=True, kw_only=True, eq=False):
    """Trees to be listed, by their names in the lists (None: an empty directory).

    ``ignore_cache``: a list that was made before does not do, nor one of the result.
    """

    trees: Mapping[str, Edge | None] = {}
    ignore_cache: bool = False


def asked(target: StageState, states: Sequence[StageState]) -> Scans:
    """The trees that the target and the stages that it needs ask for."""
    found: dict[str, Edge | None] = {}
    ignore_cache = target.node.ignore_cache
    if _asked(target, _OF_CONTEXT):
        found[_CONTEXT] = target.build.context
    for state in states:
        if state is not target and state.node.stage is not None and _asked(state, _OF_STAGE):
            found[state.node.shown] = state.edge
            ignore_cache |= state.node.ignore_cache
    return Scans(trees=found, ignore_cache=ignore_cache)


def _asked(state: StageState, name: str) -> bool:
    values = [value for arg, value in state.args if arg == name and value is not None]
    value = values[-1] if values else state.build.scope.values.get(name, "")
    try:
        return booleans.strict(value)
    except booleans.NotABooleanError:
        return bool(state.node.name) and state.node.name in value.split(",")
