"""The examples of docs/python.md: each is run as it stands there, and says what stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests.support.programs import need
from tests.support.source.project import ROOT
from tests.support.waiting import patient

pytestmark = pytest.mark.ketch_only

with open(os.path.join(ROOT, "docs", "python.md"), encoding="utf-8") as f:
    PAGE = f.read()
SAYS = re.compile(r"```python\n((?:(?!```).)*)```\n\n```text\n(.*?)```\n", re.DOTALL)
HEADING = r"^#+ (?=[A-Z]|asyncio)"
SECTIONS = re.findall(rf"{HEADING}([^\n]*)\n(.*?)(?={HEADING}|\Z)", PAGE, re.DOTALL | re.MULTILINE)
EXAMPLES = {title: match for title, text in SECTIONS if (match := SAYS.search(text))}
FILES = re.search(r"```python\n# conftest.py\n(.*?)# test_it.py\n(.*?)```", PAGE, re.DOTALL)


def environment(engine, tmp_path) -> dict[str, str]:
    return {**os.environ, "DOCKER_HOST": engine.host, "TMPDIR": str(tmp_path)}


def test_there_are_ten():
    """So that none gets lost by its form."""
    assert len(EXAMPLES) >= 10
    assert PAGE.count("```python\n") == len(EXAMPLES) + 1


@pytest.mark.parametrize("name", EXAMPLES)
def test_example(engine, tmp_path, name, request):
    need("busybox")
    if any(word in EXAMPLES[name][1] for word in ("BoxOptions", "commit")):
        request.getfixturevalue("limits")
    if "ketch.Bind(" in EXAMPLES[name][1] and request.config.getoption("--rootless"):
        pytest.skip("what the test makes as root is a stranger's for a user")
    code, said = EXAMPLES[name].groups()
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(engine, tmp_path),
        capture_output=True,
        text=True,
        timeout=patient(50),
    )
    assert done.stdout == said, done.stderr
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_the_fixture(engine, limits, tmp_path):
    """In two processes, as pytest-xdist has them."""
    assert FILES is not None
    for name, text in zip(("conftest.py", "test_it.py"), FILES.groups(), strict=True):
        (tmp_path / name).write_text(text)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "xdist.plugin",
        "-n",
        "2",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        ".",
        ".",
    ]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**environment(engine, tmp_path), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=patient(50),
    )
    assert "2 passed" in done.stdout, done.stdout + done.stderr


def test_types(tmp_path):
    """Strict type checkers accept all of them."""
    for number, match in enumerate(EXAMPLES.values()):
        (tmp_path / f"example_{number}.py").write_text(match[1])
    command = [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "--cache-dir", os.devnull, str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=patient(120))
    assert done.returncode == 0, done.stdout
