"""Front ends that are images: what they ask, what they return, how they end, what they may not."""

from __future__ import annotations

import asyncio
import io
import json
from typing import TYPE_CHECKING

import pytest

from ketch.build.llb import ops_pb2 as pb
from ketch.build.llb.definition import define
from ketch.build.llb.operations import Action, files
from ketch.buildkit.control.workers import worker
from ketch.buildkit.gateway.frontend import GatewayFrontend
from ketch.buildkit.gateway.served import ReturnedError
from ketch.engine.build.frontends.bridge import Bridge, FrontendRequest
from ketch.engine.build.frontends.errors import UnsupportedCapability
from ketch.engine.build.frontends.products import products
from ketch.engine.model.requests import ImportOptions
from ketch.errors import InvalidArgument, KetchError
from ketch.oci.attestation import Subject
from tests.support.building import frontend_image
from tests.support.waiting import patient, until

if TYPE_CHECKING:
    from tests.support.boxes.build_box import BuildBox

pytestmark = pytest.mark.ketch_only


class Client:
    """A client that gives nothing."""

    id = "the-client"

    def keeper(self, _host):
        return None

    async def credentials(self, _host):
        return None

    async def secret(self, _name):
        return None


@pytest.fixture(scope="module")
def front(build_box: BuildBox) -> BuildBox:
    """An engine with a front end, and with a base image."""

    async def made(name: str, data: bytes, *changes: str) -> None:
        async def body():
            for at in range(0, len(data), 1 << 20):
                yield data[at : at + (1 << 20)]

        options = ImportOptions(repo=name, changes=list(changes))
        async for _ in build_box.ketch.images.import_(body(), options):
            pass

    command = str(frontend_image.COMMAND).replace("'", '"')
    changes = [f"ENTRYPOINT {command}", *(f"ENV {one}" for one in frontend_image.ENVIRONMENT)]
    root = frontend_image.archive()
    build_box.call(made("front:1", root, *changes))
    build_box.call(made("front:alone", root, *changes, "LABEL moby.buildkit.frontend.network.none=true"))
    build_box.call(made("base:1", _tar_of(build_box)))
    return build_box


def _tar_of(box: BuildBox) -> bytes:
    from ketch.storage.archive.write import write_directory

    made = io.BytesIO()
    with box.layers.opened(box.base) as fd:
        write_directory(fd, None, made)
    return made.getvalue()


def asked(front: BuildBox, do: str, look=None, inputs=None, **attrs: str):
    """The result of the front end, and what was told of the build."""
    told = []

    async def run():
        builder = front.ketch.builds.builder()
        with front.layers.lease() as lease:
            bridge = Bridge(builder, Client(), lease, told.append)
            gateway = GatewayFrontend(front.executor, lambda: [worker(front.ketch)])
            builder.frontends["gateway.v0"] = gateway
            request = FrontendRequest(
                frontend="gateway.v0", attrs={"source": "front:1", "do": do, **attrs}, inputs=inputs or {}
            )
            try:
                result = await asyncio.wait_for(bridge.solve(request), patient(40))
                return await look(bridge, result) if look is not None else result
            except KetchError as e:
                print(e.hint, b"".join(line.data for status in told for line in status.logs).decode())
                raise
            finally:
                await bridge.close()

    return front.call(run()), told


def test_an_image_by_a_front_end(front):
    async def look(bridge, result):
        ref = result.refs[""]
        return result, [await bridge.read_file(ref, path) for path in ("/made/file", "/told")]

    (result, found), told = asked(front, "image", look, base="base:1", text="what it was told")
    assert found == [b"by a front end\n", b"what it was told"]
    assert b'"made": "by a front end"' in result.metadata["containerimage.config"]
    names = {vertex.name for status in told for vertex in status.vertexes}
    assert {"[frontend] front:1", "looking for the base"} <= names
    assert [one.short for status in told for one in status.warnings] == [b"beware"]
    assert b"on its way\n" in b"".join(line.data for status in told for line in status.logs)


def test_what_it_is_given(front):
    text = pb.FileActionMkFile(path="/file", mode=0o644, data=b"of the client", timestamp=-1)
    given = define(files(None, [Action(pb.FileAction(mkfile=text))]))

    async def look(bridge, result):
        return await bridge.read_file(result.refs[""], "/file")

    found, _ = asked(front, "inputs", look, inputs={"given": given})
    assert found == b"of the client"


def test_what_it_says_of_its_result(front):
    """In a file of one statement, and in a directory of them."""

    async def look(bridge, result):
        return (await products(bridge, result))[0].attestations

    (said, first, second), _ = asked(front, "attest", look, said='{"w": 1}')
    image = Subject(name="image", digest={"sha256": "2" * 64})

    def told(one):
        found = json.loads(one.statement([image]))
        return found["predicateType"], found["predicate"], [sub["name"] for sub in found["subject"]]

    assert told(said) == ("https://x/said", {"w": 1}, ["image", "other"])
    assert (said.path, said.inline_only, first.path, first.inline_only) == ("said.json", True, "a.json", False)
    assert told(first) == ("https://x/bundled", {"n": 1}, ["image"])
    assert told(second) == ("https://x/bundled", 2, ["it"])
    with pytest.raises(InvalidArgument, match="attestation /said.json: its predicate is no JSON object"):
        asked(front, "attest", look, said="no json")


@pytest.mark.parametrize("released", ["", "yes"])
def test_processes_that_it_runs(front, released):
    """In containers over results, over its own standard streams; what it does not release ends with it."""

    async def look(bridge, result):
        return await bridge.read_file(result.refs[""], "/said")

    assert asked(front, "container", look, base="base:1", released=released)[0] == b"and its input first\n"
    front.until_gone()


def test_its_network(front):
    async def look(bridge, result):
        return await bridge.read_file(result.refs[""], "/links")

    assert asked(front, "network", look)[0] == b"eth0 lo"
    assert asked(front, "network", look, source="front:alone")[0] == b"lo"


def test_how_it_fails(front):
    with pytest.raises(ReturnedError, match="it cannot be done") as failed:
        asked(front, "error")
    assert failed.value.code == 3
    for do, code in (("silence", 0), ("crash", 9), ("fill", 137), ("nothing of the kind", 1)):
        with pytest.raises(KetchError, match=f"front:1 ended without a result: exit code: {code}"):
            asked(front, do)
    with pytest.raises(KetchError, match="ended without a result"):
        asked(front, "nonsense")
    with pytest.raises(KetchError, match="ended without a result: it has been killed"):
        asked(front, "stray")
    with pytest.raises(UnsupportedCapability):
        asked(front, "error", **{"frontend.caps": "moby.buildkit.frontend.contexts"})
    front.until_gone()


def test_one_that_asks_for_itself(front):
    with pytest.raises(ReturnedError, match="frontend front:1: 16 of this build run"):
        asked(front, "again")
    front.until_gone()


def test_what_it_may_not(front):
    """Return twice, use another build's results, send what is too large: it is told so, and its build goes on."""

    async def look(bridge, result):
        ref = result.refs[""]
        return await bridge.read_file(ref, "/first")

    assert asked(front, "twice", look)[0] == b"1"
    text = pb.FileActionMkFile(path="/x", mode=0o644, data=b"of another build", timestamp=-1)

    async def another():
        with front.layers.lease() as lease:
            bridge = Bridge(front.ketch.builds.builder(), Client(), lease, lambda _status: None)
            ref = bridge.ref(files(None, [Action(pb.FileAction(mkfile=text))]))
            await ref.tree()
            return bridge, ref.id

    async def told(bridge, result):
        return json.loads(await bridge.read_file(result.refs[""], "/told"))

    bridge, stranger = front.call(another())
    try:
        found, _ = asked(front, "strangers", told, stranger=stranger)
    finally:
        front.call(bridge.close())
    assert found[:2] == [f"UNKNOWN: no such ref: {stranger}"] * 2
    assert found[2] == "UNKNOWN: no ref: an empty result has no files"
    assert found[3] == f"UNKNOWN: no such ref: {stranger}"
    assert found[4].startswith("RESOURCE_EXHAUSTED: "), found[4]


@pytest.mark.parametrize("do", ["loop", "hold"])
def test_one_that_does_not_end_ends_with_its_build(front, do):
    """With all that it runs."""
    told = []

    def ready():
        lines = b"".join(line.data for status in told for line in status.logs)
        return b"it runs" in lines if do == "hold" else front.remains()

    async def run():
        builder = front.ketch.builds.builder()
        with front.layers.lease() as lease:
            bridge = Bridge(builder, Client(), lease, told.append)
            gateway = GatewayFrontend(front.executor, lambda: [worker(front.ketch)])
            attrs = {"source": "front:1", "do": do, "base": "base:1"}
            task = asyncio.create_task(gateway(bridge, FrontendRequest(attrs=attrs)))
            await asyncio.to_thread(until, ready, "the front end does not begin")
            assert not task.done()
            task.cancel()
            await asyncio.wait([task])
            await bridge.close()
            return task.cancelled()

    assert front.call(run())
    front.until_gone()
