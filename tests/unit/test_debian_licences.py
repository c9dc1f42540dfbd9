"""What the Debian package says of the licences of the packages of Python that are in it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib import metadata

import pytest

from tests.support.source.project import ROOT

SCRIPT = os.path.join(ROOT, "contrib", "debian", "licences")
MIT = "Copyright (c) 2020 Somebody\n\nPermission is hereby granted, free of charge, to any person\n\n  to use it"


def written(*directories: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, *directories], capture_output=True, text=True, check=False)


def needed() -> set[str]:
    """The names of the packages that Ketch needs here, and of those that they need."""
    found: set[str] = set()
    names = ["ketch"]
    while names:
        for requirement in metadata.requires(names.pop()) or ():
            name = re.match(r"[\w.-]+", requirement)[0].lower().replace("_", "-")
            if "extra ==" not in requirement and name not in found and list(metadata.distributions(name=name)):
                found.add(name)
                names.append(name)
    return found


def package(directory, name: str, **files: str) -> None:
    info = directory / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Name: {name}\nVersion: 1.0\nAuthor: Nobody\n")
    for file, text in files.items():
        (info / file).write_text(text)
    (info / "RECORD").write_text(
        "".join(f"{path},,\n" for path in (f"{name}.py", *(f"{info.name}/{f}" for f in files)))
    )
    (directory / f"{name}.py").write_text("#!/usr/bin/python3\n# Copyright 2019 Somebody Else\npass\n")


def test_each_package_that_ketch_needs_has_a_known_licence(tmp_path):
    installed = needed()
    assert len(installed) > 10
    for name in installed:
        for path in metadata.files(name):
            top = path.parts[0]
            if top != ".." and not (tmp_path / top).exists():
                (tmp_path / top).symlink_to(os.path.abspath(path.locate())[: -len(str(path))] + top)
    done = written(str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\nComment: ") == len(installed)
    paragraphs = done.stdout.strip().split("\n\n")
    assert [re.findall(r"^(\w+):", one, re.MULTILINE) for one in paragraphs] == [
        ["Files", "Copyright", "License", "Comment"]
    ] * len(installed)
    for words in ("TERMS AND CONDITIONS FOR USE, REPRODUCTION", "GNU GENERAL PUBLIC LICENSE"):  # Debian has the texts
        assert words not in done.stdout


def test_a_paragraph(tmp_path):
    package(tmp_path, "one", LICENSE=MIT)
    assert written(str(tmp_path), str(tmp_path)).stdout == (
        "\nFiles: usr/lib/ketch/one.py\n usr/lib/ketch/one-1.0.dist-info/*\n"
        "Copyright: Copyright (c) 2020 Somebody\n Copyright 2019 Somebody Else\nLicense: MIT\n"
        " Copyright (c) 2020 Somebody\n .\n Permission is hereby granted, free of charge, to any person\n"
        " .\n   to use it\n"
        "Comment: one 1.0\n"
    )


@pytest.mark.parametrize(
    ("files", "error"),
    [
        ({}, "licences: one 1.0 has no file with its licence\n"),
        ({"COPYING": "Ask me first."}, "licences: a licence that nobody has looked at: 'Ask me first.'\n"),
    ],
)
def test_what_nobody_has_looked_at_is_refused(tmp_path, files, error):
    package(tmp_path, "one", **files)
    done = written(str(tmp_path))
    assert (done.returncode, done.stderr) == (1, error)
