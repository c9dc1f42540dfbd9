"""Libraries for Docker's API of other projects: each in a program that uses the whole of it and judges what it gets."""

from __future__ import annotations

from tests.support import peers


def test_aiodocker(program):
    program("on_aiodocker.py")


def test_python_on_whales(program):
    peers.need()
    program("on_python_on_whales.py")


def test_dockerode(program, tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM made:1\nRUN echo x > /x\n", encoding="utf-8")
    program("on_dockerode.js", str(tmp_path))


def test_testcontainers_for_node(program):
    program("on_testcontainers.js")
