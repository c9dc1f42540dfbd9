"""The default AppArmor profile as text, in the language of apparmor.d(5).

Namespaces, capabilities, seccomp, masks and read-only mounts confine a container already.  The profile is there for the
moment when one of them has been got round, or taken away by an option: it allows everything but

* mounts of any kind,
* writes to /proc outside of processes' directories and the parameters of System V IPC,
* writes to /sys outside of cgroups, and any access to what is masked there,
* signals and ptrace between the container and others: those that confine themselves are not reached, and the host may
  send signals.

Its effect is that of Docker's ``docker-default``.

A container with containers of its own (`ketch.engine.spec.security_options`) has another profile: it mounts, and writes
to /proc and /sys what its user namespace permits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ketch.runtime.security.apparmor import UNCONFINED

if TYPE_CHECKING:
    from collections.abc import Iterable

NAME = "ketch-default"
NESTING = "ketch-nesting"
NAMES = (NAME, NESTING)

# The beginnings of names that stay writable in each directory; all others are denied with all that is below them. A
# process's own directory begins with a digit.
_WRITABLE = (
    ("/proc", ("sys/", *"123456789")),
    ("/proc/sys", ("kernel/",)),
    ("/proc/sys/kernel", ("shm", "sem", "msg")),
    ("/sys", ("fs/",)),
    ("/sys/fs", ("cgroup/",)),
)
_HIDDEN = (
    "/proc/kcore",
    "/proc/sysrq-trigger",
    "/sys/devices/virtual/powercap/**",
    "/sys/firmware/**",
    "/sys/kernel/security/**",
)
# Distributions give these programs profiles of their own, which confine nothing; they signal what they have started.
_RUNTIMES = ("crun", "runc")


def profile(daemon: str, name: str = NAME) -> str:
    """The source of one of `NAMES`; ``daemon`` is the name of the profile that ketchd itself has."""
    rules = ["capability", "file", "network", "umount", "unix"]
    for peer in sorted({UNCONFINED, daemon, *_RUNTIMES}):
        rules += [f'signal (receive) peer="{peer}"', f'ptrace (readby, tracedby) peer="{peer}"']
    rules += [f"signal (send, receive) peer={name}", f"ptrace (read, readby, trace, tracedby) peer={name}"]
    if name == NESTING:
        rules += ["mount", "pivot_root"]
    else:
        rules += ["deny mount", "deny /proc/* wkl"]
        for directory, kept in _WRITABLE:
            rules += [f"deny {directory}/{others} wkl" for others in patterns_of_others(kept)]
    rules += [f"deny {path} rwklmx" for path in _HIDDEN]
    body = "".join(f"  {rule},\n" for rule in rules)
    return f"profile {name} flags=(attach_disconnected, mediate_deleted) {{\n{body}}}\n"


def patterns_of_others(kept: Iterable[str]) -> list[str]:
    """Patterns of all files in a directory and below it but those whose path begins with one of ``kept``.

    None of these words is the beginning of another; only their last letter may be a slash.
    The language knows no "all but these words", but "all but these letters": what differs from a word differs from it
    in the first letter, or in the second, and so on, or ends before it.
    """
    words = list(kept)
    patterns = []
    for beginning in sorted({word[:length] for word in words for length in range(len(word))}):
        following = sorted({word[len(beginning)] for word in words if word.startswith(beginning)})
        if beginning and "/" not in following:  # else it is the directory in which something is kept
            patterns.append(f"{beginning}{{,/**}}")
        patterns.append(f"{beginning}[^{''.join(following)}]*{{,/**}}")
    return patterns
