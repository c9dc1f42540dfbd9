"""`top` without ps: columns and the rows of real processes."""

from __future__ import annotations

import os
import subprocess

import pytest

from ketch.engine import top
from ketch.errors import InvalidArgument


def test_default_columns_show_this_process_as_ps_does():
    answer = top.table([os.getpid()], "")
    assert answer["Titles"] == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    row = dict(zip(answer["Titles"], answer["Processes"][0], strict=True))
    assert (row["PID"], row["PPID"]) == (str(os.getpid()), str(os.getppid()))
    assert "pytest" in row["CMD"]


def test_chosen_columns_agree_with_ps():
    command = ["sh", "-c", "echo ready; read line"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "ready\n"
        answer = top.table([child.pid], "-o pid,ppid,comm,args")
        expected = subprocess.run(
            ["ps", "-o", "pid=,ppid=,comm=,args=", "-p", str(child.pid)], capture_output=True, text=True, check=True
        ).stdout.split(maxsplit=3)
        child.stdin.close()
    assert answer["Processes"] == [[*expected[:3], expected[3].strip()]]


def test_aux_and_titles():
    assert top.columns("aux")[1][0] == "USER"
    assert top.columns("-o pid=P,user")[1] == ["P", "USER"]


def test_processes_that_are_gone_are_left_out():
    child = subprocess.Popen(["true"])
    child.wait()
    assert top.table([child.pid], "")["Processes"] == []


@pytest.mark.parametrize("options", ["--forest", "-o nonsense", "-x y"])
def test_unknown_options_are_refused(options):
    with pytest.raises(InvalidArgument):
        top.columns(options)
