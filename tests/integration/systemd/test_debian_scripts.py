"""Scripts of the Debian package, on a machine whose directories are a mount namespace's."""

from __future__ import annotations

import os
import pathlib
import subprocess

import pytest

from tests.support.waiting import patient

SCRIPT = pathlib.Path(__file__).parents[3] / "contrib/debian/ketch.postrm"
PREPARED = """
set -e
mount --make-rprivate /
for place in /run /var/lib /var/log /etc; do mount -t tmpfs none $place; done
mkdir -p /run/ketch/mounts/one /var/lib/ketch/images /etc/ketch
mount --bind "$1" /run/ketch/mounts/one
sh "$2" purge
ls /run/ketch /var/lib /etc
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="root purges packages")
def test_a_purge_leaves_what_is_mounted_and_comes_to_its_end(tmp_path):
    """As what a runtime that was killed has left."""
    (tmp_path / "kept").write_text("x")
    words = ["unshare", "-m", "sh", "-c", PREPARED, "sh", str(tmp_path), str(SCRIPT)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=patient(60), check=False)
    assert (done.returncode, done.stdout.split(), done.stderr) == (
        0,
        ["/etc:", "/run/ketch:", "mounts", "/var/lib:"],
        "",
    )
    assert (tmp_path / "kept").read_text() == "x"
