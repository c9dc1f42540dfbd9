"""Modules of the standard library that the launcher imports without what they bring along and do not use there.

What the launcher has loaded is in the memory of each container's monitor.
"""

from __future__ import annotations

import gc
import sys


def prepare() -> None:
    """To be called before anything else is imported.

    Nothing is collected until the heap is frozen: what is freed leaves holes in pages that all monitors share, and each
    would fill them with its own (``gc.freeze`` says so).
    """
    gc.disable()
    _ctypes_alone()


def _ctypes_alone() -> None:
    """Import ctypes without sysconfig.

    Since 3.14 it imports that, for a platform that is not Linux, and so threading, whose handlers of fork(2) would run,
    and write to shared memory, in each monitor and each process of a container.
    """
    if "ctypes" in sys.modules or "sysconfig" in sys.modules:
        return
    sys.modules["sysconfig"] = type(sys)("sysconfig")
    try:
        import ctypes  # noqa: F401
    finally:
        del sys.modules["sysconfig"]  # whoever needs it imports it
