"""Questions of front ends about sources, over a real connection: LLBBridge's ResolveImageConfig, ResolveSourceMeta."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from functools import partial

import pytest

from ketch.build.llb import ops_pb2 as llb
from ketch.build.llb.operations import source
from ketch.buildkit.services.gateway import LLBBridgeService
from ketch.buildkit.wire.gateway import gateway_pb2 as pb
from ketch.oci import digest as digests
from ketch.oci import manifest as oci
from ketch.rpc.status import RpcError
from tests.support.building.gateway_client import GatewayClient
from tests.support.building.session_client import SessionClient
from tests.support.building.web import served
from tests.support.programs import need
from tests.support.registries import made_images
from tests.support.registries.registries import ours

WHO = {f"GIT_{who}_{what}": "x" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


@pytest.fixture
async def build(engine):
    async with GatewayClient.building(engine.socket) as client:
        yield client


async def meta(build, identifier, attrs=None, **more):
    op = llb.SourceOp(identifier=identifier, attrs=attrs or {})
    return await build.call(LLBBridgeService.ResolveSourceMeta, pb.ResolveSourceMetaRequest(Source=op, **more))


async def test_the_configuration_of_an_image_byte_for_byte(build, engine):
    """With what nobody here knows of, first from a registry, then from here; the digest is what the name means."""
    made = made_images.busybox(**{"org.example": {"more": [1, 2]}, "zero": None})
    config = made.blobs[made.image_id]
    with ours() as registry:
        made_images.put(registry.host, "odd", made, "1")
        name = f"{registry.host}/odd:1"
        for _ in range(2):
            asked = pb.ResolveImageConfigRequest(Ref=name, LogName="what is it")
            found = await build.call(LLBBridgeService.ResolveImageConfig, asked)
            assert (found.Config, found.Digest) == (config, made.digest)
            assert found.Ref.removesuffix(f"@{made.digest}") == name
            told = await meta(build, f"docker-image://{name}")
            assert (told.Image.Config, told.Image.Digest) == (config, made.digest)
            engine.docker("pull", "-q", name, timeout=60)
        assert (await meta(build, f"docker-image://{name}", Image={"NoConfig": True})).Image.Config == b""
    with pytest.raises(RpcError, match="failed to resolve source metadata for 127.0.0.1:1/none:latest"):
        await meta(build, "docker-image://127.0.0.1:1/none")


async def test_a_file_of_the_web(build):
    data = os.urandom(3 << 20)
    with served({"/d/file": data, "/d/named": b"x"}) as url:
        told = await meta(build, f"{url}/d/file")
        assert (told.HTTP.Checksum, told.HTTP.Filename) == (digests.of(data), "file")
        assert told.Source.identifier == f"{url}/d/file"
        asked = pb.ChecksumRequest(Algo=pb.ChecksumRequest.CHECKSUM_ALGO_SHA512, Suffix=b"and this")
        more = (await meta(build, f"{url}/d/file", HTTP={"ChecksumRequest": asked})).HTTP.ChecksumResponse
        assert more.Digest == f"sha512:{hashlib.sha512(data + b'and this').hexdigest()}"
        assert more.Suffix == b"and this"
        named = await meta(build, f"{url}/d/named", {"http.filename": "another"})
        assert (named.HTTP.Filename, named.HTTP.Checksum) == ("another", digests.of(b"x"))
        with pytest.raises(RpcError, match="invalid response status 404"):
            await meta(build, f"{url}/none")


@pytest.fixture
def repository(tmp_path):
    """Files of a repository with one commit, as a web server has them, and its directory."""
    git = partial(
        subprocess.run, check=True, capture_output=True, env={"PATH": os.environ["PATH"], "HOME": "/dev/null", **WHO}
    )
    work, bare = tmp_path / "work", tmp_path / "app.git"
    work.mkdir()
    for words in (
        ["init", "-q", "-b", "main"],
        ["commit", "-q", "--allow-empty", "-m", "w\u00f6rds"],
        ["tag", "-a", "v1", "-m", "one"],
        ["clone", "-q", "--bare", str(work), str(bare)],
    ):
        git([need("git"), *words], cwd=work)
    git([need("git"), "update-server-info"], cwd=bare)
    files = [os.path.join(top, name) for top, _, names in os.walk(bare) for name in names]
    return {f"/{os.path.relpath(one, tmp_path)}": open(one, "rb").read() for one in files}, bare


async def test_a_commit(build, repository):
    files, bare = repository

    def kept(kind, name):
        words = [need("git"), "cat-file", kind, name]
        return subprocess.run(words, cwd=bare, check=True, capture_output=True).stdout

    def named(name):
        words = [need("git"), "rev-parse", name]
        return subprocess.run(words, cwd=bare, check=True, capture_output=True, text=True).stdout.strip()

    commit, tag = named("main"), named("v1")
    with served(files) as url:
        attrs = {"git.fullurl": f"{url}/app.git"}
        place = f"git://{url.partition('://')[2]}/app.git"
        told = (await meta(build, f"{place}#main", attrs)).Git
        assert (told.Checksum, told.Ref, told.CommitChecksum, told.CommitObject) == (commit, "refs/heads/main", "", b"")
        told = (await meta(build, place, attrs)).Git
        assert (told.Checksum, told.Ref) == (commit, "refs/heads/main")
        told = (await meta(build, f"{place}#v1", attrs, Git={"ReturnObject": True})).Git
        assert (told.Checksum, told.Ref, told.CommitChecksum) == (tag, "refs/tags/v1", commit)
        assert (told.CommitObject, told.TagObject) == (kept("commit", "main"), kept("tag", "v1"))
        with pytest.raises(RpcError, match="repository does not contain ref none"):
            await meta(build, f"{place}#none", attrs)


async def test_an_image_in_a_layout_of_the_client(engine):
    config = b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]},"odd":1}'
    described = {"mediaType": oci.CONFIG, "digest": digests.of(config), "size": len(config)}
    manifest = {"schemaVersion": 2, "mediaType": oci.MANIFEST, "config": described, "layers": []}
    data = json.dumps(manifest).encode()
    blobs = {digests.of(blob): blob for blob in (config, data)}
    session = SessionClient(blobs={"oci:store": blobs})
    async with GatewayClient.building(engine.socket, session) as build:
        told = await meta(build, f"oci-layout://store@{digests.of(data)}", {"oci.store": "store"})
        assert (told.Image.Digest, told.Image.Config) == (digests.of(data), config)


async def test_other_sources_are_told_as_they_are(build):
    told = await meta(build, "local://context", {"local.session": "x"})
    assert told.Source.identifier == "local://context"
    assert not any(told.HasField(name) for name in ("Image", "Git", "HTTP"))
    with pytest.raises(RpcError):
        await meta(build, "git://127.0.0.1:1/none.git")


async def test_what_was_looked_up_is_found_by_a_step(build):
    """A file that was asked about is not downloaded again."""
    files = {"/file": b"once"}
    with served(files) as url:
        await meta(build, f"{url}/file")
        ref = await build.solve(source(f"{url}/file", {"http.checksum": digests.of(b"once")}))
        del files["/file"]
        read = await build.call(LLBBridgeService.ReadFile, pb.ReadFileRequest(Ref=ref, FilePath="/file"))
        assert read.Data == b"once"
