"""``logs``: a container's output, from its log."""

from __future__ import annotations

from ketch.cli.options.flags import FlagSet
from ketch.cli.options.quantities import moment
from ketch.cli.session import Demultiplexer, to_stdio, write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.cli.context import Context


def cmd_logs(args: list[str], ctx: Context) -> int:
    """Print a container's logged output."""
    spec = FlagSet("logs", "ketch logs [OPTIONS] CONTAINER", "Fetch the logs of a container")
    spec.bool("details", "", "extra details").bool("follow", "f", "go on with what comes").string(
        "since", "", "from when"
    )
    spec.string("tail", "n", "so many lines from the end", default="all").bool("timestamps", "t", "show times")
    spec.string("until", "", "until when")
    opts, rest = spec.parse(args)
    spec.arguments(rest, 1, 1)
    client = ctx.client()
    tty = client.request("GET", f"/containers/{rest[0]}/json").json()["Config"]["Tty"]
    query = {
        "stdout": True,
        "stderr": True,
        "follow": opts["follow"],
        "timestamps": opts["timestamps"],
        "tail": opts["tail"],
        "details": opts["details"],
        "since": moment(opts["since"]) or None,
        "until": moment(opts["until"]) or None,
    }
    response = client.request("GET", f"/containers/{rest[0]}/logs", query, stream=True)
    demultiplexer = Demultiplexer(to_stdio)
    for chunk in response.iter_chunks():
        if tty:
            write_all(1, chunk)
        else:
            demultiplexer.feed(chunk)
    return 0
