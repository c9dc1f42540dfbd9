"""Recordings of the keys under which BuildKit exports its cache.

``tests/data/build-caches.json`` has for each Dockerfile the records that dockerd 28.5.2, with its containerd image
store, exported of its build: for each its digest, and for each input what links to it: selector and number of the
other record.  The Dockerfiles are those of `conversions`, and `MORE`; what they are built of is made here, the same
on each machine.  To record it again, with a daemon that has nothing, a web server on its 127.0.0.1:8099 and
``git daemon`` in the directories ``www`` and ``git`` of a directory that `prepare` filled:

    DOCKER_HOST=unix://SOCKET python -m tests.support.recordings.caches DIRECTORY
"""

from __future__ import annotations

import io
import json
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import tarfile
from typing import Any

from tests.support.recordings import conversions

TABLE = pathlib.Path(__file__).parents[2] / "data" / "build-caches.json"
PASSWD = "root:x:0:0:root:/root:/bin/sh\nme:x:1234:1235::/home/me:/bin/sh\n"
GROUP = "root:x:0:\nus:x:1236:\n"

MORE: dict[str, list[str]] = {
    "links": [
        "FROM b:1",
        "COPY link /a/",
        "COPY dirlink /b/",
        "COPY dirlink/b.txt /c/",
        "COPY many/up /d/",
        "COPY . /e",
    ],
    "modes": [
        "FROM b:1",
        "COPY many/setuid many/private /a/",
        "COPY many/empty /b",
        "COPY many/closed /c",
    ],
    "names": [
        "FROM b:1",
        'COPY ["many/two words", "many/größe", "/a/"]',
        "COPY many/* /b/",
        "COPY man* /c/",
    ],
    "order": [
        "FROM b:1",
        "COPY order /a",
        "COPY order/a* /b/",
        "COPY order/a /c",
    ],
    "big": [
        "FROM b:1",
        "COPY many/big /a",
        "COPY many/big many/hard /b/",
    ],
    "xattrs": [
        "FROM b:1",
        "COPY many/marked /a",
    ],
    "exclude": [
        "FROM b:1",
        "COPY --exclude=d/e --exclude=*.tar . /a",
        "COPY --exclude=a d /b",
    ],
    "exclude-wildcards": [
        "FROM b:1",
        "COPY --exclude=*.txt d/* /a/",
        "COPY --exclude=**/c.txt --exclude=a d* /b/",
    ],
    "exclude-exceptions": [
        "FROM b:1",
        "COPY --exclude=d --exclude=!d/e . /a",
        "COPY --exclude=** --exclude=!g . /b",
    ],
    "exclude-links": [
        "FROM b:1",
        "COPY --exclude=a dirlink /a",
        "COPY --exclude=a --exclude=g dirlin* lin* /b/",
    ],
    "classes": [
        "FROM b:1",
        "COPY [^a-e] /a/",
        "COPY order/[a-b]* /b/",
        "COPY d/?.t?t /c/",
        "COPY */b.txt /d/",
    ],
    "of-image": [
        "FROM b:1",
        "COPY --from=b:2 /etc /a",
        "COPY --from=b:2 /etc/gr* /b/",
        "COPY --from=b:2 /etc/passwd /c",
    ],
    "of-image-root": [
        "FROM scratch",
        "COPY --from=b:2 --exclude=bin / /",
    ],
    "bind": [
        "FROM b:1",
        "RUN --mount=target=/c true",
        "RUN --mount=target=/c,source=d true",
        "RUN --mount=target=/c,rw true",
    ],
    "bind-two": [
        "FROM b:1",
        "RUN --mount=target=/c,source=d --mount=target=/e,source=d/e --mount=target=/f,source=f true",
    ],
    "bind-link": [
        "FROM b:1",
        "RUN --mount=target=/c,source=dirlink true",
    ],
    "bind-rw": [
        "FROM b:1",
        "RUN --mount=target=/c,source=d,rw true",
    ],
    "caches": [
        "FROM b:1",
        "RUN --mount=type=cache,target=/c true",
        "RUN --mount=type=cache,target=/c,id=x,sharing=locked true",
    ],
    "cache-from": [
        "FROM b:1",
        "RUN --mount=type=cache,target=/c,from=b:2,source=/etc true",
    ],
    "tmpfs": [
        "FROM b:1",
        "RUN --mount=type=tmpfs,target=/t,size=4096 --network=none true",
    ],
    "escapes": [
        "FROM b:1",
        "ENV E=<&>\u2028",
        "RUN echo '<a href=\"x\">&\ttab' > /x",
        "COPY <<a /y",
        "<\x7f\x0c>",
        "a",
    ],
    "chown": [
        "FROM b:1",
        "COPY --chown=me:us f /a",
        "COPY --chown=me f g /b/",
        "COPY --chown=1:2 d /c",
        "COPY --chown=0:0 f /d",
    ],
    "chmod": [
        "FROM b:1",
        "COPY --chmod=4755 f /a",
        "ADD --chmod=0 d /b",
    ],
    "link": [
        "FROM b:1",
        "COPY --link f /a",
        "COPY --link --chown=5:6 d /b",
        "COPY --link --from=b:2 /etc/passwd /c",
        "RUN true",
    ],
    "several-files": [
        "FROM b:1",
        "COPY f g d /a/",
        "ADD t.tar f /b/",
    ],
    "platform": [
        "FROM --platform=linux/amd64 b:1 AS x",
        "RUN true",
        "FROM scratch",
        "COPY --from=x /etc /",
    ],
}
"""Further builds: the lines of their Dockerfiles."""


def prepare(directory: pathlib.Path) -> None:
    """Make what the builds are made of: contexts, a web server's files, a repository."""
    prepare_contexts(directory)
    _write(directory / "www" / "w", "web")
    (directory / "www" / "t.tar").write_bytes(archive())
    for name in ("w", "t.tar"):
        os.utime(directory / "www" / name, (1_000_000_000, 1_000_000_000))
    _repository(directory / "git" / "r.git")


def archive() -> bytes:
    """The archive ``t.tar``."""
    return _tar({"in": b"tar\n"})


def prepare_contexts(directory: pathlib.Path) -> None:
    """Make the context ``ctx`` and the other one, ``other``."""
    context = directory / "ctx"
    for path, data in (("f", "f\n"), ("g", "g\n"), ("d/a", "a"), ("d/b.txt", "b"), ("d/e/c.txt", "c")):
        _write(context / path, data)
    (context / "t.tar").write_bytes(archive())
    _write(directory / "other" / "o", "o")
    (context / "link").symlink_to("d/a")
    (context / "dirlink").symlink_to("d")
    many = context / "many"
    for name, data in (("two words", "2"), ("größe", "g"), ("setuid", "s"), ("private", "p"), ("empty", "")):
        _write(many / name, data)
    _write(many / "closed" / "x", "x")
    _write(many / "big", "0123456789abcdef" * 20_000)
    _write(many / "marked", "m")
    os.setxattr(many / "marked", "user.mark", b"here")
    os.link(many / "big", many / "hard")
    (many / "up").symlink_to("../g")
    for name in ("a/x", "a-b", "a.b", "a0", "b"):
        _write(context / "order" / name, name)
    (many / "setuid").chmod(0o4755)
    (many / "private").chmod(0o600)
    (many / "closed").chmod(0o1700)


def _repository(place: pathlib.Path) -> None:
    """A repository with one commit, the same on each machine."""
    work = place.parent / "work"
    _write(work / "top", "t\n")
    _write(work / "sub" / "s", "s\n")
    stamp = {f"GIT_{who}_DATE": "1000000000 +0000" for who in ("AUTHOR", "COMMITTER")}
    commit = ["-c", "user.name=x", "-c", "user.email=x@y", "commit", "-q", "-m", "m"]
    steps = [["init", "-q", "-b", "main"], ["add", "."], commit, ["clone", "-q", "--bare", ".", str(place)]]
    for words in steps:
        subprocess.run(["git", *words], cwd=work, env={**os.environ, **stamp}, check=True)


def _write(path: pathlib.Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o644)
    path.parent.chmod(0o755)


def archive_of_image(name: str) -> bytes:
    """The archive that b:1 or b:2 is imported from."""
    return _tar(files_of_image(name), programs=True)


def files_of_image(name: str) -> dict[str, bytes]:
    """The files of the image b:1 or b:2, beside ``bin``."""
    return {"etc/passwd": PASSWD.encode(), "etc/group": GROUP.encode(), "name": name.encode()}


def _tar(files: dict[str, bytes], programs: bool = False) -> bytes:
    found = io.BytesIO()
    with tarfile.open(fileobj=found, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name in sorted({os.path.dirname(path) for path in files} - {""}):
            tar.addfile(_member(name, tarfile.DIRTYPE, 0o755))
        for path, data in files.items():
            member = _member(path, tarfile.REGTYPE, 0o644)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        if programs:
            tar.addfile(_member("bin", tarfile.DIRTYPE, 0o755))
            busybox = pathlib.Path("/bin/busybox").read_bytes()
            member = _member("bin/busybox", tarfile.REGTYPE, 0o755)
            member.size = len(busybox)
            tar.addfile(member, io.BytesIO(busybox))
            for applet in ("sh", "echo", "ls", "true", "cat", "id", "mkdir", "touch", "pwd"):
                member = _member(f"bin/{applet}", tarfile.SYMTYPE, 0o777)
                member.linkname = "busybox"
                tar.addfile(member)
    return found.getvalue()


def _member(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.mode, member.mtime = kind, mode, 1_000_000_000
    return member


def rows() -> dict[str, Any]:
    """What was recorded: ``images`` (manifest and layers) by name, the repository's ``commit``, and ``rows``."""
    found: dict[str, Any] = json.loads(TABLE.read_text())
    return found


def cases() -> list[dict[str, Any]]:
    """All builds, without what was recorded of them."""
    fields = ("name", "args", "dockerfile")
    older = [{key: one[key] for key in fields} for one in conversions.rows() if "error" not in one]
    texts = {name: "\n".join(lines) for name, lines in MORE.items()}
    return older + [{"name": f"more-{name}", "args": "", "dockerfile": text} for name, text in texts.items()]


def _docker(*words: str, data: bytes | None = None) -> str:
    done = subprocess.run(["docker", *words], input=data, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(f"docker {words}: {done.stderr.decode()}")
    return done.stdout.decode()


def _images(directory: pathlib.Path) -> dict[str, Any]:
    """Make the images; returns the digests of their manifests and of their layers."""
    for name in ("b:1", "b:2"):
        changes = ["-c", f"ENV {conversions.PATH}", "-c", 'CMD ["/bin/sh"]']
        _docker("import", *changes, "-", name, data=archive_of_image(name))
    for name, triggers in conversions.TRIGGERS.items():
        lines = ["FROM b:1", *(["ENV A=b"] if name == "on:1" else []), *(f"ONBUILD {one}" for one in triggers)]
        command = ["buildx", "build", "--provenance=false", "-t", name, "-f", "-", str(directory / "www")]
        _docker(*command, data="\n".join(lines).encode())
    found = {}
    for name in ("b:1", "b:2", *conversions.TRIGGERS):
        image = json.loads(_docker("image", "inspect", name))[0]
        found[name] = [image["Id"], image["RootFS"]["Layers"]]
    return found


def _record(case: dict[str, Any], directory: pathlib.Path) -> dict[str, Any] | None:
    context, cache = directory / "ctx", directory / "cache"
    (directory / "Dockerfile").write_text(case["dockerfile"])
    ignore = directory / "Dockerfile.dockerignore"
    ignore.write_text("\n".join(conversions.IGNORED) if case["name"].startswith("ignore") else "")
    shutil.rmtree(cache, ignore_errors=True)
    command = ["docker", "buildx", "build", "--provenance=false", "-f", str(directory / "Dockerfile")]
    command += ["--output=type=oci,dest=/dev/null", f"--cache-to=type=local,dest={cache},mode=max"]
    command += [*shlex.split(case["args"]), str(context)]
    done = subprocess.run(command, cwd=directory, capture_output=True, check=False)
    if done.returncode:
        print(case["name"], done.stderr.decode()[-300:], file=sys.stderr)
        return None
    if not (cache / "index.json").exists():  # nothing of it can be found again
        return None
    return {**case, "records": [_row(one) for one in _config(cache)["records"]]}


def _row(record: dict[str, Any]) -> list[Any]:
    inputs = [[[one.get("selector", ""), one["link"]] for one in links] for links in record.get("inputs", [])]
    return [record["digest"], inputs]


def _config(cache: pathlib.Path) -> dict[str, Any]:
    """The configuration of a cache that was exported to a directory."""

    def blob(descriptor: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((cache / "blobs" / "sha256" / descriptor["digest"][7:]).read_text())
        return found

    manifest = blob(json.loads((cache / "index.json").read_text())["manifests"][0])
    listed = [*manifest.get("manifests", []), *([manifest["config"]] if "config" in manifest else [])]
    return blob(next(one for one in listed if one["mediaType"].endswith("cacheconfig.v0")))


def write(known: dict[str, Any], found: list[Any]) -> None:
    """The table, a row a line."""
    lines = ",\n".join(json.dumps(one, ensure_ascii=False, separators=(",", ":")) for one in found)
    rest = json.dumps(known, separators=(",", ":")).removesuffix("}")
    TABLE.write_text(f'{rest},\n"rows":[\n{lines}\n]}}\n')


if __name__ == "__main__":
    place = pathlib.Path(sys.argv[1])
    commit = (place / "git" / "r.git" / "packed-refs").read_text().splitlines()[-1].split()[0]
    write(
        {"images": _images(place), "commit": commit},
        [one for case in cases() if (one := _record(case, place)) is not None],
    )
