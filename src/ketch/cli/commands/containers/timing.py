"""``--timing``: which step of a container's start takes how long."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.cli.context import Context
    from ketch.cli.options.flags import FlagSet
    from ketch.notation.api_objects import ApiObject

# Which process passes a step: the first word of its name.
_PROCESSES = {"launcher": "launcher", "monitor": "monitor", "init": "first process"}


def add_flag(spec: FlagSet) -> None:
    """``--timing``."""
    spec.bool("timing", "", "tell on standard error which step of the start takes how long")


def start(ctx: Context, container: str) -> ApiObject:
    """Start a container; returns ketchd's account of it."""
    ctx.only_ketch("--timing", "does not tell")
    account: ApiObject = ctx.client().request("POST", f"/ketch/containers/{container}/start").json()
    return account


def show(ctx: Context, account: ApiObject) -> None:
    """Print an account on standard error: milliseconds since the request, and since the step before."""
    if account:
        ctx.warn("\n".join(lines(account)))


def lines(account: ApiObject) -> list[str]:
    """The account as a table."""
    rows, before = ["      AT       +  PROCESS        STEP"], 0
    for step in [*account["Steps"], {"Step": "answered", "At": account["Took"]}]:
        process = _PROCESSES.get(step["Step"].partition(".")[0], "ketchd")
        rows.append(f"{step['At'] / 1e6:8.2f}{(step['At'] - before) / 1e6:8.2f}  {process:<15}{step['Step']}")
        before = step["At"]
    return rows
