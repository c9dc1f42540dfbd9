"""Programs that Ketch starts, by absolute paths alone, and isolated interpreters.

``python -m`` imports from the current directory, an empty or relative element of ``PYTHONPATH`` or ``PATH`` means
it, and root may stand anywhere: a ``json.py`` in an unpacked archive must not be run.  So an interpreter of ours
is isolated (``-I``: no current directory, no ``PYTHON*`` variables, no user's site), and gets the places that its
parent imports from, as far as they are absolute: a virtual environment, an editable installation and a checkout on
``PYTHONPATH`` work as they do for the parent.

Standard library only, and light: the command line imports it where it starts something.
"""

from __future__ import annotations

import os
import sys

import ketch
from ketch.errors import FailedPrecondition

_RUN = "import sys, runpy; sys.path[:] = {path!r}; runpy.run_module({module!r}, None, '__main__', True)"


def find(name: str) -> str | None:
    """The absolute path of a program in ``PATH``; None when no absolute directory of it has one.

    What lies in a relative directory is not run, wherever we happen to stand (as Go's exec.LookPath).
    """
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
        path = os.path.join(folder, name)
        if os.path.isabs(path) and os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return None


def python(module: str, *arguments: str) -> list[str]:
    """The command line of an isolated interpreter that runs a module of ours (``python -m``)."""
    if not sys.executable:
        raise FailedPrecondition(f"start {module}: the interpreter does not know its own path")
    return [sys.executable, "-I", "-c", _RUN.format(path=_search_path(), module=module), *arguments]


def environment() -> dict[str, str]:
    """This process's environment, without what makes a child take programs or libraries from its current directory.

    An empty element of such a list means it (ld.so(8), execvp(3)), and ``export PATH=$PATH:`` leaves one.
    """
    kept = dict(os.environ)
    for name in ("PATH", "LD_LIBRARY_PATH"):
        absolute = [folder for folder in kept.pop(name, "").replace(";", ":").split(":") if os.path.isabs(folder)]
        if absolute:
            kept[name] = ":".join(absolute)
    return kept


def _search_path() -> list[str]:
    """This process's import path, without entries that depend on the current directory."""
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep) if not sys.flags.ignore_environment else []
    accidental = {os.path.abspath(folder) for folder in given if not os.path.isabs(folder)}
    # The first is the script's directory, or for `-m` the current one.
    own = sys.path if sys.flags.safe_path else sys.path[1:]
    found = [folder for folder in own if os.path.isabs(folder) and folder not in accidental]
    ours = os.path.dirname(os.path.dirname(os.path.abspath(ketch.__file__)))
    return found if ours in found else [*found, ours]
