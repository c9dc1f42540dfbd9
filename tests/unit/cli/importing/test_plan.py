"""What becomes of each part of a Docker, as far as no daemon is needed to tell."""

from __future__ import annotations

import pytest

from ketch.cli.importing.plan import Planner, Wish
from ketch.cli.importing.source import CONTAINER, IMAGE, NETWORK, VOLUME, Unreadable
from ketch.errors import Conflict, DataLoss, KetchError, NotFound, Unavailable
from tests.support.importing.nothing import Nothing


def container(name: str, *needs: str, labels: dict | None = None, image: str = "one") -> dict:
    volumes = [
        {"Type": "volume", "Name": need[7:], "Destination": "/" + need} for need in needs if need[:7] == "volume:"
    ]
    others = [need for need in needs if ":" not in need]
    return {
        "Id": name * 4,
        "Name": f"/{name}",
        "Image": image,
        "State": {"Running": False},
        "Config": {"Image": image, "Labels": labels},
        "HostConfig": {"NetworkMode": "none", "VolumesFrom": others},
        "Mounts": volumes,
    }


class Docker:
    """A Docker of these containers, one image, and volumes."""

    here, runs = True, False

    def __init__(self, containers: list[dict], volumes: list[dict] | None = None, networks: list[dict] | None = None):
        self._containers, self._volumes, self._networks = containers, volumes or [], networks or []
        self.unreadable = Unreadable()

    def images(self) -> list[dict]:
        return [{"Id": "one", "RepoTags": ["one:latest"]}, {"Id": "unused", "RepoTags": []}]

    def image(self, ident: str) -> dict:
        return {"Id": ident, "Created": ident, "Architecture": "amd64", "RootFS": {"Layers": [ident]}, "Size": 7}

    def volumes(self) -> list[dict]:
        return self._volumes

    def volume_sizes(self) -> dict[str, int]:
        return {}

    def networks(self) -> list[dict]:
        return self._networks

    def containers(self) -> list[dict]:
        return self._containers[::-1]


class EmptyVolume(Nothing):
    """A Ketch that has an empty volume of each name."""

    def volume(self, name: str) -> dict:
        return {"Name": name, "Options": {}}

    def is_unfilled(self, _name: str) -> bool:
        return True


def unreadable(*keys: tuple[str, str], of: Docker) -> Docker:
    """The same Docker, in which these parts cannot be read."""
    for kind, name in keys:
        with of.unreadable.noted(kind, name):
            raise DataLoss(f"read {name}: it is damaged", hint="mend it")
    return of


def plan(docker: Docker, wish: Wish | None = None, ours: Nothing | None = None) -> dict[str, str]:
    """The actions by name, with the note of what is skipped, in the plan's order."""
    parts = Planner(docker, ours or Nothing(), wish or Wish()).parts()
    return {part.name: part.action + (f": {part.note}" if part.action == "skipped" else "") for part in parts}


def local(name: str, driver: str = "local") -> dict:
    return {"Name": name, "Driver": driver, "Mountpoint": f"/volumes/{name}/_data", "Options": None}


def test_containers_come_behind_those_that_they_need():
    docker = Docker([container("c", "b"), container("b", "a"), container("a")])
    assert list(plan(docker)) == ["one:latest", "a", "b", "c"]


def test_a_circle_is_skipped():
    found = plan(Docker([container("a", "b"), container("b", "a"), container("c")]))
    assert found["c"] == "import"
    assert sorted(found[name] for name in "ab") == ["skipped: it needs container a", "skipped: it needs container b"]


def test_what_needs_something_that_cannot_be_had_is_skipped():
    docker = Docker([container("a", "volume:v"), container("b", "a"), container("c")], [local("v", "vendor/plugin")])
    assert plan(docker) == {
        "one:latest": "import",
        "v": "skipped: its driver vendor/plugin is a plugin of Docker's",
        "a": "skipped: it needs volume v",
        "b": "skipped: it needs container a",
        "c": "import",
    }


@pytest.mark.parametrize(
    ("driver", "scope", "action"),
    [
        ("bridge", "local", "import"),
        ("macvlan", "local", "import"),
        ("overlay", "swarm", "skipped: Ketch has no networks of the driver overlay (scope swarm)"),
        ("weave", "local", "skipped: Ketch has no networks of the driver weave (scope local)"),
    ],
)
def test_networks(driver: str, scope: str, action: str):
    docker = Docker([], networks=[{"Name": "n", "Driver": driver, "Scope": scope}, {"Name": "host", "Driver": "host"}])
    assert plan(docker)["n"] == action
    assert "host" not in plan(docker)


def test_networks_whose_settings_others_take_come_first():
    template = {"Name": "t", "Driver": "null", "Scope": "local", "ConfigOnly": True}
    network = {"Name": "n", "Driver": "bridge", "Scope": "local", "ConfigFrom": {"Network": "t"}}
    one = container("a")
    one["HostConfig"]["NetworkMode"] = "n"
    one["NetworkSettings"] = {"Networks": {"n": {}}}
    docker = Docker([one], networks=[network, {**template, "Name": "other"}, template])
    assert list(plan(docker, Wish(containers=("a",)))) == ["one:latest", "t", "n", "a"]
    assert list(plan(docker)) == ["one:latest", "other", "t", "n", "a"]


def test_named_containers_bring_what_they_need_alone():
    docker = Docker([container("a", "volume:v"), container("b", "a"), container("c")], [local("v"), local("w")])
    assert list(plan(docker, Wish(containers=("b",)))) == ["one:latest", "v", "a", "b"]


def test_kinds_that_are_left_out():
    docker = Docker([container("a", "volume:v")], [local("v")])
    assert plan(docker, Wish(without=("volume",))) == {"one:latest": "import", "a": "skipped: it needs volume v"}
    assert plan(docker, Wish(without=("container", "image"))) == {"v": "import"}


def test_tasks_of_a_swarm_are_skipped():
    docker = Docker([container("a", labels={"com.docker.swarm.task.id": "x"})])
    assert plan(docker)["a"] == "skipped: it is a task of a swarm's service"


def test_files_do_not_come_from_one_machine_to_another():
    ours = Nothing()
    ours.here = False
    optional = {**local("o"), "Options": {"type": "tmpfs"}}
    for bind in (False, True):
        found = plan(Docker([container("a", "volume:v")], [local("v"), optional]), Wish(bind=bind), ours)
        assert "not both on this machine" in found["v"] and found["a"] == "skipped: it needs volume v"
        assert found["o"] == "import"


def test_an_empty_volume_is_filled_and_said():
    (part,) = Planner(Docker([], [local("v")]), EmptyVolume(), Wish(without=("image",))).parts()
    assert (part.action, part.note) == ("import", "in Ketch it is there, and empty")


def test_what_becomes_of_the_owners_in_a_docker_that_remaps_users_is_said():
    for place, note in (
        ("165536.165536/", "its files get the owners that they have in cont"),
        ("1.2.3/", ""),
        ("", ""),
    ):
        volume = {**local("v"), "Mountpoint": f"/var/lib/docker/{place}volumes/v/_data"}
        (part,) = Planner(Docker([], [volume]), Nothing(), Wish(without=("image",))).parts()
        assert part.action == "import" and part.note.startswith(note) and bool(part.note) == bool(note)
        (part,) = Planner(Docker([], [volume]), Nothing(), Wish(without=("image",), bind=True)).parts()
        assert ("belong to ids from 165536 on" in part.note) == bool(note)


def test_an_empty_volume_cannot_become_one_that_shows_dockers_files():
    found = plan(Docker([container("a", "volume:v")], [local("v")]), Wish(bind=True), EmptyVolume())
    assert found["v"].startswith("skipped: in Ketch it is there") and found["a"] == "skipped: it needs volume v"


DAMAGED = [(IMAGE, "/x/repositories.json"), (VOLUME, "v"), (NETWORK, "n"), (CONTAINER, "lost")]


def test_what_cannot_be_read_is_named_and_what_needs_it_is_skipped():
    docker = unreadable(*DAMAGED, of=Docker([container("a", "volume:v"), container("b")]))
    assert plan(docker) == {
        "/x/repositories.json": "unreadable",
        "v": "unreadable",
        "n": "unreadable",
        "lost": "unreadable",
        "one:latest": "import",
        "a": "skipped: it needs volume v",
        "b": "import",
    }
    (part,) = Planner(docker, Nothing(), Wish(without=(IMAGE, NETWORK, CONTAINER))).parts()
    assert (part.name, part.note) == ("v", "read v: it is damaged (mend it)")


def test_of_what_cannot_be_read_only_that_counts_which_a_wanted_container_needs():
    docker = unreadable(*DAMAGED, of=Docker([container("a", "volume:v"), container("b")]))
    assert set(plan(docker, Wish(containers=("a",)))) == {"/x/repositories.json", "v", "one:latest", "a"}
    assert set(plan(docker, Wish(containers=("b",)))) == {"/x/repositories.json", "one:latest", "b"}
    with pytest.raises(NotFound) as raised:
        plan(docker, Wish(containers=("lost",)))
    assert raised.value.hint == "of those that it has, lost cannot be read"


class Damaged(Docker):
    """A Docker whose image ``bad`` cannot be read, or whose daemon is going away."""

    error: KetchError = DataLoss("read sha256:bad: it is damaged")

    def images(self) -> list[dict]:
        return [*super().images(), {"Id": "bad", "RepoTags": ["bad:1", "bad:2"]}]

    def image(self, ident: str) -> dict:
        if ident != "one":
            raise self.error
        return super().image(ident)


@pytest.mark.parametrize("image", ["bad", "removed"])
def test_an_image_that_cannot_be_read(image: str):
    """Also one that is not in the list, as after ``docker rmi -f``."""
    found = plan(Damaged([container("a", image=image), container("b")]))
    assert found.pop("bad:1, bad:2") == "unreadable" and found.pop("removed", "unreadable") == "unreadable"
    assert found == {"one:latest": "import", "a": f"skipped: it needs image {image}", "b": "import"}
    there = Nothing()
    there.has_container = lambda _name: True
    wanted = {"one:latest", "bad:1, bad:2", "a", "b"}  # a container that is there needs no image any more
    assert set(plan(Damaged([container("a", image=image), container("b")]), ours=there)) == wanted


def test_an_error_that_concerns_everything_ends_the_plan():
    docker = Damaged([])
    docker.error = Unavailable("no daemon answers")
    with pytest.raises(Unavailable):
        plan(docker)


def test_a_volume_that_somebody_fills_is_left_to_them():
    ours = EmptyVolume()

    def is_unfilled(name: str) -> bool:
        raise Conflict(f"get {name}: the volume is being restored")

    ours.is_unfilled = is_unfilled
    (part,) = Planner(Docker([], [local("v")]), ours, Wish(without=("image",))).parts()
    assert (part.action, part.note) == ("there", "in Ketch somebody is filling it")


def one_of(word: str) -> list[str]:
    """The containers that are imported for this word, of two whose ids begin alike."""
    first, second = container("victim"), container("other")
    first["Id"], second["Id"] = "db1" + "0" * 61, "db2" + "0" * 61
    parts = Planner(Docker([first, second]), Nothing(), Wish(containers=(word,), without=("image",))).parts()
    return [part.name for part in parts]


@pytest.mark.parametrize(("word", "wanted"), [("victim", "victim"), ("db1", "victim"), ("db2" + "0" * 61, "other")])
def test_a_word_is_a_name_or_the_beginning_of_an_id(word: str, wanted: str):
    assert one_of(word) == [wanted]


@pytest.mark.parametrize(
    ("word", "error", "why"),
    [("db", Conflict, "several begin so: other, victim"), ("", NotFound, "none"), ("web", NotFound, "none")],
)
def test_a_word_that_is_not_one_container(word: str, error: type[KetchError], why: str):
    with pytest.raises(error, match=why):
        one_of(word)


def test_the_network_of_a_swarms_docker_is_skipped_out():
    bridge = {"Name": "docker_gwbridge", "Driver": "bridge", "Scope": "local"}
    one = container("a")
    one["HostConfig"]["NetworkMode"] = "docker_gwbridge"
    one["NetworkSettings"] = {"Networks": {"docker_gwbridge": {}}}
    found = plan(Docker([one], networks=[bridge]))
    assert found == {"one:latest": "import", "a": "skipped: it needs network docker_gwbridge"}


class Failing(EmptyVolume):
    """A Ketch that cannot tell of a volume and a network."""

    def volume(self, name: str) -> dict | None:
        if name == "v":
            raise DataLoss("inspect volume v: its record is damaged", hint="repair it")
        return None

    def network(self, name: str) -> None:
        if name == "n":
            raise DataLoss("list networks: a record is damaged")


def test_an_error_of_ketchs_own_is_told_as_its_own():
    docker = Docker(
        [container("a", "volume:v"), container("b")],
        [local("v"), local("w")],
        [{"Name": name, "Driver": "bridge", "Scope": "local"} for name in "nm"],
    )
    parts = {part.name: part for part in Planner(docker, Failing(), Wish()).parts()}
    assert parts["v"].note == "in Ketch: inspect volume v: its record is damaged (repair it)"
    assert parts["n"].note == "in Ketch: list networks: a record is damaged"
    found = {name: part.action for name, part in parts.items() if part.kind != IMAGE}
    assert found == {"v": "unreadable", "n": "unreadable", "w": "import", "m": "import", "a": "skipped", "b": "import"}
    assert docker.unreadable.reasons == {}


def test_settings_for_others_are_compared_without_what_is_not_set():
    """Docker's own have the driver `null`, and an empty subnet."""
    ours, empty = Nothing(), {"Config": [{"Subnet": None, "Gateway": ""}]}
    ours.network = lambda name: {"Name": name, "Driver": "bridge", "IPAM": {"Config": None}, "ConfigOnly": True}
    template = {"Name": "t", "Driver": "null", "Scope": "local", "ConfigOnly": True, "IPAM": empty}
    (part,) = Planner(Docker([], networks=[template]), ours, Wish(without=(IMAGE,))).parts()
    assert (part.action, part.note) == ("there", "")
    network = {**template, "Driver": "bridge", "ConfigOnly": False}
    (part,) = Planner(Docker([], networks=[network]), ours, Wish(without=(IMAGE,))).parts()
    assert (part.action, part.note) == ("there", "in Ketch it is settings for others")
