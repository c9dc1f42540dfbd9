"""Reports on containers: state, list, processes."""

from __future__ import annotations

import os

from ketch import programs, stdio
from ketch.errors import FailedPrecondition, InvalidArgument
from ketch.notation import documents
from ketch.runtime.oci_cli import state as states

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.runtime.oci_cli.arguments import GivenOptions, Invocation

_HEADINGS = ("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER")
_LEAST_WIDTH, _GAP = 12, 3


def show_state(state: states.RuntimeState) -> None:
    """Print the state object of a container."""
    show_json(state.oci())


def show_list(call: Invocation) -> None:
    """Print all containers of a root."""
    options = call.options
    as_json = _is_json(options)
    found = [state.oci() for state in states.load_all(call.root, call.diagnostics)]
    if options.flag("quiet"):
        stdio.write("".join(f"{state['id']}\n" for state in found))
    elif as_json:
        stdio.write(documents.dumps(found, spaces=False) + "\n")
    else:
        rows = [_HEADINGS]
        rows += [(s["id"], str(s["pid"]), s["status"], s["bundle"], s["created"], s["owner"]) for s in found]
        widths = [max(_LEAST_WIDTH, *(len(row[column]) + _GAP for row in rows)) for column in range(len(_HEADINGS))]
        for row in rows:
            stdio.write("".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() + "\n")


def show_processes(state: states.RuntimeState, options: GivenOptions, words: list[str]) -> None:
    """Print a container's processes: their pids as JSON, or what ps(1) says of them (``words``: its options)."""
    as_json = _is_json(options)
    cgroup = state.cgroup()
    pids = cgroup.pids() if cgroup is not None else []
    if as_json:
        stdio.write(documents.dumps(pids, spaces=False) + "\n")
    else:
        heading, *rows = _run_ps(words or ["-ef"])
        stdio.write(f"{heading}\n" + "".join(f"{row}\n" for row in _of_processes(heading, rows, set(pids))))


def show_json(value: object) -> None:
    """Print a JSON text for people as well."""
    import json

    stdio.write(json.dumps(value, indent=2) + "\n")


def _is_json(options: GivenOptions) -> bool:
    format_ = options.text("format", "table")
    if format_ not in ("table", "json"):
        raise InvalidArgument(f"invalid format option `{format_}`", hint="use `table` or `json`")
    return format_ == "json"


def _of_processes(heading: str, rows: list[str], pids: set[int]) -> list[str]:
    """The rows that are about these processes."""
    titles = heading.split()
    if "PID" not in titles:
        raise InvalidArgument("list processes: couldn't find PID field in ps output", hint="have ps print it")
    column = titles.index("PID")
    found = []
    for row in rows:
        fields = row.split()
        if len(fields) > column and fields[column].isdecimal() and int(fields[column]) in pids:
            found.append(row)
    return found


def _run_ps(words: list[str]) -> list[str]:
    """The lines that ps(1) prints; it knows more of a process than the kernel tells in one place."""
    program = programs.find("ps")
    if program is None:
        raise FailedPrecondition("list processes: there is no program ps", hint="install procps, or use --format json")
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    actions = [(os.POSIX_SPAWN_DUP2, write_fd, 1)]
    pid = os.posix_spawn(program, ["ps", *words], programs.environment(), file_actions=actions)
    os.close(write_fd)
    with open(read_fd, "rb") as file:
        output = file.read().decode(errors="replace")
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code != 0:
        raise InvalidArgument(f"list processes: ps {' '.join(words)}: exit status {code}")
    return output.splitlines() or [""]
