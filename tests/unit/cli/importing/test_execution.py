"""Plans carried out, of images: against a ketchd and a Docker that are no more than lists."""

from __future__ import annotations

import errno
import json
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from ketch.cli.importing.execution import Execution
from ketch.cli.importing.ours import Ours
from ketch.cli.importing.plan import Planner, Wish
from ketch.cli.importing.source import Unreadable
from ketch.errors import DataLoss, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

ROOT, NONROOT = {"Cmd": ["serve"]}, {"Cmd": ["serve"], "User": "65532"}


def facts(ident: str, config: dict) -> dict:
    """An image's facts; layers and times are the same in all."""
    created = "1970-01-01T00:00:00Z"
    return {"Id": ident, "Created": created, "Architecture": "amd64", "RootFS": {"Layers": ["l"]}, "Config": config}


class Docker:
    """A Docker of images, by names that begin with their ids; ``damage`` is what an archive of one does."""

    here, runs = True, False

    def __init__(self, **configs: dict) -> None:
        self._configs = configs
        self.unreadable = Unreadable()
        self.damage: dict[str, Callable[[], Iterator[bytes]]] = {}

    def images(self) -> list[dict]:
        return [{"Id": ident, "RepoTags": [f"{ident}:1"]} for ident in self._configs]

    def image(self, ident: str) -> dict:
        return facts(ident, self._configs[ident])

    def archive(self, ident: str, names: list[str]) -> Iterator[bytes]:
        if ident in self.damage:
            yield from self.damage[ident]()
        yield json.dumps({"names": names, "facts": facts(f"k-{ident}", self._configs[ident])}).encode()

    def nothing(self) -> list[dict]:
        return []

    containers = volumes = networks = nothing

    def volume_sizes(self) -> dict[str, int]:
        return {}


class Engine:
    """A client of a ketchd that has images; archives are what the Docker above makes."""

    host = "unix:///run/ketch.sock"

    def __init__(self, **configs: dict) -> None:
        self.images = {f"k-{ident}": facts(f"k-{ident}", config) for ident, config in configs.items()}
        self.names = {f"{ident}:1": f"k-{ident}" for ident in configs}

    def request(self, method: str, path: str, query: dict | None = None, _body: object = None) -> SimpleNamespace:
        words = path.split("/")
        if method == "POST":
            self.names[f"{query['repo']}:{query['tag']}"] = words[2]
            answer: object = None
        elif path == "/images/json":
            answer = [
                {"Id": ident, "RepoTags": [name for name, one in self.names.items() if one == ident]}
                for ident in self.images
            ]
        else:
            answer = self.images[words[2]] if words[1] == "images" else []
        return SimpleNamespace(json=lambda: answer)

    def upload(self, _method: str, _path: str, body: Iterable[bytes], _query: dict) -> SimpleNamespace:
        loaded = json.loads(b"".join(body))
        self.images[loaded["facts"]["Id"]] = loaded["facts"]
        self.names |= dict.fromkeys(loaded["names"], loaded["facts"]["Id"])
        return SimpleNamespace(stream_lines=lambda: iter([{"stream": "Loaded image: x\n"}]))


def nothing_shown() -> SimpleNamespace:
    return SimpleNamespace(moved=lambda *_: None, clear=lambda: None)


def carried_out(docker: Docker, engine: Engine, meanwhile: Callable[[], None] = lambda: None) -> dict[str, str]:
    """What came of each part; ``meanwhile`` is between the plan and its first step."""
    ours = Ours(engine)
    planner = Planner(docker, ours, Wish())
    parts = planner.parts()
    meanwhile()
    results = Execution(SimpleNamespace(), docker, ours, planner, nothing_shown).run(parts, lambda _: None)
    return {part.name: f"{part.action}: {part.note}" if part.note else part.action for part in results}


def test_images_that_differ_in_their_users_alone_are_two():
    engine = Engine(latest=ROOT)
    assert carried_out(Docker(nonroot=NONROOT), engine) == {"nonroot:1": "imported"}
    assert engine.images[engine.names["nonroot:1"]]["Config"]["User"] == "65532"
    assert engine.names["latest:1"] == "k-latest"


def test_an_image_that_is_there_gets_another_name():
    engine = Engine(latest=ROOT)
    assert carried_out(Docker(other=ROOT), engine) == {"other:1": "imported"}
    assert engine.names == {"latest:1": "k-latest", "other:1": "k-latest"}
    assert carried_out(Docker(other=ROOT), engine) == {"other:1": "there"}


@pytest.mark.parametrize("is_there", [False, True])
def test_a_name_that_was_given_since_the_plan_stays(is_there: bool):
    engine = Engine(mine={"Cmd": ["mine"]}, **({"same": ROOT} if is_there else {}))
    found = carried_out(Docker(theirs=ROOT), engine, lambda: engine.names.update({"theirs:1": "k-mine"}))
    assert found == {"theirs:1": "failed: in Ketch theirs:1 is another image by now"}
    assert engine.names["theirs:1"] == "k-mine"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/tmp/x"), "No space left on device: `/tmp/x`"),
        (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), "Connection reset by peer"),
        (Unavailable("the daemon's answer broke off", hint="look at its log"), "the daemon's answer broke off ("),
    ],
)
def test_a_failure_stops_nothing_else(error: Exception, told: str):
    def broken() -> Iterator[bytes]:
        yield b""
        raise error

    docker, engine = Docker(bad=ROOT, good=NONROOT), Engine()
    docker.damage["bad"] = broken
    with docker.unreadable.noted("network", "n"):
        raise DataLoss("read n: it is damaged")
    found = carried_out(docker, engine)
    assert found.pop("n") == "failed: read n: it is damaged"
    assert found.pop("bad:1").startswith(f"failed: {told}")
    assert found == {"good:1": "imported"} and list(engine.images) == ["k-good"]
