"""`ketch build` by another daemon's old builder."""

from __future__ import annotations

import json


def test_the_old_builder(dockerd, tmp_path):
    """Contexts, Dockerfiles inside, outside and from standard input, errors, and what that builder cannot do."""
    context = tmp_path / "context"
    (context / "sub").mkdir(parents=True)
    (context / "sub" / "kept").write_text("kept")
    (context / "secret").write_text("secret")
    (context / ".dockerignore").write_text("secret\nDockerfile\n")
    (context / "Dockerfile").write_text(
        "FROM busybox\nARG GIVEN\nARG OTHER=x\nCOPY . /x\n"
        'RUN test -e /x/sub/kept && test ! -e /x/secret && test ! -e /x/Dockerfile && test "$GIVEN$OTHER" = bothy\n'
    )
    (tmp_path / "Outside").write_text("FROM busybox\nCOPY . /x\nRUN test $(ls /x) = sub && echo was outside\n")
    iid, facts = tmp_path / "iid", tmp_path / "facts"
    build = dockerd.ketch
    words = ["--build-arg", "GIVEN", "--build-arg", "OTHER=y", "--label", "a=b=c", "-t", "app:1", "-t", "app:2"]
    shown = build("build", *words, "--iidfile", str(iid), "--metadata-file", str(facts), str(context), GIVEN="both").out
    assert "Step 1/6 : FROM busybox" in shown and "Successfully tagged app:2" in shown
    image = json.loads(build("image", "inspect", "app:1").out)[0]
    assert image["Id"] == iid.read_text() == json.loads(facts.read_text())["containerimage.config.digest"]
    assert image["Config"]["Labels"] == {"a": "b=c"} and sorted(image["RepoTags"]) == ["app:1", "app:2"]

    assert "was outside" in build("build", "-f", str(tmp_path / "Outside"), str(context)).out
    text = (tmp_path / "Outside").read_bytes()
    quiet = build("build", "-q", "-f", "-", str(context), stdin=text)
    assert quiet.out.startswith("sha256:") and quiet.out.count("\n") == 1
    assert build("build", "-q", "-", stdin=b"FROM busybox\nRUN true\n").out.startswith("sha256:")

    failed = build("build", "-", stdin=b"FROM busybox\nRUN echo on its way; exit 3\n", check=False)
    assert failed.code == 1 and "on its way" in failed.out
    assert failed.err == ("ketch: The command '/bin/sh -c echo on its way; exit 3' returned a non-zero code: 3\n")
    for words in (
        ["--secret", "id=x,env=HOME"],
        ["--check"],
        ["--output", "out"],
        ["--platform", "linux/amd64,linux/arm64"],
    ):
        refused = build("build", *words, str(context), check=False)
        assert refused.code == 1 and "the daemon is not ketchd" in refused.err, words
    assert "RECLAIMABLE" in build("builder", "du").out
    assert "Total reclaimed space" in build("builder", "prune", "-af").out
