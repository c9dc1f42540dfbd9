"""``--progress`` and ``-q``: how progress is shown."""

from __future__ import annotations

from ketch.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.cli.options.flags import FlagSet, Options

_MODES = ("auto", "plain", "json", "quiet")


def add_flags(spec: FlagSet) -> FlagSet:
    """``--progress`` and ``-q``."""
    return spec.string("progress", "", "auto, plain or json", default="auto").bool("quiet", "q", "no progress")


def chosen(opts: Options) -> str:
    """The mode that the flags ask for (InvalidArgument)."""
    mode = "quiet" if opts["quiet"] else opts["progress"]
    if mode not in _MODES:
        raise InvalidArgument(f"invalid --progress `{mode}`", hint="use auto, plain or json")
    return str(mode)
