"""``ketch-runtime``: the OCI runtime command line, as containerd's shim, Podman and CRI-O call it.

GivenOptions and output follow runc's, which those callers were written for.  A command's module is imported when it is
called: imports take longer than what most commands do.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import os
import sys

from ketch import stdio
from ketch.errors import InvalidArgument, KetchError, NotFound
from ketch.linux import signals
from ketch.runtime.failure import reason
from ketch.runtime.oci_cli import arguments
from ketch.runtime.oci_cli.arguments import Invocation
from ketch.runtime.oci_cli.diagnostics import Diagnostics

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.runtime.oci_cli.arguments import GivenOptions, Table

DEFAULT_ROOT = "/run/ketch-runtime"
_EXEC_FAILED = 255  # as runc and ssh: what the program may end with is below


class Interrupted(BaseException):
    """A signal that ends this process; what has been made is unmade on the way out."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Verb:
    """A command: its function, options, number of operands (``most`` None: any), and help."""

    __slots__ = ("function", "interspersed", "least", "most", "summary", "table", "words")

    def __init__(
        self,
        function: Callable[[Invocation], int],
        table: Table,
        operands: tuple[int, int | None],
        words: str,
        summary: str,
    ) -> None:
        self.function = function
        self.table = table
        self.least, self.most = operands
        self.words = words
        self.summary = summary
        self.interspersed = self.most is not None  # what follows the id of `exec` and `ps` is another program's


def main(argv: list[str] | None = None) -> int:
    """Entry point; the exit code is the container's for ``run`` and ``exec`` in the foreground."""
    args = sys.argv[1:] if argv is None else argv
    _forget_parent()
    for number in signals.ENDING:
        if _signal.getsignal(number) != _signal.SIG_IGN:  # as by nohup(1)
            _signal.signal(number, _interrupt)
    diagnostics = Diagnostics()
    failed = 1
    try:
        settings, rest = arguments.parse(args, arguments.GLOBAL, interspersed=False)
        diagnostics.configure(settings.text("log"), settings.text("log-format", "text"), debug=settings.flag("debug"))
        if settings.flag("version"):
            return _show_version()
        if settings.flag("help") or not rest or rest[0] in ("help", "h"):
            return _show_help(rest[1:])
        name = rest[0]
        command = _command(name)
        failed = _EXEC_FAILED if name == "exec" else 1
        options, operands = arguments.parse(rest[1:], command.table, interspersed=command.interspersed)
        if options.flag("help"):
            return _show_help([name])
        arguments.check_operands(name, operands, command.least, command.most)
        if name in ("create", "run", "exec"):
            from ketch.runtime.process import interpreter

            interpreter.protect()
        diagnostics.debug(f"{name} {' '.join(operands)}".rstrip())
        call = Invocation(_root(settings), options, operands, diagnostics, systemd=settings.flag("systemd-cgroup"))
        code = command.function(call)
        signals.hold()  # what is done is not interrupted any more
        return code
    except KetchError as e:
        diagnostics.fail(e.message, e.hint)
    except stdio.OutputError as e:
        diagnostics.fail(str(e), None)
    except OSError as e:
        diagnostics.fail(f"{e.filename or 'system call'}: {reason(e)}", None)
    except Interrupted as e:
        diagnostics.fail(f"interrupted: {(_signal.strsignal(e.number) or '').lower()}", None)
        return 128 + e.number
    return failed


def _interrupt(number: int, _frame: object) -> None:
    """Interrupt this call, once: unmaking is not to be interrupted."""
    for other in signals.ENDING:
        if _signal.getsignal(other) != _signal.SIG_IGN:
            _signal.signal(other, lambda _number, _frame: None)
    raise Interrupted(number)


def _forget_parent() -> None:
    """Reset the umask, the signal mask and the disposition of SIGCHLD that the caller left."""
    os.umask(0o022)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)


def _root(settings: GivenOptions) -> str:
    root = os.path.abspath(settings.text("root", DEFAULT_ROOT))
    if root == "/":
        raise InvalidArgument("option `--root`: the state of containers cannot be kept in `/`")
    return root


def _command(name: str) -> Verb:
    command = COMMANDS.get(name)
    if command is None:
        raise InvalidArgument(f"unknown command `{name}`", hint="see `ketch-runtime --help`")
    return command


def _show_version() -> int:
    from ketch import __version__
    from ketch.runtime.oci_cli import state
    from ketch.runtime.security import seccomp_compiler

    library = seccomp_compiler.library_version()
    stdio.write(f"ketch-runtime version {__version__}\nspec: {state.OCI_VERSION}\nlibseccomp: {library}\n")
    return 0


def _show_help(words: list[str]) -> int:
    """The help of a command, or of all."""
    if words:
        command = _command(words[0])
        stdio.write(arguments.explain(words[0], command.words, command.summary, command.table))
        return 0
    lines = [
        arguments.explain("COMMAND", "…", "Run containers from OCI bundles.", arguments.GLOBAL).replace(
            "ketch-runtime COMMAND [OPTIONS]", "ketch-runtime [OPTIONS] COMMAND"
        ),
        "commands:",
    ]
    lines += [f"  {f'{name} {one.words}'.rstrip():36}  {one.summary}" for name, one in COMMANDS.items() if one.summary]
    stdio.write("\n".join(lines) + "\n")
    return 0


# -- the commands ------------------------------------------------------------------------------------


def _create(call: Invocation) -> int:
    from ketch.runtime.oci_cli import creation

    creation.create(call, foreground=False)
    return 0


def _run(call: Invocation) -> int:
    from ketch.runtime.oci_cli import creation

    foreground = not call.options.flag("detach")
    state, master_fd = creation.create(call, foreground=foreground)
    from ketch.runtime.oci_cli import lifecycle, relay

    try:
        if foreground and not call.options.flag("no-subreaper"):
            relay.adopt_orphans()
        if foreground:
            relay.forward_signals(state.pid)
        signals.release()
        lifecycle.start(state, attending=foreground)
        if not foreground:
            signals.hold()
    except BaseException:
        lifecycle.delete(state, call.diagnostics, force=True)
        raise
    if not foreground:
        return 0
    code = relay.attend(master_fd, state.pid)
    if not call.options.flag("keep"):
        lifecycle.delete(state, call.diagnostics, force=True)
    return code


def _exec(call: Invocation) -> int:
    from ketch.runtime.oci_cli import execs, relay

    pid, master_fd = execs.enter(call)
    if call.options.flag("detach"):
        return 0
    relay.forward_signals(pid)
    signals.release()
    return relay.attend(master_fd, pid)


def _start(call: Invocation) -> int:
    from ketch.runtime.oci_cli import lifecycle

    lifecycle.start(call.state())
    return 0


def _kill(call: Invocation) -> int:
    from ketch.notation import signals as names
    from ketch.runtime.oci_cli import lifecycle

    name = call.operands[1] if len(call.operands) > 1 else "SIGTERM"
    number = 0 if name == "0" else names.parse(name)  # 0: is there somebody to be signalled?
    if number is None:
        raise InvalidArgument(f"unknown signal `{name}`", hint="use e.g. KILL, SIGTERM or 15")
    lifecycle.kill(call.state(), number, everyone=call.options.flag("all"))
    return 0


def _delete(call: Invocation) -> int:
    from ketch.runtime.oci_cli import lifecycle, state

    force = call.options.flag("force")
    try:
        found = call.state()
    except NotFound:
        if not force:
            raise
        state.discard(call.root, call.operands[0])
        return 0
    lifecycle.delete(found, call.diagnostics, force=force)
    return 0


def _pause(call: Invocation) -> int:
    from ketch.runtime.oci_cli import lifecycle

    lifecycle.pause(call.state())
    return 0


def _resume(call: Invocation) -> int:
    from ketch.runtime.oci_cli import lifecycle

    lifecycle.resume(call.state())
    return 0


def _state(call: Invocation) -> int:
    from ketch.runtime.oci_cli import reports

    reports.show_state(call.state())
    return 0


def _list(call: Invocation) -> int:
    from ketch.runtime.oci_cli import reports

    reports.show_list(call)
    return 0


def _ps(call: Invocation) -> int:
    from ketch.runtime.oci_cli import reports

    reports.show_processes(call.state(), call.options, call.operands[1:])
    return 0


def _update(call: Invocation) -> int:
    from ketch.runtime.oci_cli import update

    update.update(call.state(), call.options, call.diagnostics)
    return 0


def _events(call: Invocation) -> int:
    from ketch.runtime.oci_cli import events

    events.report(call.state(), call.options)
    return 0


def _features(_call: Invocation) -> int:
    from ketch.runtime.oci_cli import features, reports

    reports.show_json(features.document())
    return 0


def _spec(call: Invocation) -> int:
    from ketch.runtime.oci_cli import features

    features.write_example(call.options)
    return 0


def _checkpoint(_call: Invocation) -> int:
    raise InvalidArgument("checkpoints are not supported: no process can be saved and restored")


_ONE = (1, 1)
COMMANDS = {
    "create": Verb(_create, arguments.CREATE, _ONE, "ID", "make a container; its program waits for `start`"),
    "start": Verb(_start, arguments.NONE, _ONE, "ID", "run the program of a created container"),
    "run": Verb(_run, arguments.RUN, _ONE, "ID", "create, start, wait for the end, delete"),
    "exec": Verb(_exec, arguments.EXEC, (1, None), "ID PROGRAM [ARGS…]", "run another program in a container"),
    "state": Verb(_state, arguments.NONE, _ONE, "ID", "show a container's state as JSON"),
    "kill": Verb(_kill, arguments.KILL, (1, 2), "ID [SIGNAL]", "send a signal, SIGTERM by default"),
    "delete": Verb(_delete, arguments.DELETE, _ONE, "ID", "remove a container that has ended"),
    "pause": Verb(_pause, arguments.NONE, _ONE, "ID", "stop all processes of a container"),
    "resume": Verb(_resume, arguments.NONE, _ONE, "ID", "let them go on"),
    "list": Verb(_list, arguments.LIST, (0, 0), "", "list containers"),
    "ps": Verb(_ps, arguments.PS, (1, None), "ID [OPTIONS OF ps]", "list the processes of a container"),
    "update": Verb(_update, arguments.UPDATE, _ONE, "ID", "change a container's limits"),
    "events": Verb(_events, arguments.EVENTS, _ONE, "ID", "show use of resources, and want of memory"),
    "features": Verb(_features, arguments.NONE, (0, 0), "", "show what the runtime can do as JSON"),
    "spec": Verb(_spec, arguments.SPEC, (0, 0), "", "write an example of config.json"),
    "checkpoint": Verb(_checkpoint, arguments.CHECKPOINT, (0, None), "ID", ""),
    "restore": Verb(_checkpoint, arguments.CHECKPOINT, (0, None), "ID", ""),
}

if __name__ == "__main__":
    sys.exit(main())
