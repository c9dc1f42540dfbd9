"""`top` without ps: the columns of each of its styles, compared with the ps that is here."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.engine.stats import ps_fields, ps_options, top
from ketch.errors import InvalidArgument, KetchError
from tests.support.programs import need
from tests.support.waiting import patient


@pytest.fixture
def child():
    """A process that does nothing."""
    command = ["sh", "-c", "echo ready; read line"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as one:
        assert one.stdout.readline() == "ready\n"
        deadline = time.monotonic() + patient(10)
        while ps_fields.facts(one.pid, ps_fields.Machine.look(), 4096)["wchan"] == "-":  # it has come to its `read`
            assert time.monotonic() < deadline
        yield one.pid
        one.stdin.close()


def titles(options: str) -> list[str]:
    return [column.title for column in ps_options.parse(options).columns]


def ps_titles(options: str) -> list[str]:
    done = subprocess.run([need("ps"), *options.split()], capture_output=True, text=True, check=False)
    return done.stdout.splitlines()[0].split()


OPTIONS = """
    -ef aux -aux -x -A u l j v s axl -el -ely -eF -ej -efj -eL -eLf -eT -ec -eM
    -eo|pid,comm,args axo|pid,ppid -o|pid|-o|user -e|--format=pid,nlwp --sort=pid|-ef -ef|--forest axf
    -eo|pid,user,group,ruser,rgroup,euser,egroup,uid,gid,etime,etimes,time,cputime,stat,s,state,nlwp,wchan,cls,pri
    -eo|pid,ni,nice,tty,tt,tname,sid,sess,pgid,pgrp,tpgid,rss,rsz,vsz,vsize,sz,psr,maj_flt,min_flt,pcpu,pmem,lstart
    -eo|pid,start,stime,bsdstart,bsdtime,start_time,flags,f,addr,c,cgroup,label,exe,fname,ucmd,opri,policy,rtprio
    -eo|pid,lwp,tid,spid,thcount,pending,blocked,ignored,caught
"""
FIELDS = """
    pid ppid pgid sid user group ruser egroup uid gid nlwp cls pri ni stat state tname tpgid vsz rss sz comm
    args lstart stime bsdtime time flags priority opri wchan:30 policy rtprio drs trs cgroup
"""


@pytest.mark.parametrize("options", OPTIONS.split())
def test_titles_agree_with_ps(options):
    options = options.replace("|", " ")
    assert titles(options) == ps_titles(options)


@pytest.mark.parametrize("policy", [os.SCHED_OTHER, os.SCHED_BATCH, os.SCHED_IDLE])
def test_values_agree_with_ps(child, policy):
    os.sched_setscheduler(child, policy, os.sched_param(0))
    fields = FIELDS.split()
    answer = top.table([child], "-o " + ",".join(fields))
    row = dict(zip(fields, answer.processes[0], strict=True))
    groups = [["args"], ["lstart"], [field for field in fields if field not in ("args", "lstart")]]
    for group in groups:
        asked = [word for field in group for word in ("-o", f"{field}=")]
        done = subprocess.run([need("ps"), "ww", *asked, "-p", str(child)], capture_output=True, text=True, check=True)
        found = done.stdout.split() if len(group) > 1 else [done.stdout.strip()]
        assert {field: row[field] for field in group} == dict(zip(group, found, strict=True))


def test_default_columns_show_this_process():
    answer = top.table([os.getpid()], "")
    assert answer.titles == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    row = dict(zip(answer.titles, answer.processes[0], strict=True))
    assert (row["PID"], row["PPID"]) == (str(os.getpid()), str(os.getppid()))
    with open("/proc/self/cmdline", encoding="utf-8") as f:
        assert row["CMD"] == f.read().rstrip("\0").replace("\0", " ")


def test_titles_of_ones_own():
    assert titles("-o pid,comm=what,it,is") == ["PID", "what,it,is"]
    assert titles("-o pid -o comm=") == ["PID", ""]


def test_tree_order_and_threads(child):
    answer = top.table([child, os.getpid()], "-ef --forest")
    commands = {row[1]: row[-1] for row in answer.processes}
    assert [row[1] for row in answer.processes] == [str(os.getpid()), str(child)]
    assert commands[str(os.getpid())].startswith("\\_ ")
    assert commands[str(child)].startswith("    \\_ sh")
    by_pid = top.table([child, os.getpid()], "-eo pid --sort=-pid").processes
    assert by_pid == sorted(by_pid, key=lambda row: -int(row[0]))
    threads = top.table([os.getpid()], "-eLo pid,lwp").processes
    assert [str(os.getpid())] * 2 in threads
    assert top.table([child, os.getpid()], f"-f -p {child}").processes[0][1] == str(child)


def test_selections(child):
    """Each takes more processes; -e takes all."""
    pids = [child, os.getpid()]
    own, user = str(os.getpid()), ps_fields.facts(os.getpid(), ps_fields.Machine.look(), 100)

    def listed(options: str) -> set[str]:
        return {row[0] for row in top.table(pids, f"{options} -o pid").processes}

    assert listed("-C sh") == {str(child)}
    assert listed("-C nothing") == set()
    assert listed(f"-C sh -p {own}") == listed("-e -C nothing") == {str(child), own}
    assert listed(f"--ppid {own}") == {str(child)}
    for option, value in (("-u", user["euser"]), ("-U", user["ruid"]), ("-G", user["rgroup"]), ("-g", user["sid"])):
        assert own in listed(f"{option} {value}")
    assert listed("-u 12345") == listed("-t nothing") == listed("-s 99999999") == set()
    with pytest.raises(InvalidArgument, match="list of command names must follow -C"):
        top.table(pids, "-C")


def test_any_number_of_threads():
    """Each has a row, and the children of their process are below them once."""
    threads = [{"pid": str(n), "ppid": str(n - 1)} for n in range(1, 21) for _ in range(3)]
    assert [row["pid"] for row in top._tree(threads, lines=True)] == [row["pid"] for row in threads]


def test_arguments_have_room_for_all(monkeypatch):
    """Children share their parent's arguments, which cost them nothing: in a listing each has its own."""
    script = "import os, sys, time; os.fork(); os.fork(); print(flush=True); sys.stdin.read()"
    arguments = ["x" * 120_000] * 10
    with subprocess.Popen(
        [sys.executable, "-c", script, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        for _ in range(4):
            assert parent.stdout.readline() == b"\n"
        (row,) = top.table([parent.pid], "-o pid,args").processes
        assert 100_000 < len(row[1]) <= 128 << 10
        monkeypatch.setattr(top, "_ALL_ARGUMENTS", 400 << 12)  # as with ten thousand, which take their time
        rows = top.table([parent.pid] * 1000, "-o pid,args").processes
        assert {len(row[1]) for row in rows} == {4096}
        parent.stdin.close()


def test_processes_that_are_gone_are_left_out():
    one = subprocess.Popen(["true"])
    one.wait()
    assert top.table([one.pid], "").processes == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--forrest", "unknown gnu long option"),
        ("-o nonsense", 'unknown user-defined format specifier "nonsense"'),
        ("-eo pid:x", "unknown user-defined format specifier"),
        ("-o comm", "Couldn't find PID field in ps output"),
        ("-o pid=PROC", "Couldn't find PID field in ps output"),
        ("-ef --no-headers", "Couldn't find PID field in ps output"),
        ("-?", "unsupported SysV option"),
        ("auxl", "conflicting format options"),
        ("-o", "must follow -o"),
        ("--sort nothing", "unknown sort specifier"),
        ("-p x", "process ID list syntax error"),
    ],
)
def test_options_that_ps_refuses(options, message):
    with pytest.raises(InvalidArgument, match=message):
        ps_options.parse(options)


@given(st.text(alphabet="-=,:axuefljHLTopk pidcomm019", max_size=30))
def test_any_options_are_parsed_or_refused(text):
    try:
        listing = ps_options.parse(text)
    except KetchError:
        return
    assert all(column.key in ps_fields.TITLES for column in listing.columns)


@pytest.mark.parametrize(
    ("seconds", "clock", "elapsed"),
    [
        (0, "00:00:00", "00:00"),
        (59, "00:00:59", "00:59"),
        (3600, "01:00:00", "01:00:00"),
        (90061, "01-01:01:01", "01-01:01:01"),
    ],
)
def test_durations(seconds, clock, elapsed):
    assert ps_fields.clock(seconds) == clock
    assert ps_fields.elapsed(seconds) == elapsed


def test_a_tree_that_is_deeper_than_the_stack() -> None:
    chain = [{"pid": str(n), "ppid": str(n - 1), "args": "sh"} for n in range(1, 5001)]
    found = list(top._tree(chain, lines=True))
    assert [one["pid"] for one in found] == [one["pid"] for one in chain]
    assert len(found[-1]["branch"]) < 500  # for each of them, as many as there are would be the square
    forked = [*chain[:3], {"pid": "9", "ppid": "2", "args": "sh"}, {"pid": "8", "ppid": "3", "args": "sh"}]
    assert [(one["pid"], one["branch"]) for one in top._tree(forked, lines=True)] == [
        ("1", r"\_ "),
        ("2", r"    \_ "),
        ("3", r"        \_ "),
        ("8", r"         |  \_ "),
        ("9", r"        \_ "),
    ]
