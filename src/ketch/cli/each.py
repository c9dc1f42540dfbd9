"""An action on each of several objects: a line or an error for each."""

from __future__ import annotations

from ketch.errors import KetchError, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ketch.cli.context import Context


def each(
    ctx: Context,
    refs: list[str],
    act: Callable[[str], Any],
    show: Callable[[str, Any], str] | None = None,
    *,
    missing_is_fine: bool = False,
) -> int:
    """Run an action on several objects: a line for each success, an error for each failure (then 1).

    ``show`` makes the line of a success; empty: none is printed.  ``missing_is_fine``: an object that is not there is
    told, and counts as a success.
    """
    failed = 0
    for ref in refs:
        try:
            result = act(ref)
        except KetchError as e:
            ctx.out.flush()
            ctx.complain(e)
            failed = failed if missing_is_fine and isinstance(e, NotFound) else 1
        else:
            if text := show(ref, result) if show else ref:
                ctx.print(text)
                ctx.out.flush()  # whoever reads it may act on it while the next object takes its time
    return failed
