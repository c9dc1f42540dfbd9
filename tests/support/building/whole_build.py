"""A build that goes through everything: stages, a context, an archive, a file of the web, commands with mounts, images
of a registry and to one, a cache in a directory; and what has to be true of it, whoever died on the way.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import http.client
import io
import json
import os
import re
import tarfile
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlencode

from tests.support.building.web import served
from tests.support.builds.classic_builds import context
from tests.support.rawapi import Api, Unix
from tests.support.registries import made_images
from tests.support.registries.registries import ours

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.engines import Engine

EPOCH = 1_000_000_000
DOCKERFILE = """\
FROM {registry}/base:1 AS one
COPY src /src
RUN --mount=type=cache,target=/cache echo x >>/cache/log; read word </src/a; echo "of $word" >/made
FROM {registry}/base:1 AS two
ADD packed.tar.gz /two/
ADD {web}/file /two/file
FROM {registry}/base:1
WORKDIR /w
COPY --from=one /made made
COPY --link --from=two /two /two
RUN --mount=from=two,source=/two,target=/m,rw echo y >/m/z; read word </m/file; echo $word >>/w/made
ENV A=b
CMD ["sh"]
"""
_STEP = re.compile(r"\[(?!internal)[^]]*\] (?!FROM |ADD http)")
_SHOWN = ("config", "history", "created", "architecture", "os")


class Told(NamedTuple):
    """What a build answered; ``broken``: the connection broke off."""

    status: int
    lines: list[Any]
    broken: bool = False

    @property
    def error(self) -> str:
        """Its error, empty for a build that succeeded."""
        for line in self.lines:
            found = line.get("error", "")
            if found:
                return found["message"] if isinstance(found, dict) else found
        return ""


class WholeBuild:
    """The files and servers of the build, and its requests to one engine."""

    def __init__(self, place: str, registry: str, web: str) -> None:
        self.place, self.registry = place, registry
        self.context = os.path.join(place, "context")
        self.text = DOCKERFILE.format(registry=registry, web=web)
        self.files = {
            "Dockerfile": self.text,
            "src/a": "word\n",
            "src/sub/b": "b" * 5000,
            "packed.tar.gz": gzip.compress(context({"p/q": "q" * 3000, "p/r": None}), 1),
        }
        for name, content in self.files.items():
            path = os.path.join(self.context, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
        self.tag = f"{registry}/out:1"

    def own(self, engine: Engine, cache: str = "", **fields: Any) -> Told:
        """Build by `POST /ketch/build`: the context in place, pushed, its cache written to a directory."""
        with contextlib.ExitStack() as stack:
            cache = cache or os.path.join(self.place, "cache")
            os.makedirs(cache, exist_ok=True)
            line = {
                "dockerfile": None,
                "directories": {"context": handed(self.context, stack)},
                "buildargs": {"SOURCE_DATE_EPOCH": str(EPOCH)},
                "outputs": [
                    {"type": "image", "attrs": {"name": self.tag, "push": "true", "rewrite-timestamp": "true"}}
                ],
                "cache_to": [{"type": "local", "attrs": {"dest": handed(cache, stack), "mode": "max"}}],
                **fields,
            }
            return told(engine, "/ketch/build", json.dumps(line).encode() + b"\n")

    def classic(self, engine: Engine, **query: str) -> Told:
        """Build by the old API: the context as a tar."""
        asked = {"t": self.tag, "buildargs": json.dumps({"SOURCE_DATE_EPOCH": str(EPOCH)}), **query}
        return told(engine, f"/build?{urlencode(asked)}", context(self.files))


@contextlib.contextmanager
def whole_build(place: str) -> Iterator[WholeBuild]:
    """The build with its registry and its web server."""
    with contextlib.ExitStack() as stack:
        registry = stack.enter_context(ours())
        with open("/bin/busybox", "rb") as f:
            shell = f.read()
        made_images.put(registry.host, "base", made_images.image({"bin/sh": shell}, {"etc/passwd": b""}), "1")
        web = stack.enter_context(served({"/file": b"web\n"}))
        yield WholeBuild(place, registry.host, web)


def handed(directory: str, stack: contextlib.ExitStack) -> str:
    """A directory of this process, as requests name it, open as long as the stack."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    stack.callback(os.close, fd)
    status = os.fstat(fd)
    return f"fd:{fd}:{status.st_dev}:{status.st_ino}"


def told(engine: Engine, path: str, body: bytes) -> Told:
    """The answer to a build."""
    connection = Unix(engine.socket, 60)
    answer, data, broken = None, b"", False
    try:
        connection.request("POST", path, body, {"Content-Type": "application/x-tar"})
        answer = connection.getresponse()
        data = answer.read()
    except http.client.IncompleteRead as e:
        data, broken = e.partial, True
    except (OSError, http.client.HTTPException):
        broken = True
    finally:
        connection.close()
    return Told(answer.status if answer else 0, _lines(data), broken)


def _lines(data: bytes) -> list[Any]:
    found = []
    for line in data.splitlines():
        with contextlib.suppress(ValueError):  # the last one of a connection that broke off
            found.append(json.loads(line))
    return found


# -- what was built --------------------------------------------------------------------------------


class Built(NamedTuple):
    """An image as far as it does not depend on when it was built; its id, which does."""

    config: dict[str, Any]
    files: dict[str, tuple[Any, ...]]
    id: str


def built(engine: Engine, name: str) -> Built:
    """An image: its configuration and all of its files."""
    api = Api(engine.socket)
    image = api.must("GET", f"/images/{name}/json")["Id"]
    status, archive = api("GET", f"/images/{name}/get", timeout=60)
    assert status == 200, archive
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        [manifest] = json.load(tar.extractfile("manifest.json"))
        config = json.load(tar.extractfile(manifest["Config"]))
        files: dict[str, tuple[Any, ...]] = {}
        for layer in manifest["Layers"]:
            with tarfile.open(fileobj=tar.extractfile(layer)) as one:
                _lay(files, one)
    return Built({name: config.get(name) for name in _SHOWN}, files, image)


def _lay(files: dict[str, tuple[Any, ...]], layer: tarfile.TarFile) -> None:
    """Put a layer over a tree."""
    members = layer.getmembers()
    for member in members:
        directory, _, name = member.name.rpartition("/")
        if name.startswith(".wh."):
            gone = directory if name == ".wh..wh..opq" else f"{directory}/{name[4:]}".lstrip("/")
            for path in [one for one in files if one.startswith(f"{gone}/") or (one == gone != directory)]:
                del files[path]
    for member in members:
        if member.islnk():
            files[member.name] = files[member.linkname]
        elif not member.name.rpartition("/")[2].startswith(".wh."):
            content = hashlib.sha256(layer.extractfile(member).read()).hexdigest() if member.isreg() else ""
            files[member.name] = (member.type, oct(member.mode), member.uid, member.gid, content, member.linkname)


# -- what was cached -------------------------------------------------------------------------------


class Steps(NamedTuple):
    """The steps of a build by their names: those that were found in the cache, and those that ran."""

    cached: set[str]
    ran: set[str]


def steps(engine: Engine) -> Steps:
    """Of the last build, but for what is looked for again each time: images, and files of the web."""
    api = Api(engine.socket)
    ref = api.must("GET", "/ketch/builds")[0]["ref"]
    _, text = api("GET", f"/ketch/builds/{ref}/logs")
    ended = {}
    for line in _lines(text) if isinstance(text, bytes) else [text]:
        for one in line["status"].get("vertexes", ()):
            if one.get("completed") and not one.get("error") and _STEP.match(one["name"]):
                ended[one["name"]] = bool(one.get("cached"))
    return Steps({name for name, cached in ended.items() if cached}, {n for n, cached in ended.items() if not cached})
