"""Ketch, a container engine; for programs in Python, containers without a daemon to set up (docs/python.md).

Names are loaded when they are used: the daemon, the runtime and the command line import this, too.
"""

__version__ = "0.1.0"

# Their types stand in __init__.pyi, which is not read at run time.
_HOMES = {
    "ketch.aio.options": ("Bind", "BoxOptions", "ProgramOptions", "RunOptions", "StartOptions", "Tmpfs", "Volume"),
    "ketch.aio.results": (
        "CommandFailed",
        "Image",
        "Logs",
        "ProgramError",
        "Result",
        "TimedOut",
        "TooMuchOutput",
        "Usage",
    ),
    "ketch.aio.streams": ("Chunk",),
    "ketch.blocking.containers": ("Container",),
    "ketch.blocking.engine": ("Engine", "connect", "default", "run"),
    "ketch.blocking.processes": ("Output", "Process"),
    "ketch.errors": ("KetchError",),
}


def __getattr__(name: str) -> object:
    import importlib

    if name == "aio":
        return importlib.import_module("ketch.aio")
    for home, names in _HOMES.items():
        if name in names:
            value = globals()[name] = getattr(importlib.import_module(home), name)
            return value
    raise AttributeError(f"module 'ketch' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), "aio", *(name for names in _HOMES.values() for name in names)})
