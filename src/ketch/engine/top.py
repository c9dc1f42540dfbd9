"""``top``: the processes of a container as ``ps`` would show them, read from /proc (proc(5)).

Understands ``-ef`` (the default), ``aux``-style options and ``-o`` column lists; no program is run.
"""

from __future__ import annotations

import os
import pwd
import time
from typing import Any

from ketch.errors import InvalidArgument

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_EF: tuple[str, ...] = ("user", "pid", "ppid", "c", "stime", "tty", "time", "cmd")
_AUX: tuple[str, ...] = ("user", "pid", "%cpu", "%mem", "vsz", "rss", "tty", "stat", "start", "time", "args")
_HEADERS = {
    "user": "UID", "pid": "PID", "ppid": "PPID", "c": "C", "stime": "STIME", "tty": "TTY", "time": "TIME",
    "cmd": "CMD", "args": "COMMAND", "%cpu": "%CPU", "%mem": "%MEM", "vsz": "VSZ", "rss": "RSS", "stat": "STAT",
    "start": "START", "comm": "COMMAND", "command": "COMMAND", "etime": "ELAPSED", "pgid": "PGID", "nice": "NI",
    "ni": "NI", "uid": "UID", "gid": "GID", "tt": "TT", "s": "S", "state": "S", "pcpu": "%CPU", "pmem": "%MEM",
    "ruser": "RUSER", "group": "GROUP", "cputime": "TIME", "euser": "EUSER",
}  # fmt: skip


def columns(ps_args: str) -> tuple[list[str], list[str]]:
    """(column keys, titles) for the options of ps; InvalidArgument for what is not understood."""
    words = ps_args.split()
    chosen: list[str] = []
    style = _EF
    while words:
        word = words.pop(0)
        if word in ("-o", "o", "--format", "-eo", "-o=") and words:
            chosen += [w for w in words.pop(0).split(",") if w]
        elif word.startswith("-o"):
            chosen += [w for w in word[2:].lstrip("=").split(",") if w]
        elif not word.startswith("-") and set(word) <= set("auxwww"):
            style = _AUX if "u" in word else style
        elif word.startswith("-") and set(word[1:]) <= set("efFlAw"):
            style = _EF
        else:
            raise InvalidArgument(f"top: ps option `{word}` is not understood", hint="use -ef, aux or -o COLUMNS")
    if not chosen:
        titles = [_HEADERS[c] for c in style]
        if style is _AUX:
            titles[0] = "USER"
        return list(style), titles
    titles = []
    for i, column in enumerate(chosen):
        key, equals, title = column.partition("=")
        if key not in _HEADERS:
            raise InvalidArgument(f"top: unknown ps column `{key}`", hint=f"known: {', '.join(sorted(_HEADERS))}")
        chosen[i] = key
        titles.append(title if equals else "USER" if key == "user" else _HEADERS[key])
    return chosen, titles


def table(pids: list[int], ps_args: str) -> dict[str, Any]:
    """``{"Titles": […], "Processes": [[…], …]}`` for these host pids; those that ended meanwhile are left out."""
    keys, titles = columns(ps_args or "-ef")
    boot = _boot_time()
    memory = os.sysconf("SC_PHYS_PAGES") * _PAGE
    rows = []
    for pid in sorted(pids):
        try:
            facts = _facts(pid, boot, memory)
        except (FileNotFoundError, ProcessLookupError):
            continue
        rows.append([facts[key] for key in keys])
    return {"Titles": titles, "Processes": rows}


def _boot_time() -> float:
    with open("/proc/uptime", encoding="ascii") as f:
        return time.time() - float(f.read().split()[0])


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _facts(pid: int, boot: float, memory: int) -> dict[str, str]:
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as f:
        head, _, tail = f.read().rpartition(")")
    comm = head.partition("(")[2]
    field = tail.split()  # field[0] is the state: the third field of proc_pid_stat(5)
    with open(f"/proc/{pid}/cmdline", "rb") as f:
        args = f.read().rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace") or f"[{comm}]"
    owner = os.stat(f"/proc/{pid}")
    started = boot + int(field[19]) / _TICKS
    cpu_s = (int(field[11]) + int(field[12])) / _TICKS
    age_s = max(time.time() - started, 0.01)
    rss = int(field[21]) * _PAGE
    begin = time.localtime(started)
    today = time.localtime()[:3] == begin[:3]
    seconds = int(cpu_s)
    clock = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    percent = f"{100 * cpu_s / age_s:.1f}"
    user = _user(owner.st_uid)
    start = time.strftime("%H:%M" if today else "%b%d", begin)
    tty = _tty(int(field[4]))
    share = f"{100 * rss / memory:.1f}"
    return {
        "user": user, "euser": user, "ruser": user, "uid": str(owner.st_uid), "gid": str(owner.st_gid),
        "group": str(owner.st_gid), "pid": str(pid), "ppid": field[1], "pgid": field[2],
        "c": str(int(100 * cpu_s / age_s)), "stime": start, "start": start, "tty": tty, "tt": tty,
        "time": clock, "cputime": clock, "cmd": args, "args": args, "command": args, "comm": comm,
        "%cpu": percent, "pcpu": percent, "%mem": share, "pmem": share, "vsz": str(int(field[20]) // 1024),
        "rss": str(rss // 1024), "stat": field[0], "s": field[0], "state": field[0], "nice": field[16], "ni": field[16],
        "etime": f"{int(age_s) // 60:02}:{int(age_s) % 60:02}",
    }  # fmt: skip


def _tty(number: int) -> str:
    if number == 0:
        return "?"
    major, minor = (number >> 8) & 0xFFF, (number & 0xFF) | ((number >> 12) & 0xFFF00)
    if 136 <= major <= 143:
        return f"pts/{(major - 136) * 256 + minor}"
    return f"tty{minor}" if major == 4 else "?"
