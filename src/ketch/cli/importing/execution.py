"""An import carried out: each part of a plan, one after the other; one that fails stops none but those that need it."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from ketch.cli.image_names import split_tag
from ketch.cli.importing import bodies, volumes, written
from ketch.cli.importing.likeness import likeness
from ketch.cli.importing.plan import IMPORT, SKIPPED, UNREADABLE
from ketch.cli.importing.source import CONTAINER, IMAGE, NETWORK, VOLUME
from ketch.client.errors import error_of
from ketch.errors import AlreadyExists, KetchError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ketch.cli.context import Context
    from ketch.cli.importing.ours import Ours
    from ketch.cli.importing.plan import Key, Part, Planner
    from ketch.cli.importing.source import Docker
    from ketch.cli.output.progress import Progress
    from ketch.notation.api_objects import ApiObject

IMPORTED, FAILED = "imported", "failed"


class Execution:
    """Makes in ``ours`` what a plan says, out of ``source``."""

    def __init__(
        self, ctx: Context, source: Docker, ours: Ours, planner: Planner, progress: Callable[[], Progress]
    ) -> None:
        """``progress`` makes what shows the bytes of one part."""
        self._ctx, self._source, self._ours, self._planner, self._progress = ctx, source, ours, planner, progress
        self._images: dict[str, Part] = {}
        self._missing: set[Key] = set()
        self._make: dict[str, Callable[[Part], None]] = {
            IMAGE: self._image,
            NETWORK: self._network,
            VOLUME: self._volume,
            CONTAINER: self._container,
        }

    def run(self, parts: list[Part], told: Callable[[Part], None]) -> list[Part]:
        """Carry out the parts, and return them with what came of each; ``told`` one as soon as that is known."""
        results = []
        for part in parts:
            if part.kind == IMAGE:
                self._images[part.key[1]] = part
            result = part
            if part.action == IMPORT:
                result = self._one(part)
            elif part.action == UNREADABLE:
                result = part._replace(action=FAILED)
            if result.action in (FAILED, SKIPPED):
                self._missing.add(part.key)
            told(result)
            results.append(result)
        return results

    def _one(self, part: Part) -> Part:
        missing = sorted(f"{kind} {name}" for kind, name in part.needs & self._missing)
        if missing:
            return part._replace(action=FAILED, note=f"it needs {', '.join(missing)}")
        try:
            self._make[part.kind](part)
        except KetchError as e:
            return part._replace(action=FAILED, note=e.message + (f" ({e.hint})" if e.hint else ""))
        except OSError as e:
            of_path = f": `{e.filename}`" if e.filename else ""
            return part._replace(action=FAILED, note=f"{e.strerror or e}{of_path}")
        return part._replace(action=IMPORTED)

    def _image(self, part: Part) -> None:
        self._ours.look_again()  # a plan may be carried out long after it was made, and no name must be taken away
        alike = likeness(part.facts)
        free = [name for name in part.facts["Free"] if self._ours.image_named(name) is None]
        if taken := [name for name in part.facts["Free"] if self._ours.image_named(name) not in (None, alike)]:
            raise AlreadyExists(f"in Ketch {', '.join(taken)} is another image by now")
        if not self._ours.has_image(alike):
            self._load(self._counted(self._source.archive(part.facts["Id"], free), part))
            self._ours.look_again()
            return
        for name in free:
            repository, tag = split_tag(name)
            query = {"repo": repository, "tag": tag}
            self._ours.client.request("POST", f"/images/{self._ours.image_id(alike)}/tag", query)
        self._ours.look_again()

    def _counted(self, chunks: Iterator[bytes], part: Part) -> Iterator[bytes]:
        """The chunks, while their number is shown."""
        done = 0
        with self._shown(part) as moved:
            for chunk in chunks:
                done += len(chunk)
                moved(done)
                yield chunk

    @contextmanager
    def _shown(self, part: Part) -> Iterator[Callable[[int], None]]:
        """A time in which the bytes of a part are shown that have been moved so far."""
        shown = self._progress()
        try:
            yield lambda done: shown.moved(f"{part.kind} {part.name}", "Importing", done, max(part.size, done))
        finally:
            shown.clear()

    def _network(self, part: Part) -> None:
        self._ours.client.request("POST", "/networks/create", None, bodies.network(part.facts))

    def _volume(self, part: Part) -> None:
        if part.facts.get("Options"):
            volumes.make(self._ours, part.facts, part.facts["Options"])
        elif self._planner.wish.bind:
            options = {"type": "none", "o": "bind", "device": part.facts["Mountpoint"]}
            volumes.make(self._ours, part.facts, options)
        else:
            with self._shown(part) as moved:
                volumes.copy(self._ours, part.facts, moved)

    def _container(self, part: Part) -> None:
        image, image_id = self._image_of(part.facts)
        changes = self._source.changes(part.facts["Id"]) if self._planner.wish.changes else []
        if not changes:
            self._create(part, image, image_id)
            return
        image = self._image_with(part, image, changes)
        try:
            self._create(part, image, image_id)
        except BaseException:
            with suppress(KetchError):  # the first error is the one that says why
                self._ours.client.request("DELETE", f"/images/{image}")
            raise

    def _create(self, part: Part, image: str, image_id: str) -> None:
        body = bodies.container(part.facts, image, image_id, self._planner.name_of)
        answer = self._ours.client.request("POST", "/containers/create", {"name": part.name}, body).json()
        for warning in answer.get("Warnings") or ():
            self._ctx.warn(f"container {part.name}: WARNING: {warning}")

    def _image_with(self, part: Part, image: str, changes: list[ApiObject]) -> str:
        """Make an image of a container's image and what the container wrote; returns its id."""
        client, ident = self._ours.client, part.facts["Id"]
        made = {"created": part.facts["Created"], "comment": f"written by container {part.name} in Docker"}
        with written.layer(changes, lambda: self._source.export(ident)) as layer:
            saved = client.request("GET", "/images/get", {"names": [image]}, stream=True)
            try:
                return self._load(self._counted(written.image_with(saved.iter_chunks(), layer, made), part))
            finally:
                saved.close()

    def _load(self, archive: Iterator[bytes]) -> str:
        """Load an archive; returns the name, or the id of an image without one, that was loaded last."""
        loaded = ""
        for item in self._ours.client.upload("POST", "/images/load", archive, {"quiet": True}).stream_lines():
            if "error" in item:
                raise error_of(item["error"], (item.get("errorDetail") or {}).get("kind", ""))
            loaded = item.get("stream", "").strip().partition(": ")[2] or loaded
        return loaded

    def _image_of(self, facts: ApiObject) -> tuple[str, str]:
        """A container's image, by the name that it was made with if that means the same in Ketch, and its id there."""
        image = self._images.get(facts["Image"])
        shown = facts["Config"]["Image"]
        alike = likeness(image.facts if image else self._source.image(facts["Image"]))
        repository, tag = split_tag(shown)
        image_id = self._ours.image_id(alike)
        is_named_so = self._ours.image_named(f"{repository}:{tag or 'latest'}") == alike
        return str(shown) if is_named_so else image_id, image_id
