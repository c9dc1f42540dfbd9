"""A directory where ketchd keeps a file: a clear sentence, and nothing is changed."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.support.boxes.damage import refused

pytestmark = pytest.mark.ketch_only
_ELSEWHERE = (
    "/containers/",
    "/layers/",
    "/blobs/",
    "/run/",
    "events.jsonl.1",
)  # not looked at before something asks for them
_SOMETIMES = ("ketch.db.repaired-ready", "content/leases/x", "content/ingest/x")
_WRITTEN_ANEW = ("index.json", "oci-layout", "ketch.db.repaired")  # a start does without them, and says so


@pytest.mark.timeout(300)
def test_directories_in_the_place_of_files(own_engine):
    """Of each file that there is, with and without a daemon: it is named, with what to do, and all is as it was."""
    own_engine.start()
    found = _files(own_engine)
    own_engine.stop()
    found |= _files(own_engine) | {os.path.join(own_engine.data_root, name) for name in _SOMETIMES}
    found.add(own_engine.pidfile)
    for path in sorted(found):
        if there := os.path.lexists(path):
            os.rename(path, path + ".kept")
        os.makedirs(path + "/in")
        said = refused(own_engine)
        assert path in said
        assert "is a directory" in said
        assert "move it away" in said
        subprocess.run(["rm", "-rf", path], check=True)
        if there:
            os.rename(path + ".kept", path)
    own_engine.start()


def _files(engine) -> set[str]:
    roots = (engine.data_root, engine.exec_root)
    found = {os.path.join(place, name) for root in roots for place, _, names in os.walk(root) for name in names}
    return {path for path in found if not any(one in path for one in (*_ELSEWHERE, *_WRITTEN_ANEW))}
