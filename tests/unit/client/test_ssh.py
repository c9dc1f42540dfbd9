"""The program `ssh`, which a connection needs for as long as it lasts."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.support.waiting import patient

SSH = """#!{python}
import os
while asked := os.read(0, 65536):
    status = b"404 no sessions" if b" /ketch/session " in asked else b"200 OK"
    os.write(1, b"HTTP/1.1 %b\\r\\nContent-Length: 2\\r\\n\\r\\n{{}}" % status)
"""
SCRIPT = """
import ketch
with ketch.connect("ssh://me@there") as engine:
    print(engine.info())
"""


def test_a_strict_program_is_not_warned_of_it(tmp_path):
    """It ends when the connection does, perhaps a moment after the program."""
    (tmp_path / "ssh").write_text(SSH.format(python=sys.executable))
    (tmp_path / "ssh").chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", SCRIPT],
        capture_output=True,
        text=True,
        timeout=patient(60),
        check=False,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "{}\n", "")
