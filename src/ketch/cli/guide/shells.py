"""The scripts by which bash, zsh and fish complete command lines of ``ketch``, and the form each of them reads.

Each asks ``ketch __complete SHELL WORD...``, whose last word is what is typed.  It ends with 3 when names of files may
stand there, too.
"""

from __future__ import annotations

from ketch import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.cli.guide.completion import Completions

FILES = 3
_PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-/:@=+,%")

# Bash parts words at `:` and `=`, which names of images and flags have: the words are put together again, and what
# stands before the last of them is taken off the answers.
_BASH = """\
_ketch() {
    local line=${COMP_LINE:0:COMP_POINT} words status
    read -r -a words <<<"$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    mapfile -t COMPREPLY < <(ketch __complete bash "${words[@]:1}" 2>/dev/null; echo "status $?")
    status=${COMPREPLY[-1]#status }
    unset 'COMPREPLY[-1]'
    [[ $status == 3 ]] && compopt -o default
    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *[:=] ]] && compopt -o nospace
    return 0
}
complete -F _ketch ketch
"""
_ZSH = """\
#compdef ketch
_ketch() {
    local -a found
    local status_of
    found=("${(@f)$(ketch __complete zsh "${(@)words[2,CURRENT]}" 2>/dev/null; print "status $?")}")
    status_of=${found[-1]#status }
    found=("${(@)found[1,-2]}")
    (( ${#found} )) && _describe -V 'ketch' found
    [[ $status_of == 3 ]] && _files
    return 0
}
if [[ ${funcstack[1]} == _ketch ]]; then
    _ketch "$@"
else
    compdef _ketch ketch
fi
"""
_FISH = """\
function __ketch_complete
    set -l typed (commandline -ct)
    ketch __complete fish (commandline -opc)[2..-1] "$typed" 2>/dev/null
    if test $status -eq 3
        __fish_complete_path "$typed"
    end
end
complete -c ketch -f -a '(__ketch_complete)'
"""
SCRIPTS = {"bash": _BASH, "fish": _FISH, "zsh": _ZSH}


def lines(shell: str, current: str, found: Completions) -> list[str]:
    """The completions in the form that a shell's script reads (KeyError for another shell).

    Names are any daemon's: those with characters that mean something to a shell are left out, since bash puts them on
    the line that is typed as they are.
    """
    safe = {value: printable.cell(text) for value, text in found.values.items() if not set(value) - _PLAIN}
    if shell == "bash":
        parted = max(current.rfind(":"), current.rfind("=")) + 1
        return [value[parted:] for value in safe]
    separator = {"fish": "\t", "zsh": ":"}[shell]
    escaped = {value.replace(":", "\\:") if shell == "zsh" else value: text for value, text in safe.items()}
    return [f"{value}{separator}{text}" if text else value for value, text in escaped.items()]
