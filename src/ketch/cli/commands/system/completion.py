"""``completion``: the script for a shell; and what the script asks."""

from __future__ import annotations

import signal

from ketch import printable
from ketch.cli.errors import UsageError
from ketch.cli.guide import shells
from ketch.cli.options.flags import FlagSet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.cli.context import Context

_PATIENCE_S = 2.0


def cmd_completion(args: list[str], ctx: Context) -> int:
    """Print the script that makes a shell complete command lines of ketch."""
    spec = FlagSet("completion", "ketch completion bash|fish|zsh", "Print the completion script for a shell")
    _, rest = spec.parse(args)
    spec.arguments(rest, 1, 1)
    if rest[0] not in shells.SCRIPTS:
        raise UsageError(f"completion: `{rest[0]}` is no shell that is known", hint="use bash, fish or zsh")
    ctx.out.write(shells.SCRIPTS[rest[0]])
    return 0


def cmd_complete(args: list[str], ctx: Context) -> int:
    """Print what may stand for the last word: a line for each, 3 when names of files may, too."""
    from ketch.cli.guide.completion import complete

    shell, *words = args
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, _PATIENCE_S)  # by which this process ends: a daemon may be stopped, or far
    found = complete(words, ctx)
    for line in shells.lines(shell, words[-1] if words else "", found):
        ctx.out.write(printable.lines(line) + "\n")
    return shells.FILES if found.files else 0
