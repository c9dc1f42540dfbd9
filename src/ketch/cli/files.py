"""Archives between the daemon and a file, standard input or standard output."""

from __future__ import annotations

import os
import stat
import sys

from ketch.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

    from ketch.client.http import Response

_CHUNK = 1 << 18


def chunks(path: str) -> Iterator[bytes]:
    """The content of a file, or of standard input for an empty name or ``-``, in chunks."""
    with _open(path) as f:
        while data := f.read(_CHUNK):
            yield data


def _open(path: str) -> BinaryIO:
    if path in ("", "-"):
        if sys.stdin.isatty():
            raise InvalidArgument("requested to read from a terminal", hint="give a file, or pipe the archive in")
        return open(0, "rb", closefd=False)
    try:
        return open(path, "rb")
    except OSError as e:
        raise InvalidArgument(f"open `{path}`: {e.strerror}") from e


def partial_name(path: str) -> str:
    """The name under which a file is written until it is complete; a device or a pipe is written to as it is.

    (Taking the place of /dev/null would be the end of it.)
    """
    try:
        return f"{path}.part" if stat.S_ISREG(os.stat(path).st_mode) else path
    except FileNotFoundError:
        return f"{path}.part"


def write_out(response: Response, path: str, tell: Callable[[int], None] = lambda _done: None) -> None:
    """Write the daemon's stream to standard output, or to a file that appears when complete."""
    if not path:
        for chunk in response.iter_chunks():
            sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()
        return
    partial = partial_name(path)
    try:
        with open(partial, "wb") as f:
            done = 0
            for chunk in response.iter_chunks():
                f.write(chunk)
                done += len(chunk)
                tell(done)
        if partial != path:
            os.rename(partial, path)
    except OSError as e:
        raise InvalidArgument(f"write `{path}`: {e.strerror}") from e
    finally:
        if partial != path and os.path.exists(partial):
            os.unlink(partial)
