"""Attestations of products: in an index, about the image; beside files, about each of them."""

from __future__ import annotations

import hashlib
import os
import stat
from typing import TYPE_CHECKING

import msgspec

from ketch.build.attest import purl
from ketch.build.tree import Tree
from ketch.images.made import attestations as manifests
from ketch.oci import manifest as oci
from ketch.oci.attestation import Subject, subject
from ketch.oci.digest import chain_ids
from ketch.trees import Descent, sorted_names

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ketch.build.attest.statement import Attestation
    from ketch.build.export.product import Product
    from ketch.build.llb.vertex import Edge
    from ketch.build.providers import BuildSnapshots
    from ketch.images.model import Image
    from ketch.images.store import ImageStore
    from ketch.storage.content.leases import Lease


def asked(products: Sequence[Product]) -> bool:
    """Whether there is anything to be said of products."""
    return any(one.provenance is not None or one.attestations for one in products)


def of_image(
    store: ImageStore, lease: Lease, product: Product, image: Image, names: Sequence[str], finished: int
) -> list[oci.Descriptor]:
    """Write the attestation manifest about an image with these names; of a product without any, none.  Blocking.

    ``finished``: when the build ended, in ns since 1970.
    """
    if not asked([product]):
        return []
    manifest = msgspec.json.decode(store.content.read(image.manifest), type=oci.Manifest)
    found = _all(product, finished, manifest.layers)
    subjects = [subject(purl.image(name, product.platform), image.manifest) for name in names]
    statements = [(one.predicate_type, one.statement(subjects)) for one in found]
    return [manifests.write(store.content, lease, image.manifest, statements)]


def beside_files(snapshots: BuildSnapshots, lease: Lease, product: Product, finished: int, *, suffix: str = "") -> Tree:
    """The product's files, and a file for each attestation about them.  Blocking."""
    found = [one for one in _all(product, finished, []) if not one.inline_only]
    if not found:
        return product.tree
    with snapshots.opened(product.tree) as fd:
        subjects = _files(fd)
    draft = snapshots.begin(lease)
    try:
        for one in found:
            name, extension = os.path.splitext(one.path)
            with open(os.path.join(draft.directory, f"{name}{suffix}{extension}"), "wb") as file:
                file.write(one.statement(subjects))
        layer = draft.commit()
    except BaseException:
        draft.abort()
        raise
    return Tree((*product.tree.layers, layer))


def _all(product: Product, finished: int, layers: Sequence[oci.Descriptor]) -> list[Attestation]:
    """Lists of packages first, and how the product came about."""
    found = list(product.attestations)
    if product.provenance is not None:
        found.append(product.provenance.attestation(finished, _layers(product, layers)))
    return found


def _layers(product: Product, layers: Sequence[oci.Descriptor]) -> Mapping[Edge, list[list[oci.Descriptor]]]:
    """The layers of the result, and of the image that it stands on, as far as these are known."""
    about = product.provenance
    if about is None or about.result is None or not layers:
        return {}
    plain = [msgspec.structs.replace(layer, annotations=None) for layer in layers]
    found = {about.result: [plain]}
    base = about.result
    while base.vertex.inputs:
        base = base.vertex.inputs[0]
    count = len(product.config.rootfs.diff_ids)
    chain = tuple(chain_ids(product.config.rootfs.diff_ids))
    if base != about.result and count and product.tree.layers[:count] == chain:
        found[base] = [plain[:count]]
    return found


def _files(root_fd: int) -> list[Subject]:
    """The regular files of an open tree, each with its digest."""
    found = []
    with Descent(root_fd) as at:
        for name in at.walk(sorted_names):
            if name is None:
                continue
            status = os.stat(name, dir_fd=at.fd, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                at.enter(name)
            elif stat.S_ISREG(status.st_mode):
                path = os.fsencode(at.prefix + name).decode("utf-8", "replace")
                found.append(Subject(name=path, digest={"sha256": _digest(at.fd, name)}))
    return found


def _digest(dir_fd: int, name: str) -> str:
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    with open(fd, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
