"""Images for builds: found here or in registries, and brought here when a step needs their files.

What is brought here for a build gets no name, as with dockerd's BuildKit: it stays as long as the build cache needs it.
The classic builder names what it pulls.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

from ketch.build.providers import FoundImage
from ketch.build.tree import Tree
from ketch.errors import DataLoss, ImageNotFound, KetchError, NotFound, PermissionDenied, Unavailable
from ketch.images.progress import short
from ketch.images.transfer import choose as choice
from ketch.images.transfer.pull import Puller
from ketch.oci import digest as digests
from ketch.oci import platform as platforms
from ketch.oci import reference as references
from ketch.oci.reference import Reference
from ketch.remote.credentials import Credentials, KeptCredentials
from ketch.remote.errors import RegistryError, phrase, shown
from ketch.threads import run_to_end

if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.build.providers import BuildSession
    from ketch.engine.images.pull import PullService
    from ketch.engine.images.registries import Registries
    from ketch.images.progress import ProgressItem, Report
    from ketch.images.store import ImageStore
    from ketch.images.transfer.layers import Layer, LayerService
    from ketch.oci.config import ImageConfig
    from ketch.oci.manifest import Platform
    from ketch.remote.repository import Fetched, Repository
    from ketch.storage.content.leases import Lease

    Progress = Callable[[str, int, int], None]

_REMEMBERED = 64
_DENIED = "pull access denied, repository does not exist or may require authorization"


class _Remote(NamedTuple):
    """An image in a registry: the digest of its own manifest, its configuration (and as it is), and its layers."""

    manifest: str
    id: str
    data: bytes
    config: ImageConfig
    layers: list[Layer]


class EngineBuildImages:
    """The engine's `BuildImages`; used in the event loop."""

    def __init__(self, store: ImageStore, registries: Registries, layers: LayerService) -> None:
        """``layers`` are those of the engine's pulls: what both need comes once."""
        self.store = store
        self._registries, self._layers = registries, layers
        self._remembered: OrderedDict[tuple[str, str], _Remote] = OrderedDict()  # by references with digests

    async def find(self, reference: str, platform: Platform, mode: str, session: BuildSession) -> FoundImage:
        """An image's configuration; ``mode``: ``default`` and ``local``: here first; ``pull``: from its registry.

        NotFound, PermissionDenied, Unavailable, InvalidArgument, in BuildKit's words.
        """
        ref = references.parse(reference)
        if mode != "pull" and (here := _here(self.store, ref, platform)) is not None:
            return here
        return await self._there(ref, platform, session)

    async def fetch(
        self, found: FoundImage, platform: Platform, lease: Lease, session: BuildSession, progress: Progress
    ) -> Tree:
        """The layers of an image that was found, held by the lease; those that are not here are downloaded.

        ``progress`` is told the digest of a layer (behind ``extracting ``, when it is unpacked), the bytes that are
        done, and all bytes.
        """
        chains = digests.chain_ids(found.config.rootfs.diff_ids)
        lease.hold(*chains)
        if all(map(self.store.layers.exists, chains)):
            return Tree(tuple(chains))
        ref = references.parse(found.reference)
        if not ref.digest:
            raise DataLoss(f"a layer of the image {ref.familiar_whole} is missing", hint="pull or load the image again")
        repository = await self._repository(ref, session)
        puller = Puller(self.store, self._layers, repository, await self._reported(ref, platform, session, progress))
        top = await _asked(repository, ref)
        image, _ = await puller.bring(lease, top, platform, ref)
        await run_to_end(self.store.keep_base, image)
        self._layers.forget(image.chain_ids)
        return Tree(tuple(image.chain_ids))

    async def _reported(self, ref: Reference, platform: Platform, session: BuildSession, progress: Progress) -> Report:
        """A function that tells a pull's lines as progress of layers."""
        remote = await self._resolved(ref, platform, session)
        layers = {short(layer.descriptor.digest): layer.descriptor for layer in remote.layers}

        def report(item: ProgressItem) -> None:
            layer = layers.get(item.get("id", ""))
            if layer is None:
                return
            done = item.get("progressDetail", {}).get("current", 0)
            match item.get("status"):
                case "Downloading":
                    progress(layer.digest, done, layer.size)
                case "Download complete":
                    progress(layer.digest, layer.size, layer.size)
                case "Extracting":
                    progress(f"extracting {layer.digest}", done, layer.size)

        return report

    async def _there(self, ref: Reference, platform: Platform, session: BuildSession) -> FoundImage:
        """The image of a reference in its registry."""
        if not ref.digest:
            repository = await self._repository(ref, session)
            top = await _asked(repository, ref)
            ref = Reference(ref.domain, ref.path, ref.tag, top.descriptor.digest)
            remote = await self._resolved(ref, platform, session, top)
        else:
            remote = await self._resolved(ref, platform, session)
        return FoundImage(
            reference=str(ref), manifest=remote.manifest, config=remote.config, id=remote.id, data=remote.data
        )

    async def _resolved(
        self, ref: Reference, platform: Platform, session: BuildSession, top: Fetched | None = None
    ) -> _Remote:
        """The image behind a reference with a digest, which is asked for once."""
        key = (str(ref), platforms.text(platform))
        remote = self._remembered.get(key)
        if remote is None:
            repository = await self._repository(ref, session)
            remote = await _read(repository, top or await _asked(repository, ref), platform, ref)
            self._remembered[key] = remote
            while len(self._remembered) > _REMEMBERED:
                self._remembered.popitem(last=False)
        self._remembered.move_to_end(key)
        return remote

    async def _repository(self, ref: Reference, session: BuildSession) -> Repository:
        """The repository of a reference, with the session's credentials for its registry."""
        return self._registries.remotes.repository(ref, await session_credentials(ref.domain, session))


class NamingBuildImages:
    """`BuildImages` of the classic builder: base images are pulled whole, and have their names then."""

    def __init__(self, images: EngineBuildImages, pulls: PullService, report: Report) -> None:
        """``report`` gets the lines of ``POST /images/create``."""
        self._images, self._pulls, self._report = images, pulls, report

    async def find(self, reference: str, platform: Platform, mode: str, session: BuildSession) -> FoundImage:
        """As that of `EngineBuildImages`, of an image that is here; errors in the words of a pull."""
        ref = references.parse(reference)
        if mode != "pull" and (here := _here(self._images.store, ref, platform)) is not None:
            return here
        credentials = await session_credentials(ref.domain, session)
        async for item in self._pulls.pull(str(ref), "", platforms.text(platform), credentials):
            self._report(item)
        return await self._images.find(str(ref), platform, "local", session)

    async def fetch(
        self, found: FoundImage, platform: Platform, lease: Lease, session: BuildSession, progress: Progress
    ) -> Tree:
        """As that of `EngineBuildImages`."""
        return await self._images.fetch(found, platform, lease, session, progress)


def _here(store: ImageStore, ref: Reference, platform: Platform) -> FoundImage | None:
    """The image of a reference in the engine's store, for the platform; None when it is not there."""
    try:
        image = store.resolve(str(ref), platforms.text(platform))
    except ImageNotFound:
        return None
    chains = tuple(image.chain_ids)
    return FoundImage(reference=str(ref), manifest=image.manifest, config=image.config, id=image.id, chain_ids=chains)


async def session_credentials(domain: str, session: BuildSession) -> Credentials | None:
    """The session's credentials for a registry: told, or kept by a client that gets tokens with them."""
    if (keeper := session.keeper(domain)) is not None:
        return KeptCredentials(keeper=keeper)
    given = await session.credentials(domain)
    if given is None:
        return None
    user, secret = given
    return Credentials(username=user, password=secret) if user else Credentials(identity_token=secret)


async def _asked(repository: Repository, ref: Reference) -> Fetched:
    """The manifest or index of a reference, with errors in BuildKit's words."""
    try:
        return await repository.fetch(ref.digest or ref.tag)
    except RegistryError as e:
        raise _refused(e, ref) from e
    except Unavailable as e:
        raise Unavailable(f"failed to do request: {e.message}", hint=e.hint) from e


async def _read(repository: Repository, top: Fetched, platform: Platform, ref: Reference) -> _Remote:
    """The manifest and the configuration for a platform."""

    async def seen(_fetched: Fetched) -> None:
        pass

    try:
        chosen = await choice.choose(repository, top, platform, ref, seen)
    except NotFound as e:
        text = platforms.text(platforms.normalize(platform))
        raise NotFound(f"{ref}: no match for platform in manifest: not found", hint=f"it has none for {text}") from e
    manifest = choice.image_manifest(chosen, ref)
    data = bytearray()
    async with repository.blob(manifest.config) as (_, pieces):
        async for piece in pieces:
            data += piece
            if len(data) > manifest.config.size:
                break
    manifest.config.check_size(len(data))
    if not digests.matches(manifest.config.digest, bytes(data)):
        raise DataLoss(f"image configuration {manifest.config.digest}: the registry gives other bytes")
    config = choice.image_config(bytes(data), manifest.config.digest)
    found = manifest.config.digest
    return _Remote(chosen.descriptor.digest, found, bytes(data), config, choice.image_layers(manifest, config, ref))


def _refused(error: RegistryError, ref: Reference) -> KetchError:
    """The error of a registry that does not give an image, in BuildKit's words."""
    if error.anonymous:
        return PermissionDenied(f"{_DENIED}: authorization failed: no basic auth credentials")
    if error.is_denied or error.status == 401:
        text = f"server message: {error.text}" if error.text else "authorization failed"
        return PermissionDenied(f"{_DENIED}: {text}")
    if error.status == 404:
        return NotFound(f"{ref}: not found")
    words = f"{error.status} {phrase(error.status)}".rstrip()
    method = error.method.upper()
    return Unavailable(
        f"unexpected status from {method} request to {shown(error.url)}: {words}", hint=error.text or None
    )
