"""Places of files: of root's engine, and of a user's."""

from __future__ import annotations

import os
import socket

import pytest

from ketch import places
from ketch.errors import FailedPrecondition


@pytest.fixture
def user(monkeypatch, tmp_path):
    """A user with a home, who is not root."""
    monkeypatch.setattr(os, "geteuid", lambda: os.stat(tmp_path).st_uid + 1)
    for name in ("XDG_DATA_HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/x")
    return monkeypatch


def test_roots():
    assert places.mine() is places.ROOT
    assert places.ROOT.host == "unix:///var/run/ketch.sock"


def test_a_users(user):
    found = places.mine()
    assert found.data_root == "/home/x/.local/share/ketch"
    assert found.exec_root == "/home/x/.local/share/ketch/run/ketch"
    assert found.socket == "/home/x/.local/share/ketch/run/ketch.sock"
    assert found.config == "/home/x/.config/ketch/daemon.json"
    assert found.log == "/home/x/.local/state/ketch/ketchd.log"


def test_no_home(user):
    """Nothing is made below the current directory."""
    user.setenv("HOME", "home")
    with pytest.raises(FailedPrecondition, match="HOME is not an absolute path"):
        places.mine()


def test_variables(user, tmp_path):
    mode = tmp_path.stat()
    user.setattr(os, "geteuid", lambda: mode.st_uid or 12345)
    user.setenv("XDG_DATA_HOME", "/data")
    user.setenv("XDG_CONFIG_HOME", "relative")
    found = places.mine()
    assert found.data_root == "/data/ketch"
    assert found.config == "/home/x/.config/ketch/daemon.json"


@pytest.mark.parametrize(("mode", "owner", "taken"), [(0o700, 12345, True), (0o755, 12345, False), (0o700, 1, False)])
def test_only_a_private_runtime_directory_counts(user, tmp_path, mode, owner, taken):
    """Whoever else can write to it could take the socket's place."""
    directory = tmp_path / "run"
    directory.mkdir()
    directory.chmod(mode)
    os.chown(directory, owner, -1)
    user.setattr(os, "geteuid", lambda: 12345)
    user.setenv("XDG_RUNTIME_DIR", str(directory))
    expected = f"{directory}/ketch.sock" if taken else "/home/x/.local/share/ketch/run/ketch.sock"
    assert places.mine().socket == expected


@pytest.mark.parametrize(("writable", "problem"), [(True, ""), (False, "which this user cannot write to")])
def test_a_runtime_directory_for_reading_only(user, tmp_path, writable, problem):
    tmp_path.chmod(0o700)
    os.chown(tmp_path, 12345, -1)
    user.setattr(os, "geteuid", lambda: 12345)
    user.setattr(os, "access", lambda _path, mode: writable or not mode & os.W_OK)
    user.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert places.runtime_directory_problem().endswith(problem)
    assert bool(places.runtime_directory_problem()) == bool(problem)


def test_commands_go_to_root_where_the_user_may(user, tmp_path):
    user.setattr(places.ROOT, "socket", str(tmp_path / "root.sock"))
    assert places.answering().socket == places.mine().socket
    (tmp_path / "root.sock").touch()
    assert places.answering().socket == places.mine().socket, "its daemon is gone"
    (tmp_path / "root.sock").unlink()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "root.sock"))
        sock.listen()
        assert places.answering() is places.ROOT
    user.setenv("XDG_DATA_HOME", str(tmp_path))
    os.makedirs(tmp_path / "ketch/run")
    (tmp_path / "ketch/run/ketch.sock").touch()
    assert places.answering().socket == f"{tmp_path}/ketch/run/ketch.sock"
