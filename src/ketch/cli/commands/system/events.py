"""``events``: prints the daemon's events, one a line."""

from __future__ import annotations

from ketch import printable
from ketch.cli.options.flags import FORMAT, FlagSet
from ketch.cli.options.quantities import moment
from ketch.cli.output.listing import filters
from ketch.notation import documents, times

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.cli.context import Context
    from ketch.notation.api_objects import ApiObject


def cmd_events(args: list[str], ctx: Context) -> int:
    """Print events as they happen."""
    spec = FlagSet("events", "ketch events [OPTIONS]", "Get real time events from the daemon")
    spec.list("filter", "f", "which ones").string("format", "", FORMAT).string("since", "", "from when")
    spec.string("until", "", "until when")
    opts, rest = spec.parse(args)
    spec.arguments(rest, 0, 0)
    template = None
    if opts["format"] not in ("", "json", "{{json .}}"):
        from ketch.cli.gotemplate.template import Template

        template = Template(opts["format"])
    query = {
        "since": moment(opts["since"]) or None,
        "until": moment(opts["until"]) or None,
        "filters": filters(opts["filter"]),
    }
    for event in ctx.client().request("GET", "/events", query, stream=True).stream_lines():
        if template is not None:
            ctx.print(template.render(event))
        elif opts["format"]:
            ctx.print(documents.dumps(event, spaces=False))
        else:
            ctx.print(line(event))
        ctx.out.flush()
    return 0


def line(event: ApiObject) -> str:
    """Docker's one line for an event."""
    attributes = event["Actor"]["Attributes"] or {}
    shown = ", ".join(f"{k}={v}" for k, v in sorted(attributes.items()))
    text = f"{times.local(event['timeNano'])} {event['Type']} {event['Action']} {event['Actor']['ID']}"
    return printable.cell(f"{text} ({shown})" if shown else text)
