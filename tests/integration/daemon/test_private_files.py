"""Permissions of sockets, state and credentials on the host, and files in a socket's place."""

from __future__ import annotations

import json
import os
import socket
import ssl
import stat
import subprocess

import pytest

from tests.support.engines import BIN
from tests.support.registries.registries import ours, password_file
from tests.support.tls import trusting
from tests.support.waiting import patient

pytestmark = pytest.mark.ketch_only


def mode(path: str) -> int:
    return stat.S_IMODE(os.lstat(path).st_mode)


def visible(root: str) -> list[str]:
    """What others than root and its group can reach and read or enter, below a directory."""
    found = []
    for name in os.listdir(root):
        path = os.path.join(root, name)
        if mode(path) & 0o004 and not os.path.islink(path):
            found.append(f"{name} {mode(path):o}")
    return sorted(found)


@pytest.mark.parametrize("made", [False, True], ids=["fresh", "made by somebody"])
def test_the_state_is_of_root_alone(own_engine, made):
    if made:
        os.mkdir(own_engine.data_root, 0o755)
        os.chmod(own_engine.data_root, 0o755)
    own_engine.start()
    own_engine.add_busybox()
    own_engine.client("run", "-d", "-e", "PASSWORD=secret", "--name", "secret", "busybox", "sleep", "1000")
    assert mode(own_engine.socket) == 0o660
    assert mode(own_engine.data_root) == 0o710
    assert visible(own_engine.data_root) == []
    container = own_engine.client("ps", "-q", "--no-trunc").out.strip()
    assert mode(f"{own_engine.exec_root}/run/{container}") == 0o700
    assert mode(f"{own_engine.data_root}/containers/{container}/bundle") == 0o700
    seen = [
        "setpriv",
        "--reuid",
        "65534",
        "--regid",
        "65534",
        "--clear-groups",
        "find",
        own_engine.data_root,
        "-name",
        "*.db*",
    ]
    assert subprocess.run(seen, capture_output=True, text=True, check=False).stdout == ""
    own_engine.stop()
    os.chmod(f"{own_engine.data_root}/ketch.db", 0o644)
    own_engine.start()
    assert mode(f"{own_engine.data_root}/ketch.db") == 0o600


def test_a_directory_of_others_keeps_its_mode(tmp_path):
    from ketch.daemon import roots

    place = tmp_path / "others"
    place.mkdir(mode=0o755)
    (place / "file").touch()
    roots.make(str(place), 0o710)
    assert mode(str(place)) == 0o755
    (place / "file").rename(place / "ketch.lock")
    roots.make(str(place), 0o710)
    assert mode(str(place)) == 0o710


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_only_sockets_are_replaced(own_engine, kind):
    path = own_engine.socket
    if kind == "file":
        with open(path, "w", encoding="ascii") as f:
            f.write("precious")
    else:
        os.mkdir(path)
    own_engine.launch()
    assert own_engine.process.wait(patient(20)) == 1
    own_engine.process = None
    assert "no socket" in own_engine.log()
    if kind == "directory":
        os.rmdir(path)
    else:
        with open(path, encoding="ascii") as f:
            assert f.read() == "precious"
        os.unlink(path)


@pytest.mark.parametrize("target", ["nothing", "a file", "a stale socket"])
def test_a_link_is_not_followed(own_engine, tmp_path, target):
    place = tmp_path / "target"
    if target == "a file":
        place.write_text("precious")
    elif target == "a stale socket":
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(str(place))
    before = mode(str(place)) if target != "nothing" else None
    os.symlink(place, own_engine.socket)
    own_engine.start()
    assert stat.S_ISSOCK(os.lstat(own_engine.socket).st_mode)
    if target == "nothing":
        assert not place.exists()
    else:
        assert mode(str(place)) == before
        assert place.is_socket() or place.read_text() == "precious"


def test_credentials_are_written_whole_and_for_their_owner(own_engine, tmp_path):
    own_engine.start()
    folder = tmp_path / "new" / "docker"
    file = folder / "config.json"
    environment = {**own_engine.environment(), "DOCKER_CONFIG": str(folder)}

    def login(host: str) -> None:
        subprocess.run(
            [f"{BIN}/ketch", "login", "-u", "ann", "--password-stdin", host],
            input=b"secret",
            env=environment,
            check=True,
            capture_output=True,
            umask=0,
        )

    with ours("--htpasswd", password_file(tmp_path)) as one:
        login(one.host)
        assert (mode(str(folder)), mode(str(file))) == (0o700, 0o600)
        # One that is there keeps its mode, its owner and what we do not understand; a link to it stays.
        real = tmp_path / "real.json"
        real.write_text(json.dumps({"currentContext": "x"}))
        real.chmod(0o640)
        os.chown(real, 0, 12)
        file.unlink()
        file.symlink_to(real)
        login(one.host)
        assert file.is_symlink()
        assert (mode(str(real)), real.stat().st_gid) == (0o640, 12)
        kept = json.loads(real.read_text())
        assert kept["currentContext"] == "x" and one.host in kept["auths"]
    assert sorted(os.listdir(folder)) == ["config.json"]
    assert [name for name in os.listdir(tmp_path) if name.startswith("real.json")] == ["real.json"]


def test_old_versions_of_tls_are_refused(secured, tmp_path):
    _, flags = secured
    port = int(flags("client")[1].rpartition(":")[2])

    def version(lowest: ssl.TLSVersion, highest: ssl.TLSVersion) -> str | None:
        context = trusting(f"{tmp_path}/authority.pem")
        context.load_cert_chain(f"{tmp_path}/client.pem", f"{tmp_path}/client.key")
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version, context.maximum_version = lowest, highest
        with socket.create_connection(("127.0.0.1", port)) as raw:
            with context.wrap_socket(raw, server_hostname="localhost") as one:
                return one.version()

    assert version(ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2) == "TLSv1.2"
    assert version(ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_3) == "TLSv1.3"
    with pytest.warns(DeprecationWarning), pytest.raises(ssl.SSLError):
        version(ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1)


def test_errors_that_quote_others_do_not_steer_a_terminal(engine):
    import io
    import tarfile

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("../\x1b]0;title\x07\x9b31m"))
    for command in (("import", "-", "bad"), ("load",)):
        result = engine.client(*command, stdin=buffer.getvalue(), check=False)
        assert result.code == 1
        assert not {"\x1b", "\x07", "\x9b"} & set(result.err), ascii(result.err)
        assert "?]0;title" in result.err
