"""A context that is edited between builds: each image has what was there, and keeps it whatever comes after."""

from __future__ import annotations

import contextlib
import io
import os
import random
import stat
import tarfile

import pytest

from tests.support.rawapi import Api

pytestmark = [pytest.mark.usefixtures("no_images_left"), pytest.mark.timeout(120)]

DIRECTORIES = (".", "d", "e", "e/f")
TYPES = {tarfile.REGTYPE: stat.S_IFREG, tarfile.DIRTYPE: stat.S_IFDIR, tarfile.SYMTYPE: stat.S_IFLNK}


def content(top):
    """Paths → type, mode, content; times do not count for what is copied."""
    found = {}
    for where, below, names in os.walk(top):
        for name in below + names:
            path = os.path.join(where, name)
            mode = os.lstat(path).st_mode
            data = b""
            if stat.S_ISLNK(mode):
                data = os.readlink(path).encode()
            elif stat.S_ISREG(mode):
                with open(path, "rb") as file:
                    data = file.read()
            found[os.path.relpath(path, top)] = (stat.S_IFMT(mode), stat.S_IMODE(mode), data)
    return found


def of_image(engine, name):
    """The same of a directory of an image."""
    api = Api(engine.socket)
    container = api.must("POST", "/containers/create", {"Image": name, "Cmd": ["x"]})["Id"]
    raw = api.must("GET", f"/containers/{container}/archive?path=/all/.")
    api.must("DELETE", f"/containers/{container}")
    found = {}
    with tarfile.open(fileobj=io.BytesIO(raw)) as archive:
        for member in archive.getmembers():
            whole = archive.getmember(member.linkname) if member.islnk() else member
            data = archive.extractfile(whole).read() if whole.isreg() else whole.linkname.encode()
            mode = 0o777 if whole.issym() else whole.mode
            found[os.path.normpath(member.name)] = (TYPES[whole.type], mode, data)
    del found["."]
    return found


class Editor:
    """Changes files below a directory, as chance has it."""

    def __init__(self, top, chance):
        self.top, self.chance = top, chance
        for name in DIRECTORIES[1:]:
            (top / name).mkdir(parents=True)
        for number in range(40):
            (top / chance.choice(DIRECTORIES) / f"n{number}").write_bytes(
                chance.randbytes(chance.choice((0, 10, 5000)))
            )

    def edit(self):
        files = [path for path in self.top.rglob("*") if path.is_file() and not path.is_symlink()]
        path, mode = self.chance.choice(files), self.chance.choice((0o600, 0o644, 0o755))
        new = self.top / self.chance.choice(DIRECTORIES) / f"x{self.chance.randrange(1000)}"
        edits = (
            lambda: new.write_bytes(self.chance.randbytes(50)),
            lambda: path.write_bytes(path.read_bytes() + b"more"),
            path.unlink,
            lambda: path.chmod(mode),
            lambda: path.rename(new),
            lambda: new.symlink_to("n1"),
            lambda: new.hardlink_to(path),
            lambda: os.utime(path, (10**9, 10**9)),
        )
        with contextlib.suppress(FileExistsError):
            self.chance.choice(edits)()


@pytest.mark.parametrize("seed", [3, 8])
def test_images_of_a_directory_that_is_edited(engine, tmp_path, seed):
    chance = random.Random(seed)
    (tmp_path / "All").write_text("FROM scratch\nCOPY . /all\nCOPY d /part\n")
    changing = "touch /e/new; find /e -type f | xargs -r chmod 600; find /e -type f | xargs -r sed -i s/m/n/"
    (tmp_path / "Part").write_text(f"FROM busybox\nCOPY e /e\nRUN {changing}\n")
    editor = Editor(tmp_path / "context", chance)
    made = {}
    for number in range(8):
        for _ in range(chance.choice((0, 1, 1, 2, 6))):
            editor.edit()
        if number == 5:
            engine.docker("builder", "prune", "-af")
        engine.docker("build", "-q", "-t", f"part:{number}", "-f", f"{tmp_path}/Part", str(editor.top))
        engine.docker("build", "-q", "-t", f"all:{number}", "-f", f"{tmp_path}/All", str(editor.top))
        made[f"all:{number}"] = content(editor.top)
        for name, expected in made.items():
            assert of_image(engine, name) == expected, name
        if number % 3 == 2:
            gone = chance.choice(list(made))
            engine.docker("rmi", gone)
            del made[gone]
