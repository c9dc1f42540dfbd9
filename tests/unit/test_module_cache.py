"""The module cache of a command, in a package of its own, each call a process as a command is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from ketch import module_cache

# Prints each module of the package with where it came from, and what the command says.
COMMAND = """
import sys
sys.path.append({folder!r})
from ketch import module_cache
modules = module_cache.of_command("demo", sys.argv[1:], ("run", "stop"))
modules.load()
from ketch.rooms.main import main
if "inner" in sys.argv:
    with module_cache.ModuleCache("demo-inner"):
        import ketch.rooms.late
said = main()
kept = sorted(n for n, m in sys.modules.items() if n.startswith("ketch.") and m.__spec__ is None)
modules.save()
print(said, *kept)
"""
FILES = {
    "__init__.py": "",
    "base.py": "word = 'one'\n",
    "rooms/__init__.py": "here = __name__, __package__, __path__[0].rpartition('/')[2]\n",
    "rooms/main.py": """
import os
import sys
from ketch import rooms
from ketch.base import word

def main():
    if sys.argv[2:]:
        from ketch.rooms import late
        return late.word
    assert rooms.here == ("ketch.rooms", "ketch.rooms", "rooms"), rooms.here
    assert (__name__, __package__, os.path.basename(__file__)) == ("ketch.rooms.main", "ketch.rooms", "main.py")
    assert sys.modules["ketch.rooms"].main is sys.modules[__name__]
    return word
""",
    "rooms/late.py": "from ketch.base import word\nword = f'late {word}'\n",
}


class Package:
    """A package ``ketch`` with modules of its own beside the module cache."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        for name, text in FILES.items():
            self.write(name, text)
        shutil.copy(module_cache.__file__, self.path("module_cache.py"))

    @property
    def cache(self) -> str:
        return self.path(f"__pycache__/demo-run.{sys.implementation.cache_tag}.modules")

    def copy(self, folder: str) -> Package:
        """The same elsewhere, as ``cp -a`` makes it: files have the times of the original ones."""
        copy = Package.__new__(Package)
        copy.folder = folder
        shutil.copytree(self.folder, folder)
        return copy

    def path(self, name: str) -> str:
        return f"{self.folder}/ketch/{name}"

    def write(self, name: str, text: str) -> None:
        os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)
        with open(self.path(name), "w", encoding="utf-8") as f:
            f.write(text)

    def call(self, *arguments: str, options: str = "-IS") -> list[str]:
        """What the command says, and which modules it had from its cache."""
        command = [sys.executable, options, "-c", COMMAND.format(folder=self.folder), "run", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.split()


@pytest.fixture
def package(tmp_path):
    return Package(str(tmp_path))


KEPT = ["ketch.base", "ketch.rooms", "ketch.rooms.main"]


def test_the_second_call_has_its_modules_from_the_cache(package):
    assert package.call() == ["one"]
    written = os.stat(package.cache).st_ino
    assert package.call() == ["one", *KEPT]
    assert os.stat(package.cache).st_ino == written
    assert not [name for name in os.listdir(os.path.dirname(package.cache)) if name[-1].isdigit()]


@pytest.mark.parametrize("change", ["size", "time", "gone"])
def test_a_module_that_has_changed_is_read_anew(package, change):
    package.call()
    if change == "gone":
        os.unlink(package.path("base.py"))
        package.write("rooms/main.py", "def main():\n    return 'none'\n")
        assert package.call() == ["none"]
        return
    package.write("base.py", "word = 'another'\n" if change == "size" else "word = 'two'\n")
    if change == "time":
        os.utime(package.path("base.py"), ns=(1, os.stat(package.path("rooms/main.py")).st_mtime_ns + 2 * 10**9))
    word = "another" if change == "size" else "two"
    assert package.call() == [word]
    assert package.call() == [word, *KEPT]


def test_a_copy_runs_its_own_modules(tmp_path):
    """With the times and sizes that the copied cache knows; what is changed in it, or in the original, is its own."""
    original = Package(str(tmp_path / "original"))
    original.call()
    copy = original.copy(str(tmp_path / "copy"))
    assert copy.call() == ["one", *KEPT]
    copy.write("base.py", "word = 'copied'\n")
    assert copy.call() == ["copied"]
    assert copy.call() == ["copied", *KEPT]
    assert original.call() == ["one", *KEPT]
    original.write("base.py", "word = 'another'\n")
    assert copy.call() == ["copied", *KEPT]


def test_a_moved_package_has_its_cache(package, tmp_path):
    package.write("base.py", "import sys\nword = __file__ + ':' + sys._getframe().f_code.co_filename\n")
    package.call()
    os.rename(package.path(""), tmp_path / "away")
    package.folder = str(tmp_path / "new")
    os.mkdir(package.folder)
    os.rename(tmp_path / "away", package.path(""))
    path = package.path("base.py")
    assert package.call() == [f"{path}:{path}", *KEPT]


def test_modules_that_come_later_are_added(package):
    package.call()
    assert package.call("more") == ["late", "one", *KEPT]
    assert package.call("more") == ["late", "one", *sorted([*KEPT, "ketch.rooms.late"])]
    assert package.call() == ["one", *sorted([*KEPT, "ketch.rooms.late"])]


def test_what_few_calls_need_is_not_run_by_all(package):
    """A terminal, hooks, the compiler of filters: the libraries behind them would be loaded by each call."""
    package.write("runtime/__init__.py", "")
    package.write("runtime/hooks.py", "word = 'hooked'\n")
    package.write("rooms/late.py", "from ketch.runtime.hooks import word\n")
    assert package.call("more") == ["hooked"]
    assert package.call("more") == ["hooked", *sorted([*KEPT, "ketch.rooms.late", "ketch.runtime"])]


def test_a_cache_of_some_imports_within_another(package):
    """Each has its own modules, and what was imported before is in neither."""
    both = sorted([*KEPT, "ketch.rooms.late"])
    assert package.call("inner") == ["late", "one"]
    assert package.call("inner") == ["late", "one", *both]
    assert package.call() == ["one", *KEPT]
    os.unlink(package.cache)
    assert package.call("inner") == ["late", "one", "ketch.rooms.late"]
    assert package.call("inner") == ["late", "one", *both]
    package.write("rooms/late.py", "word = 'new'\n")
    assert package.call("inner") == ["new", *KEPT]
    assert package.call("inner") == ["new", *both]


@pytest.mark.parametrize("content", [b"", b"\0" * 4096, None], ids=["empty", "zeros", "cut"])
def test_a_damaged_cache_counts_for_nothing(package, content):
    package.call()
    with open(package.cache, "rb") as f:
        whole = f.read()
    with open(package.cache, "wb") as f:
        f.write(whole[: len(whole) // 2] if content is None else content)
    assert package.call() == ["one"]
    assert package.call() == ["one", *KEPT]


def test_a_cache_of_an_optimized_interpreter_is_not_for_others(package):
    package.call(options="-ISO")
    assert package.call() == ["one"]


def test_a_cache_of_another_build_of_the_interpreter_is_not_for_others(package):
    package.call()
    with open(package.cache, "rb") as f:
        content = f.read()
    version = sys.version.encode()
    assert version in content
    with open(package.cache, "wb") as f:
        f.write(content.replace(version, version[:-1] + b"?"))
    assert package.call() == ["one"]


def test_a_place_where_nothing_can_be_written(package):
    os.mkdir(f"{package.folder}/ketch/__pycache__")
    os.makedirs(f"{package.cache}/taken")
    assert package.call() == ["one"]
    assert package.call() == ["one"]


def test_nobody_else_can_write_to_it_or_is_believed(package):
    """It is code that root runs."""
    before = os.umask(0)
    try:
        package.call()
    finally:
        os.umask(before)
    assert os.stat(package.cache).st_mode & 0o777 == 0o644
    assert package.call() == ["one", *KEPT]
    for change in lambda: os.chmod(package.cache, 0o664), lambda: os.chown(package.cache, 65534, -1):
        change()
        assert package.call() == ["one"]  # and it is written anew
        assert package.call() == ["one", *KEPT]


@pytest.mark.parametrize("change", ["os.unlink(__file__)", "open(__file__, 'w').write('def')"])
def test_a_module_that_changes_meanwhile(package, change):
    gone = FILES["rooms/main.py"].replace("import os\n", f"import os\n{change}\n", 1)
    package.write("rooms/main.py", gone)
    assert package.call() == ["one"]
    folder = os.path.dirname(package.cache)
    assert not os.path.isdir(folder) or not [name for name in os.listdir(folder) if ".modules" in name]


def test_what_cannot_be_put_in_its_place_is_removed(package):
    os.makedirs(f"{package.cache}/taken")
    package.call()
    assert [name for name in os.listdir(os.path.dirname(package.cache)) if ".modules." in name] == []


def test_nothing_is_written_that_python_must_not_write(package):
    package.call(options="-ISB")
    assert not os.path.exists(package.cache)


def test_modules_whose_package_was_imported_elsewhere(package):
    """Who writes a file may have had a package before; others, who have not, import its modules as ever."""
    script = f"import sys\nsys.path.append({package.folder!r})\n"
    script += "if sys.argv[1:]: import ketch.rooms\n"
    script += "from ketch import module_cache\nwith module_cache.ModuleCache('demo-other'): import ketch.rooms.late\n"
    script += "print(ketch.rooms.late.word, *sorted(n for n, m in sys.modules.items() if m.__spec__ is None))"
    for arguments, kept in (["first"], []), (["first"], ["ketch.base", "ketch.rooms.late"]), ([], ["ketch.base"]):
        command = [sys.executable, "-IS", "-c", script, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.split() == ["late", "one", "__main__", *kept]
