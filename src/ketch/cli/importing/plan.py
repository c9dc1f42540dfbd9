"""The plan of an import: what Docker has, and what becomes of each part of it in Ketch."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from ketch.cli.importing import bodies
from ketch.cli.importing.likeness import likeness
from ketch.cli.importing.source import CONTAINER, IMAGE, NETWORK, VOLUME
from ketch.cli.importing.volumes import remapped
from ketch.errors import Conflict, KetchError, NotFound, PermissionDenied, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ketch.cli.importing.ours import Ours
    from ketch.cli.importing.source import Docker
    from ketch.notation.api_objects import ApiObject

    Key = tuple[str, str]  # kind, and name or Docker's id

IMPORT, THERE, SKIPPED, UNREADABLE = "import", "there", "skipped", "unreadable"
_DRIVERS = ("bridge", "macvlan", "ipvlan")
_OF_ALL_IN_KETCH = (Unavailable, PermissionDenied)  # errors that concern all parts
_TASK = "com.docker.swarm.task.id"
_ELSEWHERE = "Docker and ketchd are not both on this machine: copy its files with tar and ketch volume restore"
_OF_SWARMS = "docker_gwbridge"  # which dockerd makes by itself, for networks of a swarm
_SAME_SUBNET = "Docker's has the same subnet: stop Docker before containers start there"


class Wish(NamedTuple):
    """The wish of a user: these containers and what they need (none: all there is), without some kinds.

    ``bind``: volumes stay where Docker has them. ``changes``: with what containers wrote into their roots.
    """

    containers: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    bind: bool = False
    changes: bool = False


class Part(NamedTuple):
    """One part of the plan; ``action``: ``import``, ``there`` (nothing to do), ``skipped`` or ``unreadable``.

    The note says why, and begins with "in Ketch" where it is Ketch that cannot tell.  ``key`` is by what others need
    it, ``needs`` are the keys of these.
    """

    key: Key
    name: str
    action: str
    facts: ApiObject
    size: int = -1
    note: str = ""
    needs: frozenset[Key] = frozenset()

    @property
    def kind(self) -> str:
        """The kind, one of `KINDS`."""
        return self.key[0]


def _subnets(network: ApiObject) -> set[str]:
    """The subnets that are named; Docker has empty ones in settings for other networks."""
    return {pool["Subnet"] for pool in network["IPAM"]["Config"] or () if pool.get("Subnet")}


def _judged(judge: Callable[[], tuple[str, str]]) -> tuple[str, str]:
    """The action and the note that ``judge`` says; where Ketch cannot tell what it has, that."""
    try:
        return judge()
    except _OF_ALL_IN_KETCH:
        raise
    except KetchError as e:
        return UNREADABLE, f"in Ketch: {e.message}" + (f" ({e.hint})" if e.hint else "")


class Planner:
    """Plans an import out of ``source`` into ``ours`` (NotFound, Conflict: what is wanted is not one container)."""

    def __init__(self, source: Docker, ours: Ours, wish: Wish) -> None:
        self._source, self._ours, self.wish = source, ours, wish
        self._named: dict[str, list[str]] = {}  # the names of images by id
        self._containers = source.containers()
        self._names = {facts["Id"]: facts["Name"].lstrip("/") for facts in self._containers}
        self._check_wanted()
        self._wanted = self._chosen()

    def name_of(self, ref: str) -> str:
        """A container's name, by its id, its name, or the beginning of one id alone; what is none of it stays."""
        if ref in self._names.values():
            return ref
        names = self._begun(ref)
        return names[0] if len(names) == 1 else ref

    def _begun(self, ref: str) -> list[str]:
        """The names of the containers whose ids begin so."""
        return [name for ident, name in self._names.items() if ref and ident.startswith(ref)]

    def _check_wanted(self) -> None:
        """Raise NotFound or Conflict for the first word that is not exactly one container's."""
        for word in self.wish.containers:
            if self.name_of(word) in self._names.values():
                continue
            if names := self._begun(word):
                what = f"import container {word}: the ids of several begin so: {', '.join(sorted(names))}"
                raise Conflict(what, hint="say the name, or more of the id")
            unreadable = [name for kind, name in self._source.unreadable.reasons if kind == CONTAINER]
            hint = f"of those that it has, {', '.join(unreadable)} cannot be read" if unreadable else None
            raise NotFound(f"import container {word}: Docker has none of this name", hint=hint)

    def parts(self) -> list[Part]:
        """All parts, in the order in which they can be made."""
        made = [*self._images(), *self._networks(), *self._volumes()]
        made = [part for part in made if part.kind not in self.wish.without]
        containers = self._made_of(made) if CONTAINER not in self.wish.without else []
        return [*self._unreadable(), *made, *containers]

    def _unreadable(self) -> Iterable[Part]:
        """The parts that are wanted and cannot be read; of a database with all of a kind the name is its path."""
        needed = {key for facts in self._wanted for key in self._needs(facts)}
        called = {facts["Image"]: facts["Config"]["Image"] for facts in self._wanted}
        for key, reason in self._source.unreadable.reasons.items():
            kind, name = key
            if kind not in self.wish.without and (not self.wish.containers or "/" in name or key in needed):
                shown = self._shown(name, called.get(name, name)) if kind == IMAGE else name
                yield Part(key, shown, UNREADABLE, {}, note=reason)

    def _shown(self, image_id: str, called: str) -> str:
        """An image's names; of one without names what it is called elsewhere, of an id the beginning."""
        if names := self._named.get(image_id):
            return ", ".join(names)
        return called.removeprefix("sha256:")[:12] if called.startswith("sha256:") else called

    def _chosen(self) -> list[ApiObject]:
        """The containers that are wanted, with those that they need."""
        if not self.wish.containers:
            return self._containers
        names = {self.name_of(name) for name in self.wish.containers}
        more = names
        while more:
            more = {
                other
                for facts in self._containers
                if facts["Name"].lstrip("/") in more
                for other in bodies.containers_needed(facts, self.name_of)
            } - names
            names |= more
        return [facts for facts in self._containers if facts["Name"].lstrip("/") in names]

    def _images(self) -> Iterable[Part]:
        used = {facts["Image"] for facts in self._wanted}
        lacking = {part["Image"] for part in self._wanted if not self._ours.has_container(part["Name"].lstrip("/"))}
        rows = self._source.images()
        self._named = {row["Id"]: sorted(set(row.get("RepoTags") or ()) - {"<none>:<none>"}) for row in rows}
        for ident in [*self._named, *sorted(lacking - self._named.keys())]:
            names = self._named.get(ident, [])
            if (ident in used or (names and not self.wish.containers)) and (facts := self._facts_of(ident)):
                yield self._image(facts, names, used=ident in used)

    def _facts_of(self, image_id: str) -> ApiObject | None:
        """The facts of an image of Docker's; None: they cannot be read."""
        with self._source.unreadable.noted(IMAGE, image_id):
            return self._source.image(image_id)
        return None

    def _image(self, facts: ApiObject, names: list[str], *, used: bool) -> Part:
        alike = likeness(facts)
        taken = [name for name in names if self._ours.image_named(name) not in (None, alike)]
        free = [name for name in names if self._ours.image_named(name) is None]
        note = f"in Ketch {', '.join(taken)} is another image" if taken else ""
        action = IMPORT if free or (used and not self._ours.has_image(alike)) else THERE
        if action == THERE and taken and not self._ours.has_image(alike):
            action = SKIPPED
        key = (IMAGE, facts["Id"])
        return Part(
            key,
            self._shown(facts["Id"], facts["Id"]),
            action,
            {**facts, "Free": free, "Taken": taken},
            facts.get("Size", -1),
            note,
        )

    def _networks(self) -> Iterable[Part]:
        used = {name for facts in self._wanted for name in bodies.networks_needed(facts)}
        found = self._source.networks()
        used |= {bodies.config_from(facts) for facts in found if facts["Name"] in used}
        # Those whose settings others take come first.
        for facts in sorted(found, key=lambda facts: (not facts.get("ConfigOnly"), str(facts["Name"]))):
            name = facts["Name"]
            if name in (*bodies.PREDEFINED, _OF_SWARMS) or (self.wish.containers and name not in used):
                continue
            action, note = _judged(partial(self._network, facts))
            template = bodies.config_from(facts)
            needs = frozenset([(NETWORK, template)] if template else [])
            yield Part((NETWORK, name), name, action, facts, note=note, needs=needs)

    def _network(self, facts: ApiObject) -> tuple[str, str]:
        is_template = facts.get("ConfigOnly")
        if (facts["Driver"] not in _DRIVERS and not is_template) or facts.get("Scope") != "local":
            return SKIPPED, f"Ketch has no networks of the driver {facts['Driver']} (scope {facts.get('Scope')})"
        ours = self._ours.network(facts["Name"])
        if ours is None:
            return IMPORT, _SAME_SUBNET if self._source.runs and self._ours.here and not is_template else ""
        if bool(ours.get("ConfigOnly")) != bool(is_template):
            return THERE, f"in Ketch it is {'no ' if is_template else ''}settings for others"
        same = (is_template or ours["Driver"] == facts["Driver"]) and _subnets(ours) == _subnets(facts)
        return THERE, "" if same else "in Ketch it has another driver or subnet"

    def _volumes(self) -> Iterable[Part]:
        users: dict[str, list[str]] = {}
        for facts in self._wanted:
            for name in bodies.volumes_needed(facts):
                users.setdefault(name, []).extend([facts["Name"].lstrip("/")] * bool(facts["State"]["Running"]))
        sizes = self._source.volume_sizes()
        for facts in sorted(self._source.volumes(), key=lambda facts: str(facts["Name"])):
            name = facts["Name"]
            if self.wish.containers and name not in users:
                continue
            size = sizes.get(name, -1)
            action, note = _judged(partial(self._volume, facts, size, users.get(name) or []))
            yield Part((VOLUME, name), name, action, facts, size, note)

    def _volume(self, facts: ApiObject, size: int, running: list[str]) -> tuple[str, str]:
        if facts["Driver"] != "local":
            return SKIPPED, f"its driver {facts['Driver']} is a plugin of Docker's"
        ours = self._ours.volume(facts["Name"])
        if facts.get("Options"):
            same = ours is None or (ours.get("Options") or {}) == facts["Options"]
            return (IMPORT if ours is None else THERE), "" if same else "in Ketch it has other options"
        if not (self._source.here and self._ours.here):
            return SKIPPED, _ELSEWHERE
        if ours is not None:
            try:
                if size == 0 or ours.get("Options") or not self._ours.is_unfilled(facts["Name"]):
                    return THERE, ""
            except Conflict:
                return THERE, "in Ketch somebody is filling it"
        if self.wish.bind:
            if ours is not None:
                return SKIPPED, "in Ketch it is there, and empty: remove it there first"
            first = remapped(facts["Mountpoint"]).partition(":")[0]
            theirs = f"; its files belong to ids from {first} on, as Docker's --userns-remap has them" if first else ""
            return IMPORT, f"stays in {facts['Mountpoint']}{theirs}"
        notes = ["in Ketch it is there, and empty"] * (ours is not None)
        if remapped(facts["Mountpoint"]):
            notes.append("its files get the owners that they have in containers")
        notes += [f"in use by {', '.join(sorted(running))}: stop it first for a consistent copy"] * bool(running)
        return IMPORT, "; ".join(notes)

    def _made_of(self, parts: list[Part]) -> list[Part]:
        """The parts of the containers, each behind those that it needs."""
        waiting = [self._container(facts) for facts in reversed(self._wanted)]  # Docker's list begins with the newest
        available = {part.key for part in parts if part.action not in (SKIPPED, UNREADABLE)} | self._kept()
        ordered: list[Part] = []
        while waiting:
            names = {part.key for part in waiting}
            # Of a circle one is taken: it is skipped, and so are the others.
            ready = [part for part in waiting if not part.needs & names] or waiting[:1]
            for part in ready:
                missing = sorted(f"{kind} {name}" for kind, name in part.needs - available)
                if missing and part.action == IMPORT:
                    part = part._replace(action=SKIPPED, note=f"it needs {', '.join(missing)}")
                if part.action != SKIPPED:
                    available.add(part.key)
                ordered.append(part)
            waiting = [part for part in waiting if part.key not in {one.key for one in ready}]
        return ordered

    def _kept(self) -> set[Key]:
        """The parts that Ketch has of the kinds that are left out."""
        kept: set[Key] = set()
        if VOLUME in self.wish.without:
            kept |= {(VOLUME, name) for name in self._ours.volume_names()}
        if NETWORK in self.wish.without:
            kept |= {(NETWORK, name) for name in self._ours.network_names()}
        if IMAGE in self.wish.without:
            for row in self._source.images():
                if (facts := self._facts_of(row["Id"])) and self._ours.has_image(likeness(facts)):
                    kept.add((IMAGE, row["Id"]))
        return kept

    def _needs(self, facts: ApiObject) -> frozenset[Key]:
        """The keys of what a container needs."""
        return frozenset(
            [
                (IMAGE, facts["Image"]),
                *((NETWORK, name) for name in bodies.networks_needed(facts)),
                *((VOLUME, name) for name in bodies.volumes_needed(facts)),
                *((CONTAINER, name) for name in bodies.containers_needed(facts, self.name_of)),
            ]
        )

    def _container(self, facts: ApiObject) -> Part:
        name = facts["Name"].lstrip("/")
        needs = self._needs(facts)
        if self._ours.has_container(name):
            return Part((CONTAINER, name), name, THERE, facts, needs=needs)
        if _TASK in (facts["Config"].get("Labels") or {}):
            return Part((CONTAINER, name), name, SKIPPED, facts, note="it is a task of a swarm's service")
        note = "runs in Docker" if facts["State"]["Running"] else ""
        return Part((CONTAINER, name), name, IMPORT, facts, note=note, needs=needs)
