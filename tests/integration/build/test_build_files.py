"""Whole builds of what is compared with dockerd by operations elsewhere: context, cache keys, files, archive."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.recordings import build_files

pytestmark = pytest.mark.usefixtures("no_images_left")

CHOSEN = (
    "COPY d /new/d/",
    "COPY deep/1/2/3/z hard/z /hard/",
    "COPY hard /hard",  # of which the copy before has but one name
    "COPY --chown=5:6 --chmod=640 deep /m",
    "COPY d/e/* deep/*/* /mix/",
    "ADD t.tgz t.bz2 /u/",
    "ADD root.tar /\nCOPY over/bin/ /bin/",
    "ADD root.tar /\nADD root.tar /",
    "ADD root.tar /\nCOPY --chown=me:us d /o",
    "ADD root.tar /\nCOPY d /d\nCOPY deep/ /d/e/",
    "ADD root.tar /\nCOPY d /file",
    "COPY missing /m",
)


@pytest.mark.ketch_only
def test_builds_leave_the_files_that_dockerds_leave(engine, tmp_path):
    context = tmp_path / "context"
    context.mkdir()
    build_files.make_context(context)
    engine.give(context)
    rows = {row["dockerfile"]: row for row in build_files.rows()}
    chosen = [text for text in CHOSEN if engine.user is None or "t.tgz" not in text]  # with a device, which users lack

    def built(text):
        dockerfile, out = f"FROM scratch\n{text}\n", tmp_path / str(CHOSEN.index(text))
        words = ["-q", "-o", f"type=tar,dest={out}", "-f", "-", str(context)]
        done = engine.ketch("build", *words, stdin=dockerfile.encode(), check=False)
        row = rows[dockerfile]
        if "error" in row:
            return row["error"].rpartition("failed to calculate checksum ")[2] in done.err
        return done.code == 0 and build_files.entries(out.read_bytes()) == row["entries"]

    with ThreadPoolExecutor(2) as pool:
        rest = pool.map(built, chosen[3:])
        found = [*map(built, chosen[:3]), *rest]
    assert dict(zip(chosen, found, strict=True)) == dict.fromkeys(chosen, True)
