"""The options of ps(1), in its three styles: ``-ef``, ``aux`` and ``--forest``.

Which processes are listed is not theirs to say: it is those of the container.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ketch.engine.stats.ps_fields import TITLES
from ketch.errors import UnclassifiedArgument
from ketch.notation import digits

if TYPE_CHECKING:
    from collections.abc import Mapping

Selection = tuple[tuple[str, ...], set[str]]


class Column(NamedTuple):
    """``width`` cuts a long ``wchan`` off, 0 does not."""

    key: str
    title: str
    width: int = 0


class PsFormat(NamedTuple):
    """The requested listing: columns, a row for each process or thread, order (field, descending), selections.

    ``forest``: as a tree, drawn with ``lines`` or with ``spaces``.  A selection is fields and the values of which one
    of them must have one; a process is listed if any selection takes it, and all are without one.
    """

    columns: list[Column]
    threads: bool
    forest: str
    sort: list[tuple[str, bool]]
    selections: list[Selection]

    def takes(self, facts: Mapping[str, str]) -> bool:
        """Whether a process with these fields is listed."""
        return not self.selections or any(facts[key] in values for keys, values in self.selections for key in keys)


def _columns(text: str, **titles: str) -> list[Column]:
    keys = text.split()
    return [Column(key, titles.get(key, TITLES[key]), 6 if key == "wchan" else 0) for key in keys]


_BSD = {
    "": _columns("pid tname stat bsdtime args"),
    "u": _columns("user pid %cpu %mem vsz rss tname stat bsdstart bsdtime args"),
    "l": _columns("f uid pid ppid priority ni vsz rss wchan stat tname bsdtime args"),
    "j": _columns("ppid pid pgid sid tname tpgid stat uid bsdtime args"),
    "v": _columns("pid tname stat bsdtime maj_flt trs drs rss %mem args"),
    "s": _columns("uid pid pending blocked ignored caught stat tname bsdtime args"),
}
_TAKES_LIST = {"p": "process ID", "q": "process ID", "o": "format", "O": "format", "k": "sort"}
# The fields that an option's list is about.
_SELECTS = {
    "C": ("comm",),
    "G": ("rgroup", "rgid"),
    "U": ("ruser", "ruid"),
    "g": ("egroup", "sid"),
    "s": ("sid",),
    "t": ("tname",),
    "u": ("euser", "euid"),
    "ppid": ("ppid",),
}
_LONG = {
    "--format": "o",
    "--sort": "k",
    "--pid": "p",
    "--quick-pid": "p",
    "--ppid": "ppid",
    "--Group": "G",
    "--User": "U",
    "--group": "g",
    "--sid": "s",
    "--tty": "t",
    "--user": "u",
}
_COMMAND_LENGTH = 15  # of what the kernel keeps of a name
_EVERYTHING = frozenset("Ae")
_WITHOUT_MEANING = frozenset("AaedNTrwxh")  # widths, and selections: all processes are the container's


class _Options:
    def __init__(self) -> None:
        self.formats: list[Column] = []
        self.letters: set[str] = set()
        self.bsd: set[str] = set()
        self.is_bsd = False
        self.forest = ""
        self.sort: list[tuple[str, bool]] = []
        self.selections: list[Selection] = []

    def take(self, letter: str, value: str) -> None:
        if (fields := _SELECTS.get(letter)) is not None:
            values = value.replace(",", " ").split()
            if letter == "t":
                values = [name.removeprefix("/dev/") for name in values] + [f"tty{name}" for name in values]
            self.selections.append((fields, {name[:_COMMAND_LENGTH] if letter == "C" else name for name in values}))
            return
        kind = _TAKES_LIST[letter]
        if kind == "format":
            self.formats += _formats(value)
        elif kind == "sort":
            for word in value.split(","):
                key = word.lstrip("+-")
                if key not in TITLES:
                    raise UnclassifiedArgument("ps: error: unknown sort specifier")
                self.sort.append((key, word.startswith("-")))
        else:
            numbers = value.replace(",", " ").split()
            pids = {digits.whole(n) for n in numbers}
            if not pids or None in pids:
                raise UnclassifiedArgument("ps: error: process ID list syntax error")
            self.selections.append((("pid",), {str(pid) for pid in pids}))


def parse(text: str) -> PsFormat:
    """Parse the options of ``docker top`` as one string (UnclassifiedArgument, in the words of ps)."""
    options = _Options()
    words = list(reversed(text.split()))
    while words:
        word = words.pop()
        if word.startswith("--"):
            _long(word, words, options)
        elif digits.whole(word) is not None:
            options.take("p", word)
        elif word.startswith("-") and not _is_bsd_in_disguise(word, words):
            _unix(word[1:], words, options)
        else:
            _bsd(word.lstrip("-"), words, options)
    columns = options.formats or (_BSD[_bsd_style(options)] if options.is_bsd else _unix_style(options.letters))
    if not any(column.title == "PID" for column in columns):
        raise UnclassifiedArgument("Couldn't find PID field in ps output")
    selections = [] if options.letters & _EVERYTHING else options.selections
    return PsFormat(columns, bool(options.letters & {"L", "T"}), options.forest, options.sort, selections)


def _is_bsd_in_disguise(word: str, following: list[str]) -> bool:
    """Whether it is ``-aux`` or ``-x``, which ps reads as BSD options; in ``-u NAME`` the name is ``following``."""
    if word == "-u":
        return not following or following[-1].startswith("-")
    return "x" in word or set(word[1:]) <= {"a", "u"} and "u" in word


def _long(word: str, words: list[str], options: _Options) -> None:
    name, equals, value = word.partition("=")
    if letter := _LONG.get(name):
        if not equals and not words:
            raise _no_list(letter, name)
        options.take(letter, value if equals else words.pop())
    elif name == "--forest":
        options.forest = "lines"
    elif name in ("--no-headers", "--no-heading", "--noheader"):
        raise UnclassifiedArgument("Couldn't find PID field in ps output")
    elif name not in ("--headers", "--deselect", "--cols", "--columns", "--width", "--rows", "--lines"):
        raise UnclassifiedArgument(f"ps: error: unknown gnu long option `{name}`")


def _unix(letters: str, words: list[str], options: _Options) -> None:
    for i, letter in enumerate(letters):
        if letter in _TAKES_LIST or letter in _SELECTS:
            rest = letters[i + 1 :]
            if not rest and not words:
                raise _no_list(letter, f"-{letter}")
            options.take(letter, rest or words.pop())
            return
        if letter in "HfFljcLTyMPZ" or letter in _WITHOUT_MEANING:
            options.letters.add(letter)
            options.forest = "spaces" if letter == "H" else options.forest
        else:
            raise UnclassifiedArgument(f"ps: error: unsupported SysV option `-{letter}`")


def _no_list(letter: str, option: str) -> UnclassifiedArgument:
    what = {"C": "command names", "t": "terminals", "o": "format", "O": "format", "k": "sort"}.get(letter, "IDs")
    return UnclassifiedArgument(f"ps: error: list of {what} must follow {option}")


def _bsd(letters: str, words: list[str], options: _Options) -> None:
    options.is_bsd = True
    for i, letter in enumerate(letters):
        if letter in "pok" and (letters[i + 1 :] or words):
            options.take(letter, letters[i + 1 :] or words.pop())
            return
        if letter == "f":
            options.forest = "lines"
        elif letter in _BSD:
            options.bsd.add(letter)
        elif letter in ("H", "m"):
            options.letters.add("L")
        elif letter not in "axrgTwnSce":
            raise UnclassifiedArgument(f"ps: error: unsupported option (BSD syntax) `{letter}`")


def _bsd_style(options: _Options) -> str:
    if len(options.bsd) > 1:
        raise UnclassifiedArgument("ps: error: conflicting format options")
    return next(iter(options.bsd), "")


def _unix_style(letters: set[str]) -> list[Column]:
    """The columns for the letters of the System V style."""
    threads = ["lwp"] if "L" in letters else []
    full, long = bool(letters & {"f", "F"}), "l" in letters
    if long:
        keys = "s uid pid ppid" if "y" in letters else "f s uid pid ppid"
        memory = "rss sz" if "y" in letters else "addr sz"
        keys = " ".join([keys, *threads, "c opri ni", memory, "wchan tname time ucmd"])
    elif full:
        keys = " ".join(
            [
                "user pid ppid",
                *(["pgid sid"] if "j" in letters else []),
                *threads,
                "c",
                *(["nlwp"] if threads else []),
                *(["sz rss psr"] if "F" in letters else []),
                "stime tname time cmd",
            ]
        )
    else:
        keys = " ".join(
            [
                "pid",
                *(["pgid sid"] if "j" in letters else []),
                *threads,
                *(["spid"] if "T" in letters else []),
                *(["cls pri"] if "c" in letters else []),
                "tname time ucmd",
            ]
        )
    columns = _columns(keys, user="UID")
    return [Column("label", "LABEL"), *columns] if letters & {"M", "Z"} else columns


def _formats(text: str) -> list[Column]:
    """``pid,wchan:20,comm=NAME``: what follows ``=`` is the last one's title, commas and all."""
    found = []
    while text:
        word, _, rest = text.partition(",")
        title: str | None = None
        if "=" in word:
            word, _, title = text.partition("=")
            rest = ""
        key, _, width = word.partition(":")
        characters = digits.whole(width or ("6" if key == "wchan" else "0"))
        if key not in TITLES or characters is None:
            raise UnclassifiedArgument(f'ps: error: unknown user-defined format specifier "{word}"')
        found.append(Column(key, TITLES[key] if title is None else title, characters))
        text = rest
    return found
