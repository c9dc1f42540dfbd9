"""``cp`` by the rules of its manual page: both directions, through both clients, running and stopped containers."""

from __future__ import annotations

import contextlib
import io
import os
import re
import stat
import tarfile

import pytest

from tests.support.engines import busybox_tar

CASES = 16


@pytest.fixture(scope="module")
def image(engine):
    """busybox and a small tree."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(busybox_tar())) as base, tarfile.open(fileobj=buffer, mode="w") as tree:
        for member in base:
            member.mode |= 0o755 if member.isdir() else 0
            tree.addfile(member, base.extractfile(member) if member.isreg() else None)
        for name in ("src", "src/sub", "dst", *(f"dst{i}" for i in range(CASES)), "vol"):
            info = tarfile.TarInfo(name)
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            tree.addfile(info)
        for name, data in (("src/one", b"one\n"), ("src/sub/two", b"two\n"), ("file", b"old\n")):
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o640
            tree.addfile(info, io.BytesIO(data))
        for name, target in (("src/link", "one"), ("tosrc", "/src"), ("dangling", "/nowhere")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tree.addfile(info)
    engine.docker("import", "-", "cpbox", stdin=buffer.getvalue())
    yield "cpbox"
    engine.remove_all()
    engine.client("rmi", "cpbox")


@pytest.fixture
def box(client, image):
    """A container that was never started."""
    return client("create", image, "sleep", "1000").out.strip()


@pytest.fixture(params=["running", "stopped", "paused"])
def state(request, client, box):
    """The same in each state."""
    client("start", box)
    if request.param != "running":
        client(*(["kill"] if request.param == "stopped" else ["pause"]), box)
    yield request.param
    if request.param == "paused":
        client("unpause", box)


def content(place) -> dict[str, str]:
    """Relative path → text, ``-> target`` or ``/``."""
    found = {}
    for directory, names, files in os.walk(place):
        for name in names + files:
            path = os.path.join(directory, name)
            key = os.path.relpath(path, place)
            if os.path.islink(path):
                found[key] = "-> " + os.readlink(path)
            elif os.path.isdir(path):
                found[key] = "/"
            else:
                with open(path, encoding="utf-8") as f:
                    found[key] = f.read().strip()
    return found


def inside(client, box: str, path: str) -> dict[str, str]:
    """The same for a directory of the container, through its archive."""
    with contextlib.closing(client.engine.py()) as sdk:
        stream = io.BytesIO(b"".join(sdk.api.get_archive(box, path)[0]))
    found = {}
    with tarfile.open(fileobj=stream) as archive:
        for member in archive:
            name = member.name.partition("/")[2]
            if not name:
                continue
            if member.issym():
                found[name] = "-> " + member.linkname
            elif member.isdir():
                found[name] = "/"
            else:
                found[name] = archive.extractfile(member).read().decode().strip()
    return found


TREE = {"one": "one", "sub": "/", "sub/two": "two", "link": "-> one"}


def under(name: str) -> dict[str, str]:
    return {name: "/", **{f"{name}/{key}": value for key, value in TREE.items()}}


# -- from a container ----------------------------------------------------------------------------


def test_out_in_every_state(client, box, state, tmp_path):
    client("cp", f"{box}:/src", str(tmp_path))
    assert content(tmp_path) == under("src")
    assert stat.S_IMODE((tmp_path / "src" / "one").stat().st_mode) == 0o640


OUT = [
    ("/src", "new", under("new")),
    ("/src/", "new/", under("new")),
    ("/src/.", "new", under("new")),
    ("/src/.", ".", TREE),
    ("/src/one", "new", {"new": "one"}),
    ("/src/one", ".", {"one": "one"}),
    ("src/one", ".", {"one": "one"}),
    ("/src/../src/one", ".", {"one": "one"}),
    ("/src/link", "new", {"new": "-> one"}),
    ("/tosrc", "new", {"new": "-> /src"}),
    ("/tosrc/", "new", under("new")),
    ("/tosrc/.", ".", TREE),
    ("/tosrc/one", ".", {"one": "one"}),
    ("/dangling", ".", {"dangling": "-> /nowhere"}),
]
OUT_FOLLOWING = [
    ("/src/link", ".", {"link": "one"}),
    ("/src/link", "new", {"new": "one"}),
    ("/tosrc", ".", under("tosrc")),
    ("/tosrc", "new", under("new")),
]


def test_out_names(client, box, tmp_path):
    for number, (source, target, expected) in enumerate(OUT + OUT_FOLLOWING):
        place = tmp_path / str(number)
        place.mkdir()
        client("cp", "-q" if number < len(OUT) else "-qL", f"{box}:{source}", f"{place}/{target}")
        assert content(place) == expected, (source, target)


def test_out_over_a_file_and_into_a_directory(client, box, tmp_path):
    (tmp_path / "file").write_text("before", encoding="utf-8")
    (tmp_path / "dir").mkdir()
    (tmp_path / "todir").symlink_to("dir")
    client("cp", f"{box}:/src/one", f"{tmp_path}/file")
    client("cp", f"{box}:/src/one", f"{tmp_path}/todir")
    assert content(tmp_path) == {"file": "one", "dir": "/", "dir/one": "one", "todir": "-> dir"}


def test_out_refused(client, box, tmp_path):
    (tmp_path / "file").write_text("stays", encoding="utf-8")
    for source, target, message in (
        (f"{box}:/missing", ".", "Could not find the file /missing in container"),
        (f"{box}:/src/one", "nodir/", "no such directory"),
        (f"{box}:/src/one", "a/b", "invalid output path"),
        (f"{box}:/src", "file", "cannot copy directory"),
        (f"{box}:/src/one/", ".", "not a directory"),
        ("nobody:/x", ".", "No such container: nobody"),
    ):
        result = client("cp", source, f"{tmp_path}/{target}", check=False)
        assert result.code == 1
        assert message in result.err, source
        assert content(tmp_path) == {"file": "stays"}


def test_out_as_a_stream(client, box, docker_py):
    expected = b"".join(docker_py.api.get_archive(box, "/src/one")[0])
    assert client("cp", f"{box}:/src/one", "-").out.encode() == expected


# -- to a container ------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path):
    """The same tree on this side."""
    place = tmp_path / "src"
    (place / "sub").mkdir(parents=True)
    (place / "one").write_text("one\n", encoding="utf-8")
    (place / "sub" / "two").write_text("two\n", encoding="utf-8")
    (place / "link").symlink_to("one")
    (tmp_path / "tosrc").symlink_to("src")
    return tmp_path


def test_in_in_every_state(client, box, state, here):
    client("cp", f"{here}/src", f"{box}:/dst")
    assert inside(client, box, "/dst") == under("src")


IN = [
    ("src", "/DST/new", under("new")),
    ("src/.", "/DST/new", under("new")),
    ("src/", "/DST/new", under("new")),
    ("src/.", "/DST", TREE),
    ("src/one", "/DST/new", {"new": "one"}),
    ("src/one", "/DST/", {"one": "one"}),
    ("src/one", "DST", {"one": "one"}),
    ("src/link", "/DST", {"link": "-> one"}),
    ("tosrc", "/DST", {"tosrc": "-> src"}),
    ("tosrc/.", "/DST", TREE),
]
IN_FOLLOWING = [
    ("src/link", "/DST", {"link": "one"}),
    ("tosrc", "/DST", under("tosrc")),
    ("tosrc", "/DST/new", under("new")),
]


def test_in_names(client, box, here):
    for number, (source, target, expected) in enumerate(IN + IN_FOLLOWING):
        place = f"dst{number}"
        flag = "-q" if number < len(IN) else "-L"
        client("cp", flag, f"{here}/{source}", f"{box}:{target.replace('DST', place)}")
        assert inside(client, box, f"/{place}") == expected, (source, target)


def test_in_through_a_link(client, box, here):
    (here / "three").write_text("three", encoding="utf-8")
    client("cp", f"{here}/three", f"{box}:/tosrc")
    assert inside(client, box, "/src") == {**TREE, "three": "three"}


def test_in_refused(client, box, here):
    for source, target, message in (
        ("src/one", "/missing/", "no such directory"),
        ("src/one", "/missing/new", "Could not find the file /missing in container"),
        ("src", "/file", "cannot copy directory"),
        ("src/missing", "/dst", "no such file or directory"),
    ):
        result = client("cp", f"{here}/{source}", f"{box}:{target}", check=False)
        assert result.code == 1
        assert message in result.err, target
    assert inside(client, box, "/dst") == {}


def test_in_replaces_a_file_but_no_directory(client, box, here):
    client("cp", f"{here}/src/one", f"{box}:/file")
    assert client("cp", f"{box}:/file", "-").out.count("one") == 1
    (here / "sub").write_text("a file", encoding="utf-8")
    result = client("cp", f"{here}/sub", f"{box}:/src", check=False)
    assert result.code == 1
    # (dockerd names what is below by its name alone.)
    assert re.search('cannot overwrite directory "(/src/)?sub" with non-directory "/src"', result.err)
    assert inside(client, box, "/src") == TREE


def test_in_from_a_stream(client, box):
    client("cp", "-", f"{box}:/dst", stdin=tar_of(("x", b"data"), ("d/y", b"more")))
    assert inside(client, box, "/dst") == {"x": "data", "d": "/", "d/y": "more"}
    assert client("cp", "-", f"{box}:/file", stdin=tar_of(("x", b"")), check=False).code == 1


def tar_of(*files: tuple[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def test_owners(client, here, box):
    """As with dockerd: the archive's numbers, or with -a the container's user."""
    os.chown(here / "src" / "one", 1234, 1235)
    client("start", box)
    other = client("run", "-d", "-u", "nobody", "cpbox", "sleep", "1000").out.strip()
    for name, flags, expected in ((box, [], "1234:1235"), (other, [], "1234:1235"), (other, ["-a"], "65534:65534")):
        client("cp", *flags, f"{here}/src/one", f"{name}:/dst")
        assert client("exec", name, "stat", "-c", "%u:%g", "/dst/one").out.strip() == expected


def test_both_or_no_containers(client, tmp_path):
    assert "copying between containers is not supported" in client("cp", "a:/a", "b:/b", check=False).err
    assert "must specify at least one container source" in client("cp", "./a:b", str(tmp_path), check=False).err
    assert "source can not be empty" in client("cp", "", "b:/b", check=False).err


def test_a_terminal_hears_of_it(client, box, tmp_path):
    for flags, said in (([], True), (["-q"], False)):
        with client.terminal("cp", *flags, f"{box}:/src/one", str(tmp_path)) as terminal:
            assert terminal.wait() == 0
            assert ("Successfully copied" in terminal.text) == said


def test_a_large_upload_that_is_refused(client, image, tmp_path):
    """The answer comes before everything is sent, and is what the user reads."""
    box = client("create", "--read-only", image, "sleep", "1000").out.strip()
    with open(tmp_path / "large", "wb") as f:
        f.truncate(100 << 20)
    result = client("cp", f"{tmp_path}/large", f"{box}:/dst", check=False)
    assert result.code == 1
    assert "container rootfs is marked read-only" in result.err
