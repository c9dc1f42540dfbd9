"""Images of an engine: pulled, loaded, built, made of directories."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ketch.aio.waiting import finished

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping

    from ketch.aio import images as aio
    from ketch.aio.results import Image


class Images:
    """The images of one engine."""

    def __init__(self, inner: aio.Images) -> None:
        self._inner = inner

    def pull(self, name: str, *, auth: tuple[str, str] | None = None) -> Image:
        """Fetch an image from its registry; ``auth`` is a user's name and password there."""
        return finished(self._inner.pull(name, auth=auth))

    def bootstrap(self, name: str) -> Image:
        """Make a base image of this machine's packages, without a registry: ``debian:trixie``, ``busybox``."""
        return finished(self._inner.bootstrap(name))

    def get(self, name: str) -> Image:
        """The image of a name or an id (ImageNotFound)."""
        return finished(self._inner.get(name))

    def exists(self, name: str) -> bool:
        """Whether the engine has an image of that name."""
        return finished(self._inner.exists(name))

    def all(self) -> list[Image]:
        """All of them."""
        return finished(self._inner.all())

    def load(self, archive: str | os.PathLike[str] | bytes) -> list[Image]:
        """Read images from an archive as ``save`` writes it: a file, or its content."""
        return finished(self._inner.load(archive))

    def save(self, name: str, path: str | os.PathLike[str]) -> None:
        """Write an image into an archive (OSError)."""
        finished(self._inner.save(name, path))

    def build(
        self,
        directory: str | os.PathLike[str] | None = None,
        *,
        tag: str = "",
        dockerfile: str = "",
        args: Mapping[str, str] | None = None,
        target: str = "",
    ) -> Image:
        """Build an image of a directory with a Dockerfile.

        ``dockerfile``: its name in the directory; without a directory, its text.
        """
        return finished(self._inner.build(directory, tag=tag, dockerfile=dockerfile, args=args, target=target))

    def from_directory(self, directory: str | os.PathLike[str], tag: str, *, changes: Iterable[str] = ()) -> Image:
        """Make an image whose files are those of a directory; ``changes``: instructions such as ``CMD ["sh"]``."""
        return finished(self._inner.from_directory(directory, tag, changes=changes))

    def tag(self, image: str | Image, tag: str) -> None:
        """Give an image another name."""
        finished(self._inner.tag(image, tag))

    def remove(self, image: str | Image, *, force: bool = False) -> None:
        """Remove a name, and with its last name the image."""
        finished(self._inner.remove(image, force=force))
