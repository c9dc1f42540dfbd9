"""Module cache: the code of the modules that a command imports, in one file beside their bytecode.

To import a module is to look for it in directories, to read a file, and to record where it was found, which takes
longer than to run what is in it; for the hundred small ones of ``ketch-runtime run`` it takes as long as the rest of a
container's start, and for those of ``ketch ps`` a third of the command.  Their code is therefore kept a second time, in
the order in which the modules were complete, and run in that order before anybody asks for them.

In all else the file is like bytecode: whoever finds none writes it, if he may, and it counts for nothing when one of
its modules' sources has another time or size, or Python is another.  The sources are those beside the file, wherever
the whole has been copied or moved to.  Modules that are not in it are imported as ever.
"""

import marshal
import os
import sys
from _frozen_importlib_external import MAGIC_NUMBER, SourceFileLoader
from _imp import _fix_co_filename  # type: ignore[attr-defined]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection
    from types import CodeType, ModuleType

    Entry = tuple[str, str, int, int, bool, CodeType]  # name, file, its mtime in ns and size, a package?, code

# Of the standard library only what nothing imports that it imports itself: a module runs here from its begin.
_OTHERS = ("__future__", "struct")
# What few calls need, and takes long to run, as for libraries: it is imported when it is needed, and not by all others.
_SELDOM = frozenset(
    (
        "ketch.runtime.hooks",
        "ketch.runtime.network_devices",
        "ketch.runtime.process.zygote",
        "ketch.runtime.sd_notify",
        "ketch.runtime.security.libseccomp",
        "ketch.runtime.security.seccomp_compiler",
        "ketch.runtime.security.seccomp_listener",
        "ketch.runtime.tty",
    )
)
_PACKAGE, _LIBRARY = os.path.dirname(__file__), os.path.dirname(os.__file__)
# Two interpreters of one minor version, which share bytecode, have a standard library each.
_HEADER = MAGIC_NUMBER + bytes((sys.flags.optimize,)) + sys.version.encode() + b"\n"


class ModuleCache:
    """One cache, in the file ``name``; modules that others of this process have are not its."""

    _others: "set[str]" = set()  # modules in caches that have been saved

    def __init__(self, name: str) -> None:
        self._path = f"{_PACKAGE}/__pycache__/{name}.{sys.implementation.cache_tag}.modules"
        self._entries: list[Entry] = []

    def __enter__(self) -> None:
        """Load the modules for the imports that follow, of which those of before are no part."""
        self._before = set(sys.modules)
        self.load()

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            self.save(self._before)

    def load(self) -> None:
        """Run the modules of the file, unless it is missing or out of date."""
        entries = self._read()
        if all(_is_current(entry) for entry in entries):
            self._entries = entries
            for entry in entries:
                if entry[0] not in sys.modules:
                    _run(entry)

    def _read(self) -> "list[Entry]":
        """Read the entries; none when the file cannot be read, which a crash of the machine may have cut short.

        It is code: one that others than root and this process's user can write to is not run.
        """
        try:
            with open(self._path, "rb", buffering=0) as file:
                status = os.fstat(file.fileno())
                if status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o022:
                    return []
                content = file.readall()
            if content.startswith(_HEADER):
                return marshal.loads(memoryview(content)[len(_HEADER) :])  # type: ignore[no-any-return]
        except (OSError, EOFError, ValueError, TypeError):
            return []
        return []

    def save(self, before: "Collection[str]" = ()) -> None:
        """Write the file anew if modules have been imported, but those of ``before``, that are not in it.

        It is bytecode: where it cannot be written (a read-only file system, a module that is gone by now, or half
        written) nothing is lost.
        """
        try:
            self._save(before)
        except (OSError, ImportError, SyntaxError, ValueError):
            return

    def _save(self, before: "Collection[str]") -> None:
        known = {entry[0] for entry in self._entries}.union(before, self._others, _SELDOM)
        # An import moves its module to the end when it is complete.
        new = [entry for name, module in sys.modules.items() if name not in known and (entry := _entry(name, module))]
        self._others.update(entry[0] for entry in (*self._entries, *new))
        if not new or sys.dont_write_bytecode:
            return
        temporary = f"{self._path}.{os.getpid()}"
        # Whatever the umask is, nobody else may write to it.
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            with open(fd, "wb") as file:
                file.write(_HEADER + marshal.dumps([*self._entries, *new]))
            os.replace(temporary, self._path)
        except BaseException:
            os.unlink(temporary)
            raise


def of_command(name: str, arguments: list[str], verbs: tuple[str, ...]) -> ModuleCache:
    """The cache of a call of the command line ``name``: one for each of ``verbs``, and one for all others."""
    return ModuleCache(f"{name}-{next((argument for argument in arguments if argument in verbs), 'other')}")


def _entry(name: str, module: "ModuleType") -> "Entry | None":
    """A module's entry; None for what is not Ketch's, has no source in its place, or changes just now."""
    spec = getattr(module, "__spec__", None)
    if spec is None or not (name.startswith("ketch.") or name in _OTHERS):
        return None
    if not isinstance(spec.loader, SourceFileLoader) or spec.origin is None:
        return None
    file = spec.origin.removeprefix(_path(name, ""))
    if file == spec.origin:
        return None
    status = os.stat(spec.origin)
    code = spec.loader.get_code(name)
    assert code is not None  # it has a source
    return name, file, status.st_mtime_ns, status.st_size, spec.submodule_search_locations is not None, code


def _path(name: str, file: str) -> str:
    """The path of a module's file here, which is kept relative to the package, or to Python's library."""
    return f"{_PACKAGE if name.startswith('ketch.') else _LIBRARY}/{file}"


def _is_current(entry: "Entry") -> bool:
    try:
        status = os.stat(_path(entry[0], entry[1]))
    except OSError:
        return False
    return status.st_mtime_ns == entry[2] and status.st_size == entry[3]


def _run(entry: "Entry") -> None:
    """Make one module, as an import would; without the package that it is in, it is left to one."""
    name, file, _, _, is_package, code = entry
    parent, _, own = name.rpartition(".")
    if parent and parent not in sys.modules:  # whoever wrote the file had it from elsewhere
        return
    module = type(sys)(name)
    module.__file__ = path = _path(name, file)
    _fix_co_filename(code, path)  # tracebacks name this one, as for bytecode
    module.__package__ = name if is_package else parent
    if is_package:
        module.__path__ = [os.path.dirname(path)]
    sys.modules[name] = module
    try:
        exec(code, module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    if parent:
        setattr(sys.modules[parent], own, module)
