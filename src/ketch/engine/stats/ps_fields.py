"""The fields that ps(1) can show, from /proc (proc_pid_stat(5), proc_pid_status(5)); names and titles are procps'."""

from __future__ import annotations

import grp
import os
import pwd
import re
import time
from typing import NamedTuple

from ketch import printable

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_DAY = 86400
_C1 = re.compile("[\x80-\x9f]")  # two bytes each in UTF-8
_CLASSES = {0: "TS", 1: "FF", 2: "RR", 3: "B", 5: "IDL", 6: "DLN"}

TITLES = {
    "%cpu": "%CPU", "%mem": "%MEM", "addr": "ADDR", "args": "COMMAND", "blocked": "BLOCKED", "bsdstart": "START",
    "bsdtime": "TIME", "c": "C", "caught": "CAUGHT", "cgroup": "CGROUP", "class": "CLS", "cls": "CLS", "cmd": "CMD",
    "comm": "COMMAND", "command": "COMMAND", "cputime": "TIME", "cputimes": "TIME", "drs": "DRS", "egid": "EGID",
    "egroup": "EGROUP", "etime": "ELAPSED", "etimes": "ELAPSED", "euid": "EUID", "euser": "EUSER", "exe": "EXE",
    "f": "F", "fgid": "FGID", "flag": "F", "flags": "F", "fname": "COMMAND", "fuid": "FUID", "gid": "GID",
    "group": "GROUP", "ignored": "IGNORED", "label": "LABEL", "lstart": "STARTED", "lwp": "LWP", "maj_flt": "MAJFL",
    "majflt": "MAJFLT", "min_flt": "MINFL", "minflt": "MINFLT", "ni": "NI", "nice": "NI", "nlwp": "NLWP",
    "opri": "PRI", "pcpu": "%CPU", "pending": "PENDING", "pgid": "PGID", "pgrp": "PGRP", "pid": "PID", "pmem": "%MEM",
    "policy": "POL", "ppid": "PPID", "pri": "PRI", "priority": "PRI", "psr": "PSR", "rgid": "RGID",
    "rgroup": "RGROUP", "rss": "RSS", "rssize": "RSS", "rsz": "RSZ", "rtprio": "RTPRIO", "ruid": "RUID",
    "ruser": "RUSER", "s": "S", "sess": "SESS", "session": "SESS", "sgid": "SGID", "sid": "SID", "spid": "SPID",
    "start": "STARTED", "start_time": "START", "stat": "STAT", "state": "S", "stime": "STIME", "suid": "SUID",
    "sz": "SZ", "thcount": "THCNT", "tid": "TID", "time": "TIME", "tname": "TTY", "tpgid": "TPGID", "trs": "TRS",
    "tt": "TT", "tty": "TT", "ucmd": "CMD", "ucomm": "COMMAND", "uid": "UID", "uname": "USER", "user": "USER",
    "vsize": "VSZ", "vsz": "VSZ", "wchan": "WCHAN",
}  # fmt: skip
_NUMBERS = """
    %cpu %mem c cputimes drs egid etimes euid gid lwp maj_flt majflt min_flt minflt ni nice nlwp opri pcpu pgid pgrp
    pid pmem ppid pri priority psr rgid rss rssize rsz ruid sess session sid spid sz thcount tid tpgid trs uid vsize vsz
"""
NUMBERS = frozenset(_NUMBERS.split())


class Machine(NamedTuple):
    """Facts of the machine: boot time (s since 1970), memory in bytes, and the present time."""

    booted: float
    memory: int
    now: float

    @classmethod
    def look(cls) -> Machine:
        """Read the machine's facts."""
        with open("/proc/stat", encoding="ascii") as f:
            booted = next(int(line.split()[1]) for line in f if line.startswith("btime "))
        return cls(booted, os.sysconf("SC_PHYS_PAGES") * _PAGE, time.time())


def facts(pid: int, machine: Machine, room: int, tid: int | None = None) -> dict[str, str]:
    """Every field of a process, or of one of its threads, with ``room`` bytes of its arguments.

    FileNotFoundError or ProcessLookupError when it has ended.
    """
    directory = f"/proc/{pid}" if tid is None else f"/proc/{pid}/task/{tid}"
    head, _, tail = _text(f"{directory}/stat").rpartition(")")
    comm = shown(head.partition("(")[2])
    stat = tail.split()  # stat[0] is the state: the third field of proc_pid_stat(5)
    status = dict(line.partition(":\t")[::2] for line in _text(f"{directory}/status").splitlines())
    with open(f"{directory}/cmdline", "rb") as f:
        raw = f.read(room).replace(b"\0", b" ").replace(b"\n", b" ")
    args = shown(raw.decode(errors="surrogateescape"))
    result = {
        "pid": str(pid),
        "ppid": stat[1],
        "pgid": stat[2],
        "pgrp": stat[2],
        "sid": stat[3],
        "tpgid": stat[5],
        "lwp": str(tid or pid),
        "nlwp": stat[17],
        "comm": comm,
        "fname": comm[:8],
        "args": args or f"[{comm}]",
        "minflt": stat[7],
        "min_flt": stat[7],
        "majflt": stat[9],
        "maj_flt": stat[9],
        "s": stat[0],
        "opri": str(int(stat[15]) + 60),
        "priority": stat[15],
        "pri": str(39 - int(stat[15])),
        "psr": stat[36],
        "f": f"{int(stat[6]) >> 6 & 7:o}",
        "addr": "-",
        "tname": _tty(int(stat[4])),
        "stat": _state(stat, status),
        "wchan": _wchan(directory),
        "label": _label(directory),
        "cgroup": _cgroup(directory),
        "exe": _exe(directory),
        "pending": status.get("SigPnd", "-"),
        "blocked": status.get("SigBlk", "-"),
        "ignored": status.get("SigIgn", "-"),
        "caught": status.get("SigCgt", "-"),
    }
    result |= _scheduling(stat) | _owners(status) | _memory(stat, status, machine) | _times(stat, machine)
    for alias, name in _ALIASES.items():
        result[alias] = result[name]
    return result


_ALIASES = {
    "tid": "lwp", "spid": "lwp", "thcount": "nlwp", "sess": "sid", "session": "sid", "nice": "ni", "state": "s",
    "class": "cls", "flag": "f", "flags": "f", "tt": "tname", "tty": "tname", "ucmd": "comm", "ucomm": "comm",
    "cmd": "args", "command": "args", "user": "euser", "uname": "euser", "uid": "euid", "gid": "egid",
    "group": "egroup", "pcpu": "%cpu", "pmem": "%mem", "rssize": "rss", "rsz": "rss", "vsize": "vsz",
    "cputime": "time", "start_time": "stime",
}  # fmt: skip


def shown(text: str) -> str:
    """A process's text as ps shows it: ``?`` for each byte of a control character, single blanks.

    Beyond ps, characters that change the order of a text are ``?`` as well.
    """
    return " ".join(printable.cell(_C1.sub("??", text)).split())


def _text(path: str) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape") as f:
        return f.read()


def _state(stat: list[str], status: dict[str, str]) -> str:
    """The state with ps's signs: < N priority, L locked memory, s leads a session, l threads, + in the foreground."""
    nice = int(stat[16])
    signs = ("<" if nice < 0 else "N" if nice > 0 else "") + ("L" if _kib(status, "VmLck") else "")
    signs += ("s" if stat[3] == status.get("Pid") else "") + ("l" if int(stat[17]) > 1 else "")
    return stat[0] + signs + ("+" if stat[5] == stat[2] else "")


def _kib(status: dict[str, str], name: str) -> int:
    return int(status.get(name, "0").split()[0])


def _scheduling(stat: list[str]) -> dict[str, str]:
    """A nice value where the policy has one, and a priority where it is not the usual policy, as ps shows them."""
    policy = int(stat[38])
    name = _CLASSES.get(policy, "?")
    return {
        "ni": stat[16] if policy in (os.SCHED_OTHER, os.SCHED_BATCH) else "-",
        "rtprio": "-" if policy == os.SCHED_OTHER else stat[37],
        "cls": name,
        "policy": name,
    }


def _owners(status: dict[str, str]) -> dict[str, str]:
    result: dict[str, str] = {}
    for key, suffix, name in (("Uid", "uid", _user), ("Gid", "gid", _group)):
        numbers = status.get(key, "0\t0\t0\t0").split()
        for letter, number in zip("resf", numbers, strict=False):
            result[letter + suffix] = number
            result[letter + ("user" if key == "Uid" else "group")] = name(int(number))
    return result


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _memory(stat: list[str], status: dict[str, str], machine: Machine) -> dict[str, str]:
    size, rss = int(stat[20]), _kib(status, "VmRSS") << 10  # the one in stat is an estimate
    code = int(stat[24]) - int(stat[23])
    return {
        "vsz": str(size >> 10),
        "sz": str(size // _PAGE),
        "rss": str(rss >> 10),
        "trs": str(code >> 10),
        "drs": str((size - code) >> 10),
        "%mem": f"{int(1000 * rss / machine.memory) / 10:.1f}",
    }


def _times(stat: list[str], machine: Machine) -> dict[str, str]:
    started = machine.booted + int(stat[19]) / _TICKS
    cpu_s = (int(stat[11]) + int(stat[12])) / _TICKS
    age_s = max(machine.now - started, 0.01)
    begin, now = time.localtime(started), time.localtime(machine.now)
    recent = age_s < _DAY
    share = min(100 * cpu_s / age_s, 999.9)
    day = time.strftime("%b%d" if begin[0] == now[0] else "%Y", begin)
    return {
        "c": str(int(min(share, 99))),
        "%cpu": f"{share:.1f}",
        "time": clock(int(cpu_s)),
        "cputimes": str(int(cpu_s)),
        "bsdtime": f"{int(cpu_s) // 60}:{int(cpu_s) % 60:02}",
        "etime": elapsed(int(age_s)),
        "etimes": str(int(age_s)),
        "stime": time.strftime("%H:%M", begin) if begin[:3] == now[:3] else day,
        "bsdstart": time.strftime("%H:%M" if recent else "%b%d", begin),
        "start": time.strftime("%H:%M:%S" if recent else "%b %d", begin),
        "lstart": time.strftime("%a %b %e %H:%M:%S %Y", begin),
    }


def clock(seconds: int) -> str:
    """``[DD-]HH:MM:SS``."""
    days, rest = divmod(seconds, _DAY)
    text = f"{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"
    return f"{days:02}-{text}" if days else text


def elapsed(seconds: int) -> str:
    """``[[DD-]HH:]MM:SS``."""
    text = clock(seconds)
    return text[3:] if seconds < 3600 else text


def _tty(number: int) -> str:
    if number == 0:
        return "?"
    major, minor = (number >> 8) & 0xFFF, (number & 0xFF) | ((number >> 12) & 0xFFF00)
    if 136 <= major <= 143:
        return f"pts/{(major - 136) * 256 + minor}"
    return f"tty{minor}" if major == 4 else "?"


def _wchan(directory: str) -> str:
    try:
        name = _text(f"{directory}/wchan")
    except PermissionError:
        return "-"
    return name if name not in ("", "0") else "-"


def _label(directory: str) -> str:
    try:
        return _text(f"{directory}/attr/current").rstrip("\0\n") or "-"
    except OSError:  # no security module has an opinion
        return "-"


def _cgroup(directory: str) -> str:
    """The process's cgroups in the hierarchies where it is not at the root."""
    return ",".join(shown(line) for line in _text(f"{directory}/cgroup").split() if not line.endswith(":/")) or "-"


def _exe(directory: str) -> str:
    try:
        return shown(os.readlink(f"{directory}/exe"))
    except OSError:  # a kernel thread, or it is ending
        return "-"
