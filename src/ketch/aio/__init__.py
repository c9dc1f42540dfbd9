"""Containers for programs of asyncio: the same as in `ketch`, to be awaited.

Names are loaded when they are used; their types stand in __init__.pyi.
"""

_HOMES = {
    "ketch.aio.containers": ("Container",),
    "ketch.aio.engine": ("Engine", "connect", "default", "run"),
    "ketch.aio.processes": ("Output", "Process"),
}


def __getattr__(name: str) -> object:
    import importlib

    for home, names in _HOMES.items():
        if name in names:
            value = globals()[name] = getattr(importlib.import_module(home), name)
            return value
    raise AttributeError(f"module 'ketch.aio' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *(name for names in _HOMES.values() for name in names)})
