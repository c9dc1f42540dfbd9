"""Programs that tests drive on a terminal."""

from __future__ import annotations

import os
import signal
import sys

from tests.support.terminal import Terminal


def test_a_hang_up_ends_a_program_of_a_run_that_ignores_it() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        program = "print('ready', flush=True); import time; time.sleep(60)"
        with Terminal([sys.executable, "-c", program], dict(os.environ)) as terminal:
            terminal.expect("ready")
            terminal.signal(signal.SIGHUP)
            assert terminal.wait() == -signal.SIGHUP
    finally:
        signal.signal(signal.SIGHUP, before)
