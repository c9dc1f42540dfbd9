"""The link at Docker's path to a daemon's socket."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import TYPE_CHECKING

import pytest

from ketch.daemon import docker_socket, listen
from ketch.errors import AlreadyExists, FailedPrecondition, InvalidArgument

if TYPE_CHECKING:
    from pathlib import Path


def test_a_link_lives_as_long_as_its_daemon(tmp_path: Path):
    path = tmp_path / "docker.sock"
    with docker_socket.link(str(path), ["tcp://127.0.0.1:1", "unix:///run/one.sock", "unix:///run/two.sock"], {}):
        assert os.readlink(path) == "/run/one.sock"
    assert not os.path.lexists(path)


def test_without_the_option_there_is_none(tmp_path: Path):
    with docker_socket.link("", ["unix:///run/one.sock"], {}):
        assert os.listdir(tmp_path) == []


def test_a_socket_at_that_very_path_needs_no_link(tmp_path: Path):
    path = tmp_path / "docker.sock"
    with docker_socket.link(str(path), [f"unix://{path}"], {}):
        assert os.listdir(tmp_path) == []
    with docker_socket.link(str(path), ["unix:///run/one.sock", f"unix://{path}"], {}):
        assert os.listdir(tmp_path) == []


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory with another name, as ``/run`` is ``/var/run``."""
    (tmp_path / "run").mkdir()
    os.symlink("run", tmp_path / "other")
    return tmp_path


def test_a_socket_there_by_another_name_needs_no_link(directory: Path):
    """A link would lead to itself, and the socket could not be made."""
    for path, own in ("other", "run"), ("run", "other"):
        host = f"unix://{directory}/{own}/docker.sock"
        with docker_socket.link(f"{directory}/{path}/docker.sock", [host], {}):
            assert os.listdir(directory / "run") == []
            listen.unix_socket(host.removeprefix("unix://"), "").close()
        os.unlink(directory / "run/docker.sock")


@pytest.mark.parametrize("destination", ["one.sock", "{}/run/one.sock", "../other/one.sock"])
def test_somebodys_link_that_leads_to_the_socket_will_do(directory: Path, destination: str):
    """As the one of the package that stands in for Docker's; who has made it removes it."""
    path, destination = f"{directory}/run/docker.sock", destination.format(directory)
    os.symlink(destination, path)
    with docker_socket.link(path, [f"unix://{directory}/other/one.sock"], {}):
        assert os.readlink(path) == destination
    assert os.readlink(path) == destination


def test_a_passed_socket_is_led_to(tmp_path: Path):
    path, own = str(tmp_path / "docker.sock"), str(tmp_path / "s")
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as server:
        server.bind(own)
        with docker_socket.link(path, ["fd://3"], {"fd://3": server}):
            assert os.readlink(path) == own


def test_what_a_killed_daemon_left_is_taken_over(tmp_path: Path):
    path = tmp_path / "docker.sock"
    os.symlink("/run/one.sock", path)
    with docker_socket.link(str(path), ["unix:///run/one.sock"], {}):
        pass
    assert not os.path.lexists(path)


@pytest.mark.parametrize("what", ["socket", "file", "link"])
def test_nothing_of_somebody_elses_is_replaced(tmp_path: Path, what: str):
    path = tmp_path / "docker.sock"
    if what == "socket":
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as server:
            server.bind(str(path))
    elif what == "file":
        path.write_text("mine", encoding="ascii")
    else:
        os.symlink("/run/other.sock", path)
    before = os.lstat(path)
    said = "a link to /run/other.sock already" if what == "link" else "a socket or a file already"
    with pytest.raises(AlreadyExists, match=said), docker_socket.link(str(path), ["unix:///run/one.sock"], {}):
        pytest.fail("it was made")
    assert os.lstat(path) == before


def test_what_took_the_place_of_the_link_stays(tmp_path: Path):
    path = tmp_path / "docker.sock"
    with docker_socket.link(str(path), ["unix:///run/one.sock"], {}):
        path.unlink()
        path.write_text("theirs", encoding="ascii")
    assert path.read_text(encoding="ascii") == "theirs"


def test_where_no_link_can_be(tmp_path: Path):
    with (
        pytest.raises(FailedPrecondition, match="No such file"),
        docker_socket.link(str(tmp_path / "nowhere/docker.sock"), ["unix:///run/one.sock"], {}),
    ):
        pytest.fail("it was made")


def test_a_daemon_without_a_unix_socket(tmp_path: Path):
    with (
        pytest.raises(InvalidArgument, match="no unix socket"),
        docker_socket.link(str(tmp_path / "docker.sock"), ["tcp://127.0.0.1:1"], {}),
    ):
        pytest.fail("it was made")
