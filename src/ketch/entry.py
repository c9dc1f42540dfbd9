"""Entry points of the installed commands; their imports do not depend on the current directory, nor on open streams.

A relative or empty element of ``PYTHONPATH`` means the current directory, before the standard library, and root may
stand in an unpacked archive.  Such places go before anything is imported that is not there yet, so this module
imports nothing that the interpreter's own start has not (not even ``__future__``); docs/processes.md says what that
leaves over.  Closed standard streams are opened next, before a library can get their numbers for a file that it keeps
(libffi 3.5 keeps itself open).
"""

import gc
import os
import sys

# Commands of ketch-runtime: those that engines wait for, and those that make processes in containers.
_VERBS = ("create", "start", "run", "exec", "state", "kill", "delete")
_MAKING = frozenset(("create", "run", "exec"))


def ketch() -> None:
    """``ketch``, the command line; never returns, as `runtime`.

    The collector of garbage would look at all that importing makes, again and again while it is made.
    """
    gc.disable()
    _prepare()
    from ketch import module_cache

    with module_cache.ModuleCache("ketch"):
        from ketch.cli.main import main
    main()


def ketchd() -> None:
    """``ketchd``, the daemon.

    At its end the collector of garbage would look at all that was imported, for a third of the time of a start.
    """
    _prepare()
    from ketch.daemon.main import main

    try:
        main()
    finally:
        gc.freeze()


def runtime() -> int:
    """``ketch-runtime``, the OCI runtime; never returns: taking the interpreter down takes as long as a container."""
    gc.disable()
    _prepare()
    from ketch import module_cache

    if not _MAKING.isdisjoint(sys.argv):
        with module_cache.ModuleCache("ketch-runtime-interpreter"):
            from ketch.contexts import suppress
            from ketch.errors import KetchError
            from ketch.runtime.process import interpreter
        with suppress(KetchError, OSError):  # `main` tries again, and tells why not
            interpreter.protect()  # before all else: it may begin all this anew
    modules = module_cache.of_command("ketch-runtime", sys.argv[1:], _VERBS)
    modules.load()
    from ketch.runtime.oci_cli.main import main

    code = main()
    sys.stderr.flush()
    modules.save()
    os._exit(code)


def _prepare() -> None:
    """The steps before all other imports."""
    _drop_relative_import_paths()
    from ketch import stdio

    stdio.prepare()


def _drop_relative_import_paths() -> None:
    """Remove the entries of ``sys.path`` that relative elements of ``PYTHONPATH`` brought."""
    given = "" if sys.flags.ignore_environment else os.environ.get("PYTHONPATH", "")
    if not given:
        return
    relative = {os.path.abspath(element) for element in given.split(os.pathsep) if not os.path.isabs(element)}
    absolute = {element for element in given.split(os.pathsep) if os.path.isabs(element)}
    sys.path[:] = [element for element in sys.path if element in absolute or element not in relative]
