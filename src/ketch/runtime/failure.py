"""RuntimeFailure: from an errno, and as a message from child to parent."""

from __future__ import annotations

import os

from ketch.errors import KetchError, MountMismatch, ProgramNotExecutable, ProgramNotFound, RuntimeFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.runtime.protocol import Failed

# How a child, also one of an earlier version of Ketch, says which it is.
_KINDS: dict[str, type[RuntimeFailure]] = {
    "setup": RuntimeFailure,
    "not_found": ProgramNotFound,
    "not_executable": ProgramNotExecutable,
    "mount_mismatch": MountMismatch,
}


def failure(step: str, what: str, error: OSError, hint: str | None = None) -> RuntimeFailure:
    """RuntimeFailure "``what``: reason", where ``what`` reads "verb `object`"."""
    return RuntimeFailure(f"{what}: {reason(error)}", step=step, errno=error.errno or 0, hint=hint)


def reason(error: OSError) -> str:
    """The error number's sentence in lower case, without Python's decoration."""
    if not error.errno:
        return str(error)
    text = os.strerror(error.errno)
    return text[:1].lower() + text[1:]


def to_message(error: BaseException) -> Failed:
    """The ``failed`` event of the child's protocol for any exception."""
    if isinstance(error, KetchError):  # it was raised on purpose, and says what happened
        message = error.message if error.hint is None else f"{error.message} ({error.hint})"
        if not isinstance(error, RuntimeFailure):
            return {"ev": "failed", "step": error.kind, "errno": 0, "kind": "setup", "message": message}
        kind = next((name for name, cls in _KINDS.items() if cls is type(error)), "setup")
        return {"ev": "failed", "step": error.step, "errno": error.errno, "kind": kind, "message": message}
    number = error.errno or 0 if isinstance(error, OSError) else 0
    text = f"{type(error).__name__}: {error}"
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    if frame is not None:
        # the traceback module is not imported here; file and line are what a bug report needs
        text += f" at {os.path.basename(frame.tb_frame.f_code.co_filename)}:{frame.tb_lineno}"
    return {"ev": "failed", "step": "internal", "errno": number, "kind": "setup", "message": text}


def from_message(message: Failed | None) -> RuntimeFailure:
    """The RuntimeFailure that `to_message` described; None: the child ended without a word."""
    if message is None:
        return RuntimeFailure("the container's process ended during its set-up")
    failed = _KINDS.get(message.get("kind", "setup"), RuntimeFailure)
    return failed(message["message"], step=message.get("step", ""), errno=message.get("errno", 0))
