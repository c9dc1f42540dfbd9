"""The forms that Docker's files are expected to have."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from ketch.errors import DataLoss

if TYPE_CHECKING:
    from collections.abc import Iterator

_OTHER_FORM = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError)


@contextmanager
def understood(path: str) -> Iterator[None]:
    """Have what a file, or one below a directory, lacks or has in another form raise DataLoss."""
    try:
        yield
    except OSError as e:
        raise DataLoss(f"read {e.filename or path}: {e.strerror}") from e
    except _OTHER_FORM as e:
        raise DataLoss(f"read {path}: not in a form that is known: {e!r}") from e
