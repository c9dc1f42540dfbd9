"""Interpreters for other machines' programs, as binfmt_misc lists them."""

from __future__ import annotations

import os

import pytest

from ketch.engine.build.command import emulation
from ketch.errors import FailedPrecondition
from ketch.oci import platform as platforms

ARM64 = platforms.parse("linux/arm64") if platforms.host().architecture != "arm64" else platforms.parse("linux/amd64")
MACHINE = {"arm64": "b700", "amd64": "3e00"}[ARM64.architecture]
MAGIC = f"7f454c460201010000000000000000000200{MACHINE}"
MASK = "ffffffffffffff00fffffffffffffffffeffffff"


@pytest.fixture
def registered(tmp_path):
    (tmp_path / "status").write_text("enabled\n")
    (tmp_path / "python").write_text("enabled\ninterpreter /usr/bin/python\nflags: \nextension .pyc\n")
    return tmp_path


def entry(path: str = "/usr/bin/qemu", flags: str = "POCF", state: str = "enabled", magic: str = MAGIC) -> str:
    return f"{state}\ninterpreter {path}\nflags: {flags}\noffset 0\nmagic {magic}\nmask {MASK}\n"


def check(registered, root="/"):
    fd = os.open(root, os.O_PATH)
    try:
        emulation.check(ARM64, fd, str(registered))
    finally:
        os.close(fd)


def test_foreign():
    assert emulation.is_foreign(ARM64)
    here = platforms.host()
    assert not emulation.is_foreign(here)
    assert not emulation.is_foreign(None)
    if here.architecture == "amd64":
        assert not emulation.is_foreign(platforms.parse("linux/386"))
        assert not emulation.is_foreign(platforms.parse("linux/amd64/v2"))


@pytest.mark.parametrize(
    "text", ["", entry(state="disabled"), entry(magic=MAGIC[:-4] + "0800")], ids=["none", "disabled", "another machine"]
)
def test_no_interpreter(registered, text):
    if text:
        (registered / "qemu").write_text(text)
    with pytest.raises(FailedPrecondition, match="the kernel has no interpreter for the other's programs") as e:
        check(registered)
    assert "qemu-user-static" in e.value.hint


def test_binfmt_is_not_mounted(tmp_path):
    with pytest.raises(FailedPrecondition, match="no interpreter"):
        check(tmp_path / "nothing")


def test_an_interpreter_that_the_kernel_holds(registered):
    (registered / "qemu").write_text(entry())
    check(registered, registered)


def test_an_interpreter_in_the_root(registered, tmp_path_factory):
    (registered / "qemu").write_text(entry("/bin/qemu", flags="OC"))
    root = tmp_path_factory.mktemp("root")
    with pytest.raises(FailedPrecondition, match="`/bin/qemu`, is not in the image"):
        check(registered, root)
    (root / "bin").mkdir()
    (root / "bin/qemu").touch()
    check(registered, root)
