"""Preparation of the launcher's heap, which all monitors share: kept small, and never written to."""

from __future__ import annotations

import gc
import sys

_FOR_EVER = 1 << 31  # a count from here on does not change
_WORDS = 1 << 46  # more than a process can have


def prepare() -> None:
    """Prepare for the imports; to be called before them.

    Nothing is collected until the heap is frozen: what is freed leaves holes in pages that all monitors share, and each
    would fill them with its own (``gc.freeze`` says so).
    """
    gc.disable()
    _ctypes_alone()


def freeze() -> None:
    """Freeze the heap, as permanent and unwritten; to be called after the imports."""
    _count_no_more()
    gc.freeze()


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


def _count_no_more() -> None:
    """Make existing objects immortal: without reference counts.

    The count stands in the object, so that whoever looks at one writes to its page.  Since 3.12 the count of None and
    some others says that they live for ever and are not counted (PEP 683); here all get it.  It is the first 32 bits of
    an object, but for builds without the global lock, where everything stays as it is, as with older versions.
    """
    import ctypes

    counts = (ctypes.c_uint32 * _WORDS).from_address(0)  # of objects, by their addresses in words
    forever = sys.getrefcount(None)
    if forever < _FOR_EVER or counts[id(None) // 4] != forever:
        return
    for object_ in gc.get_objects():
        counts[id(object_) // 4] = forever
        for referent in gc.get_referents(object_):  # code, texts and numbers are not the collector's
            counts[id(referent) // 4] = forever
