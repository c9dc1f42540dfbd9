"""What the real buildx sends and takes in its session: the other end of what `ketch.buildkit.session` does."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import shutil
import stat
import tarfile
from pathlib import Path

import pytest

from ketch.oci import digest as digests
from ketch.oci import manifest as oci
from ketch.storage.contexts import copies
from tests.support import peers
from tests.support.building.sending import listed
from tests.support.building.session_control import SessionControl
from tests.support.building.sources import SourceBox, SourceWork

CONFIG = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": "sha256:" + "1" * 64, "size": 2}


@pytest.fixture
def box(tmp_path, monkeypatch):
    monkeypatch.setattr(copies, "_TICK_NS", -(10**12))  # files of tests are new, and count as old
    (tmp_path / "sources").mkdir()
    made = SourceBox(tmp_path / "sources")
    yield made
    made.close()


@pytest.fixture
async def control(tmp_path):
    peers.need()
    (tmp_path / "control").mkdir()
    async with SessionControl(tmp_path / "control").listening() as made:
        yield made


@pytest.fixture
def context(tmp_path):
    top = tmp_path / "context"
    (top / "d/e").mkdir(parents=True)
    (top / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    (top / "a").write_text("a")
    (top / "a-b").write_text("sorts behind what is in a")
    (top / "d/large").write_bytes(os.urandom(3_000_000))
    (top / "\u00e4 \udcff").write_text("name")
    os.link(top / "a", top / "z")
    os.symlink("../a", top / "d/link")
    os.mkfifo(top / "d/pipe")
    os.chmod(top / "a-b", 0o6711)
    os.chown(top / "a-b", 12, 34)
    os.setxattr(top / "a-b", "user.attribute", b"\0\xff")
    for number in range(300):
        (top / f"d/e/{number}").write_text(str(number))
    for one in listed(top):
        os.utime(top / one.path, ns=(0, 10**18 + 5), follow_symlinks=False)
    return top


def everything(top):
    return [(one, (top / one.path).read_bytes() if stat.S_ISREG(one.mode) else b"") for one in listed(top)]


class Taking:
    """A build that takes a directory, and counts what comes for it."""

    def __init__(self, box, name="context", **attrs):
        self.box, self.name, self.attrs = box, name, attrs

    async def __call__(self, session, _request):
        work = SourceWork(session)
        _, (tree,) = await self.box.both(self.box.operation(f"local://{self.name}", **self.attrs), work)
        self.layer = Path(self.box.layers.directory(tree.layers[0]))
        self.came = work.statuses[-1][1]


async def test_contexts(box, control, context):
    take = Taking(box)
    await control.build(take, str(context))
    expected = [(one._replace(uid=0, gid=0), content) for one, content in everything(context)]
    assert everything(take.layer) == expected
    assert take.came > 3_000_000
    first = take.layer
    await control.build(take, str(context))
    assert take.layer == first
    assert take.came < 30_000  # the list alone
    (context / "a").write_text("another")
    await control.build(take, str(context))
    assert take.came < 30_000
    assert [(take.layer / name).read_text() for name in ("a", "z")] == ["another", "another"]
    assert os.stat(take.layer / "d/large").st_ino == os.stat(first / "d/large").st_ino


async def test_the_client_applies_patterns(box, control, context):
    take = Taking(box, local_excludepatterns='["d", "!d/link", "*\u00e4*"]')
    await control.build(take, str(context))
    assert [one.path for one in listed(take.layer)] == ["Dockerfile", "a", "a-b", "d", "d/link", "z"]
    take = Taking(box, local_includepattern='["**/link"]', local_followpaths='["d/link"]')
    await control.build(take, str(context))
    assert [one.path for one in listed(take.layer)] == ["a", "d", "d/link"]


async def test_secrets_agents_and_logins(control, context, tmp_path):
    (tmp_path / "secret").write_bytes(b"\0hidden\xff")
    login = base64.b64encode(b"me:password").decode()
    (control.root / "config.json").write_text(json.dumps({"auths": {"r.example:5000": {"auth": login}}}))
    if shutil.which("ssh-agent") is None:
        pytest.skip("there is no ssh-agent")
    agent = await asyncio.create_subprocess_exec("ssh-agent", "-D", "-a", str(tmp_path / "agent"), stdout=-1)
    try:
        assert b"SSH_AUTH_SOCK" in await agent.stdout.readline()  # it listens

        async def look(session, _request):
            assert await session.secret("file") == b"\0hidden\xff"
            assert await session.secret("variable") == b"of the environment"
            assert await session.secret("none") is None
            assert await session.credentials("r.example:5000") == ("me", "password")
            assert await session.credentials("r.example") is None
            assert await session.credentials("docker.io") is None
            assert await session.ssh_agent("none") is None
            path = await session.ssh_agent("default")
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(b"\0\0\0\x01\x0b")  # which keys are there?
            assert await reader.readexactly(9) == b"\0\0\0\x05\x0c\0\0\0\0"
            writer.close()

        words = ["--secret", f"id=file,src={tmp_path}/secret", "--secret", "id=variable,env=HIDDEN"]
        words += ["--ssh", f"default={tmp_path}/agent", str(context)]
        await control.build(look, *words, env={"HIDDEN": "of the environment"})
    finally:
        agent.terminate()
        await agent.wait()


async def test_trees_for_the_local_exporter(control, context, tmp_path):
    fd = os.open(context, os.O_RDONLY)

    async def send(session, request):
        exporter = request.Exporters[0].Type if request.Exporters else request.ExporterDeprecated
        assert exporter == "local"
        await session.send_directory(0, fd, "linux_amd64")

    await control.build(send, "--output", f"type=local,dest={tmp_path}/out", str(context))
    os.close(fd)
    expected = [(one._replace(uid=0, gid=0), content) for one, content in everything(context)]
    found = everything(tmp_path / "out/linux_amd64")
    for (one, content), (wanted, same) in zip(found, expected, strict=True):
        assert (one._replace(attributes=()), content) == (wanted._replace(attributes=()), same)
    shutil.rmtree(tmp_path / "out")


@pytest.mark.parametrize("kind", ["tar", "oci"])
async def test_archives_for_exporters(control, context, tmp_path, kind):
    content = os.urandom(5_000_000)

    async def pieces():
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode="w") as tar:
            member = tarfile.TarInfo("file")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for at in range(0, len(data.getvalue()), 700_000):
            yield data.getvalue()[at : at + 700_000]

    async def send(session, _request):
        await session.send_file(0, {"containerimage.digest": "sha256:" + "0" * 64}, pieces())

    await control.build(send, "--output", f"type={kind},dest={tmp_path}/out.tar", str(context))
    with tarfile.open(tmp_path / "out.tar") as tar:
        assert tar.extractfile("file").read() == content


async def test_archives_on_standard_input_are_kept_for_the_build(box, control, context):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.GNU_FORMAT) as tar:
        tar.add(context, ".")

    async def fetch(session, request):
        url = request.FrontendAttrs["context"]
        assert url.startswith("http://buildkit-session/")
        work = SourceWork(session)
        _, (tree,) = await box.both(box.operation(url, http_filename="context"), work)
        assert (Path(box.layers.directory(tree.layers[0])) / "context").read_bytes() == data.getvalue()

    await control.build(fetch, "-", stdin=data.getvalue())


async def test_dockerfiles_are_a_directory_of_their_own(box, control, context):
    take = Taking(box, "dockerfile", local_differ="none")
    await control.build(take, "-f", str(context / "Dockerfile"), str(context))
    assert (take.layer / "Dockerfile").read_text() == "FROM scratch\nCOPY . /\n"


def layout_of(top):
    """An OCI layout with a manifest named ``latest``, and that."""
    manifest = json.dumps({"schemaVersion": 2, "mediaType": oci.MANIFEST, "config": CONFIG, "layers": []}).encode()
    digest = digests.of(manifest)
    (top / "blobs/sha256").mkdir(parents=True)
    (top / "blobs/sha256" / digests.hexadecimal(digest)).write_bytes(manifest)
    (top / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    names = {"org.opencontainers.image.ref.name": "latest"}
    described = {"mediaType": oci.MANIFEST, "digest": digest, "size": len(manifest), "annotations": names}
    (top / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [described]}))
    return digest, manifest


async def test_layouts_of_clients(control, context, tmp_path):
    digest, manifest = layout_of(tmp_path / "layout")

    async def look(session, request):
        given = next(value for key, value in request.FrontendAttrs.items() if key.startswith("context:base"))
        store = given.removeprefix("oci-layout://").partition("@")[0].partition(":")[0]
        found = await session.layout(store)

        def work():
            assert found.read(found.described(digest), 10_000) == manifest

        await asyncio.to_thread(work)

    await control.build(look, "--build-context", f"base=oci-layout://{tmp_path}/layout:latest", str(context))


async def test_caches_in_directories_of_clients(control, context, tmp_path):
    data = os.urandom(3_000_000)
    blob = oci.Descriptor(media_type="", digest=digests.of(data), size=len(data))

    async def write(session, _request):
        layout = await session.layout(f"local:{tmp_path}/cache")
        await asyncio.to_thread(layout.put, blob, [data[:1_500_000], data[1_500_000:]])
        await asyncio.to_thread(layout.put, blob, [])
        assert await asyncio.to_thread(layout.has, blob)

    await control.build(write, "--cache-to", f"type=local,dest={tmp_path}/cache", str(context))
    assert (tmp_path / f"cache/blobs/sha256/{digests.hexadecimal(blob.digest)}").read_bytes() == data
