"""Images made of bytes, to put into registries or archives: every part of them is known to the test."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import urllib.request
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import zstandard

from tests.support.waiting import patient

if TYPE_CHECKING:
    from tests.support.engines import Client

OCI = "application/vnd.oci.image."
DOCKER = "application/vnd.docker."
CONFIG, MANIFEST, INDEX = f"{OCI}config.v1+json", f"{OCI}manifest.v1+json", f"{OCI}index.v1+json"
DOCKER_CONFIG, DOCKER_MANIFEST = f"{DOCKER}container.image.v1+json", f"{DOCKER}distribution.manifest.v2+json"
DOCKER_INDEX, DOCKER_LAYER = f"{DOCKER}distribution.manifest.list.v2+json", f"{DOCKER}image.rootfs.diff.tar.gzip"
LAYERS = {"none": f"{OCI}layer.v1.tar", "gzip": f"{OCI}layer.v1.tar+gzip", "zstd": f"{OCI}layer.v1.tar+zstd"}


def digest(data: bytes) -> str:
    """As registries name it."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def tar(files: dict[str, bytes]) -> bytes:
    """The tar of a layer with these files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o755
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def packed(data: bytes, compression: str) -> bytes:
    """The blob of a layer."""
    if compression == "gzip":
        return gzip.compress(data, 1, mtime=0)
    return zstandard.compress(data) if compression == "zstd" else data


@dataclass
class Made:
    """A manifest or an index, with every blob and manifest that it needs."""

    data: bytes
    media_type: str
    platform: dict[str, str] | None = None
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: list[Made] = field(default_factory=list)

    @property
    def digest(self) -> str:
        return digest(self.data)

    @property
    def image_id(self) -> str:
        return json.loads(self.data)["config"]["digest"]

    @property
    def layers(self) -> list[str]:
        return [layer["digest"] for layer in json.loads(self.data)["layers"]]

    def descriptor(self) -> dict:
        found = {"mediaType": self.media_type, "digest": self.digest, "size": len(self.data)}
        return {**found, "platform": self.platform} if self.platform else found


def image(
    *layers: dict[str, bytes],
    compression: str = "gzip",
    docker: bool = False,
    arch: str = "amd64",
    variant: str = "",
    cmd: list[str] | None = None,
    **config: object,
) -> Made:
    """An image whose layers have these files."""
    tars = [tar(files) for files in layers]
    blobs = [packed(one, compression) for one in tars]
    settings = {
        "architecture": arch,
        "os": "linux",
        **({"variant": variant} if variant else {}),
        "created": "2024-05-06T07:08:09Z",
        "config": {"Cmd": cmd or ["true"], "Env": ["PATH=/bin"]},
        **config,
        "rootfs": {"type": "layers", "diff_ids": [digest(one) for one in tars]},
        "history": [{"created": "2024-05-06T07:08:09Z", "created_by": f"step {n}"} for n in range(len(tars))],
    }
    raw = json.dumps(settings).encode()
    kind = DOCKER_LAYER if docker else LAYERS[compression]
    manifest = {
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST if docker else MANIFEST,
        "config": {"mediaType": DOCKER_CONFIG if docker else CONFIG, "digest": digest(raw), "size": len(raw)},
        "layers": [{"mediaType": kind, "digest": digest(blob), "size": len(blob)} for blob in blobs],
    }
    platform = {"architecture": arch, "os": "linux", **({"variant": variant} if variant else {})}
    found = {digest(blob): blob for blob in (raw, *blobs)}
    return Made(json.dumps(manifest).encode(), manifest["mediaType"], platform, found)


def index(*images: Made, docker: bool = False) -> Made:
    """An index of images for several platforms."""
    kind = DOCKER_INDEX if docker else INDEX
    body = {"schemaVersion": 2, "mediaType": kind, "manifests": [one.descriptor() for one in images]}
    return Made(json.dumps(body).encode(), kind, manifests=list(images))


def busybox(*layers: dict[str, bytes], **options: object) -> Made:
    """An image that can be run: busybox below, further layers above."""
    with open("/bin/busybox", "rb") as f:
        shell = f.read()
    names = ("busybox", "sh", "true", "cat", "wc")
    return image({f"bin/{name}": shell for name in names}, *layers, **options)  # type: ignore[arg-type]


def _call(method: str, url: str, data: bytes | None = None, headers: dict[str, str] | None = None) -> dict[str, str]:
    request = urllib.request.Request(url, data, headers or {}, method=method)
    with urllib.request.urlopen(request, timeout=patient(20)) as answer:
        answer.read()
        return dict(answer.headers)


def put(host: str, repository: str, made: Made, *tags: str) -> None:
    """Put an image with all that it needs into a registry, with nothing but the protocol."""
    for one in made.manifests:
        put(host, repository, one)
    base = f"http://{host}/v2/{repository}"
    for name, blob in made.blobs.items():
        place = _call("POST", f"{base}/blobs/uploads/", b"")["Location"]
        place = place if "://" in place else f"http://{host}{place}"
        sign = "&" if "?" in place else "?"
        _call("PUT", f"{place}{sign}digest={name}", blob, {"Content-Type": "application/octet-stream"})
    for tag in tags or (made.digest,):
        _call("PUT", f"{base}/manifests/{tag}", made.data, {"Content-Type": made.media_type})


def got(host: str, repository: str, ref: str) -> bytes:
    """A manifest's bytes as a registry has them."""
    accept = ", ".join((MANIFEST, INDEX, DOCKER_MANIFEST, DOCKER_INDEX))
    request = urllib.request.Request(f"http://{host}/v2/{repository}/manifests/{ref}", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=patient(20)) as answer:
        return answer.read()


def docker_archive(one: Made, name: str) -> bytes:
    """What old dockers' ``save`` writes: layers as plain tars in directories of their own."""
    config = json.loads(one.data)["config"]["digest"]
    files = {f"{config[7:]}.json": one.blobs[config]}
    layers = {f"{digest[7:]}/layer.tar": one.blobs[digest] for digest in one.layers}
    entry = {"Config": f"{config[7:]}.json", "RepoTags": [name], "Layers": list(layers)}
    return tar({**files, **layers, "manifest.json": json.dumps([entry]).encode()})


def sweep(docker: Client) -> None:
    """Remove all images of an engine, and all names, but the ``busybox`` that its tests share."""
    names = docker("images", "--format", "{{.Repository}}:{{.Tag}}").out.split()
    doomed = [name for name in names if name != "busybox:latest" and "<none>" not in name]
    if doomed:
        docker("rmi", "-f", *doomed)
    kept = docker("images", "-q", "--no-trunc", "busybox").out.strip()
    if ids := set(docker("images", "-aq", "--no-trunc").out.split()) - {kept}:
        parents = {image["Id"]: image["Parent"] for image in json.loads(docker("inspect", *ids).out)}
        docker("rmi", "-f", *sorted(ids, key=lambda one: _depth(one, parents), reverse=True))


def _depth(image: str, parents: dict[str, str]) -> int:
    """How many images an image was committed on: those that depend on others go before them."""
    depth = 0
    while image := parents.get(image, ""):
        depth += 1
    return depth
