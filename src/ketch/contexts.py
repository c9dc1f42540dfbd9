"""The three tools of contextlib that the runtime needs, in the same words, without what contextlib imports.

That (collections, functools, reprlib, …) costs a tenth of a container's start by ``ketch-runtime``, and memory in each
monitor.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contextlib import ExitStack as ExitStack
    from contextlib import contextmanager as contextmanager
    from contextlib import suppress as suppress
else:

    class suppress:
        """A context that exceptions of some classes end, and nothing more; as `contextlib.suppress`."""

        def __init__(self, *classes):
            self._classes = classes

        def __enter__(self):
            return None

        def __exit__(self, kind, _error, _traceback):
            return kind is not None and issubclass(kind, self._classes)

    class ExitStack:
        """Callbacks that are called at a context's end, the last one first; as `contextlib.ExitStack`.

        All of them are called.  An error of one is raised at the end, with the one before as its context.
        """

        def __init__(self):
            self._callbacks = []

        def callback(self, function, /, *args, **kwargs):
            """Register a function."""
            self._callbacks.append((function, args, kwargs))
            return function

        def pop_all(self):
            """Hand the callbacks on to a new stack."""
            other = ExitStack()
            other._callbacks, self._callbacks = self._callbacks, []
            return other

        def close(self):
            """Call them now."""
            self.__exit__(None, None, None)

        def __enter__(self):
            return self

        def __exit__(self, *_error):
            if not self._callbacks:
                return False
            function, args, kwargs = self._callbacks.pop()
            try:
                function(*args, **kwargs)
            finally:
                self.__exit__()
            return False

    class _Generated:
        """A context of a generator's two halves."""

        def __init__(self, generator):
            self._generator = generator

        def __enter__(self):
            return next(self._generator)

        def __exit__(self, _kind, error, _traceback):
            try:
                if error is None:
                    next(self._generator)
                else:
                    self._generator.throw(error)
            except StopIteration as ended:
                return ended is not error
            except BaseException as e:
                if e is error:
                    return False
                raise
            raise RuntimeError("the generator of a context did not stop")

    def contextmanager(function):
        """Make a context of a generator function, which yields once; as `contextlib.contextmanager`."""

        def made(*args, **kwargs):
            return _Generated(function(*args, **kwargs))

        return made
