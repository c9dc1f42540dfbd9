"""Images and registries that would make the puller allocate, recurse or ask without bound: an error, and soon.

The daemon's memory is measured: its peak since the test began.
"""

from __future__ import annotations

import gzip
import io
import itertools
import json
import lzma
import os
import tarfile

import pytest
import zstandard
from isal import igzip

from tests.support.memory import MIB, Memory
from tests.support.registries import made_images as made
from tests.support.registries.nasty_registry import Fault, NastyRegistry
from tests.support.waiting import until

pytestmark = pytest.mark.ketch_only
DEEP = b"[" * 100_000
# Of one request: a body of 8 MiB that is read whole, decoded, and what the interpreter keeps for later.
ALLOWED_MIB = 160


@pytest.fixture
def puller(engine):
    """(pull a reference or load an archive, which must be refused; returns what was said)."""
    memory = Memory(engine.process.pid)
    before = content(engine)

    def refuse(*args: str, stdin: bytes = b"") -> str:
        result = engine.docker(*args, stdin=stdin, check=False, timeout=40)
        text = result.err + result.out
        assert result.code == 1, text
        assert "internal error" not in text and "Traceback" not in text, text
        return text

    yield refuse
    grown = memory.grown_mib()
    print(f"peak of ketchd: +{grown:.0f} MiB")
    assert grown < ALLOWED_MIB
    assert engine.docker("info", "-f", "{{.ServerVersion}}").code == 0
    engine.client("image", "prune", "-f")
    until(lambda: content(engine) <= before, lambda: f"left: {content(engine) - before}")


def content(engine) -> set[str]:
    places = ("content/blobs/sha256", "content/ingest", "layers")
    return {f"{p}/{n}" for p in places for n in os.listdir(os.path.join(engine.data_root, p))}


@pytest.fixture
def registry():
    with NastyRegistry() as one:
        yield one


# -- JSON --------------------------------------------------------------------------------------


def manifest_with(member: bytes) -> bytes:
    good = json.loads(made.image({"a": b"x"}).data)
    return json.dumps(good).encode()[:-1] + b', "more": ' + member + b"}"


MANIFESTS = {
    "too large": (lambda: b" " * (64 * MIB), "larger than"),
    "deep": (lambda: manifest_with(DEEP), ""),
    "deep and closed": (lambda: manifest_with(DEEP + b"]" * len(DEEP)), ""),
    "deep as config": (lambda: b'{"schemaVersion":2,"config":' + DEEP + b"}", ""),
    "deep as manifests": (lambda: b'{"schemaVersion":2,"manifests":' + DEEP + b"}", ""),
    "many empty lists": (lambda: b'{"schemaVersion":2,"manifests":[' + b"[]," * MIB + b"[]]}", ""),
    "many empty objects": (lambda: b'{"schemaVersion":2,"config":[' + b"{}," * MIB + b"{}]}", ""),
    "not UTF-8": (lambda: b'{"schemaVersion":2,"mediaType":"\xff\xfe"}', ""),
    "a list": (lambda: b"[]", ""),
    "nothing": (lambda: b"", ""),
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifests(puller, registry, name):
    make, said = MANIFESTS[name]
    registry.manifests["app/manifests/1"] = (make(), made.MANIFEST)
    assert said in puller("pull", f"{registry.host}/app:1")


def test_more_layers_than_there_can_be(puller, registry):
    one = json.loads(made.image({"a": b"x"}).data)
    for layers, ids in ((20_000, 20_000), (20_000, 1)):
        diff_id = made.digest(b"x")
        config = json.dumps(
            {
                "architecture": "amd64",
                "os": "linux",
                "rootfs": {"type": "layers", "diff_ids": [diff_id] * ids},
            }
        ).encode()
        manifest = {**one, "layers": one["layers"] * layers}
        manifest["config"] = {"mediaType": made.CONFIG, "digest": made.digest(config), "size": len(config)}
        data = json.dumps(manifest).encode()
        registry.blobs[made.digest(config)] = config
        registry.manifests["app/manifests/1"] = (data, made.MANIFEST)
        text = puller("pull", f"{registry.host}/app:1")
        assert "layers" in text or "larger than" in text
        assert not registry.asked(one["layers"][0]["digest"])


CONFIGS = {
    "deep": lambda: b'{"architecture":"amd64","os":"linux","x":' + DEEP + b"}",
    "deep volumes": lambda: b'{"architecture":"amd64","os":"linux","config":{"Volumes":{"a":' + DEEP + b"}}}",
    "many": lambda: b'{"architecture":"amd64","os":"linux","config":{"Volumes":{"a":[' + b"[]," * (2 * MIB) + b"[]]}}}",
    "too large": lambda: b'{"architecture":"amd64","os":"linux"}' + b" " * (9 * MIB),
}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("way", ["pull", "load"])
def test_configurations(puller, registry, name, way):
    config = CONFIGS[name]()
    one = json.loads(made.image({"a": b"x"}).data)
    one["config"] = {"mediaType": made.CONFIG, "digest": made.digest(config), "size": len(config)}
    data = json.dumps(one).encode()
    if way == "pull":
        registry.blobs[made.digest(config)] = config
        registry.manifests["app/manifests/1"] = (data, made.MANIFEST)
        puller("pull", f"{registry.host}/app:1")
        return
    files = {"config.json": config, "layer.tar": made.tar({"a": b"x"})}
    entry = [{"Config": "config.json", "RepoTags": ["127.0.0.1:1/app:1"], "Layers": ["layer.tar"]}]
    puller("load", stdin=made.tar({**files, "manifest.json": json.dumps(entry).encode()}))


def test_indexes_in_indexes(puller, registry):
    one = made.image({"a": b"x"})
    for _ in range(12):
        body = {"schemaVersion": 2, "mediaType": made.INDEX, "manifests": [one.descriptor()]}
        one = made.Made(
            json.dumps(body).encode(), made.INDEX, {"architecture": "amd64", "os": "linux"}, manifests=[one]
        )
    registry.add("app", "1", one)
    assert "nested too deeply" in puller("pull", f"{registry.host}/app:1")
    assert len(registry.asked("/manifests/")) < 8


@pytest.mark.parametrize("name", ["manifest.json", "index.json"])
def test_archives_with_deep_json(puller, name):
    puller("load", stdin=made.tar({"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', name: DEEP}))
    puller("load", stdin=made.tar({name: b"[" + b"[]," * (3 * MIB) + b"[]]"}))


# -- what registries answer --------------------------------------------------------------------


def test_redirects_without_end(puller, registry):
    registry.faults.append(Fault("/manifests/", status=307, headers={"Location": "/v2/app/manifests/1"}, body=b""))
    assert "redirects" in puller("pull", f"{registry.host}/app:1")
    assert len(registry.asked("/manifests/")) <= 60


@pytest.mark.parametrize(
    "place", ["http://[", "http://[::1:99999/", "file:///etc/passwd", "ftp://x/", "//", "http://:0/"]
)
def test_redirects_to_nowhere(puller, registry, place):
    registry.faults.append(Fault("/manifests/", status=307, headers={"Location": place}, body=b""))
    puller("pull", f"{registry.host}/app:1")
    assert len(registry.asked("/manifests/")) <= (10 if place == "//" else 1)  # `//` is the same place


@pytest.mark.parametrize(
    "realm", ["http://[", "file:///etc/passwd", "", "http://127.0.0.1:1/token", "http://127.0.0.1:99999/"]
)
def test_token_servers_that_are_none(puller, registry, realm):
    challenge = {"WWW-Authenticate": f'Bearer realm="{realm}",service="x",scope="y"'}
    registry.faults.append(Fault("/v2/", status=401, headers=challenge))
    puller("pull", f"{registry.host}/app:1")


TOKENS = {
    "large": b'{"token":"' + b"x" * (8 * MIB) + b'"}',
    "deep": b'{"x":' + DEEP + b"}",
    "a header of its own": json.dumps({"token": "x\r\nX-Injected: y"}).encode(),
    "not ASCII": json.dumps({"token": "é"}, ensure_ascii=False).encode(),
    "huge number": b'{"token":"x","expires_in":' + b"9" * 5000 + b"}",
    "a list": b"[]",
}


@pytest.mark.parametrize("name", TOKENS)
def test_tokens(puller, name):
    with NastyRegistry(token=True, uses=0) as registry:
        registry.faults.append(Fault("/token", body=TOKENS[name]))
        puller("pull", f"{registry.host}/app:1")


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Long": "x" * (2 * MIB)},
        {f"X-Many-{n}": "x" * 100 for n in range(5000)},
        {"WWW-Authenticate": "Bearer " + 'a="b",' * 1000},
        {"WWW-Authenticate": ("x " * 4000)},
        {"Docker-Content-Digest": "sha256:" + "é" * 10},
    ],
    ids=["long", "many", "parameters", "schemes", "digest"],
)
def test_headers(puller, registry, headers):
    registry.faults.append(Fault("/v2/", status=401, headers=headers))
    puller("pull", f"{registry.host}/app:1")
    assert len(registry.asked("/v2/")) <= 3


ERRORS = {
    "large": lambda: b"x" * (64 * MIB),
    "deep": lambda: b'{"errors":' + DEEP + b"}",
    "cut": lambda: b'{"errors":[{"message":"' + b"y" * 60000,
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(puller, registry, name):
    registry.faults.append(Fault("/manifests/", status=404, body=ERRORS[name]()))
    assert len(puller("pull", f"{registry.host}/app:1")) < 100_000


@pytest.mark.parametrize("next_page", ["/v2/app/tags/list", "/v2/app/tags/list?last=%d"], ids=["same", "others"])
async def test_lists_of_tags_that_do_not_end(next_page):
    from ketch.errors import Unavailable
    from ketch.oci import reference
    from ketch.remote.client import Remotes
    from ketch.remote.settings import Settings

    pages = itertools.count()

    class Paged(Fault):
        """Each page points to another one."""

        def __getattribute__(self, name: str) -> object:
            if name == "headers":
                return {"Link": f'<{next_page.replace("%d", str(next(pages)))}>; rel="next"'}
            return super().__getattribute__(name)

    with NastyRegistry() as registry:
        body = json.dumps({"tags": ["x" * 1000] * 1000}).encode()
        registry.faults.append(Paged("/tags/list", status=200, body=body))
        remotes = Remotes(Settings(insecure=(registry.host,), attempts=1))
        try:
            with pytest.raises(Unavailable, match="does not end"):
                await remotes.repository(reference.parse(f"{registry.host}/app")).tags()
        finally:
            await remotes.close()
        assert len(registry.asked("/tags/list")) < 100


# -- archives ----------------------------------------------------------------------------------


def pax(kind: bytes, records: bytes) -> bytes:
    info = tarfile.TarInfo("headers")
    info.type, info.size = kind, len(records)
    header = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    return bytes(header) + records + bytes(-len(records) % 512)


def record(key: str, size: int) -> bytes:
    length = size + len(key) + 3
    length += len(str(length + len(str(length))))
    return f"{length} {key}={'v' * (length - len(str(length)) - len(key) - 3)}\n".encode()


def blob_of(pieces, compression: str) -> bytes:
    """Compressed piece by piece: what it is in full is never in memory."""
    out = io.BytesIO()
    if compression == "gzip":
        with igzip.GzipFile(fileobj=out, mode="wb", compresslevel=2, mtime=0) as f:
            for piece in pieces:
                f.write(piece)
    else:
        with zstandard.ZstdCompressor(level=3).stream_writer(out, closefd=False) as f:
            for piece in pieces:
                f.write(piece)
    return out.getvalue()


def bombs():
    one = pax(b"x", record("comment", MIB - 200))
    yield "pax headers without end", (one for _ in range(600)), "extended headers"
    yield "global headers without end", (pax(b"g", record(f"k{n}", MIB - 200)) for n in range(600)), "headers"
    many = b"".join(b"%d k%d=v\n" % (len(str(n)) + 7, n) for n in range(10_000, 60_000))
    yield "global records", iter([pax(b"g", many)] * 3), "headers"
    yield "a long name", (pax(b"L", b"n" * (MIB - 1)) for _ in range(600)), "extended headers"
    yield "a header of a terabyte", iter([pax(b"x", b"")[:512].replace(b"00000000000", b"77777777777", 1)]), "header"


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
@pytest.mark.parametrize("name", [name for name, _, _ in bombs()])
def test_layers(puller, registry, engine, name, compression):
    pieces, said = next((pieces, said) for one, pieces, said in bombs() if one == name)
    blob = blob_of(pieces, compression)
    image = made.image({"a": b"x"})
    manifest = json.loads(image.data)
    manifest["layers"] = [{"mediaType": made.LAYERS[compression], "digest": made.digest(blob), "size": len(blob)}]
    registry.blobs = {**image.blobs, made.digest(blob): blob}
    registry.manifests["app/manifests/1"] = (json.dumps(manifest).encode(), made.MANIFEST)
    assert said in puller("pull", f"{registry.host}/app:1")
    # The same by way of load, import and cp, which are read in the daemon itself.
    for command in (("load",), ("import", "-", "bomb")):
        puller(*command, stdin=blob)


def test_archives_of_links_without_end(puller):
    def links():
        for n in range(20_000):
            info = tarfile.TarInfo(f"link{n}")
            info.type, info.linkname = tarfile.SYMTYPE, "x"
            yield info.tobuf(tarfile.USTAR_FORMAT)

    assert "more than" in puller("load", stdin=blob_of(links(), "gzip"))


def test_windows_that_want_gigabytes(puller):
    """A stream of some bytes says itself how much memory its decoder needs."""
    data = os.urandom(1000) + bytes(MIB)
    xz = lzma.compress(data, filters=[{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1536 * MIB - 1}])
    parameters = zstandard.ZstdCompressionParameters(window_log=30, enable_ldm=False)
    zstd = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    frame = zstd.compress(data) + zstd.flush()
    for blob in xz, frame:
        for command in (("load",), ("import", "-", "bomb")):
            assert "memory" in puller(*command, stdin=blob).lower()


def test_ordinary_compressions_still_work(engine):
    plain = made.tar({"a": b"x" * 100_000})
    halves = lzma.compress(plain[:50_000]) + bytes(8) + lzma.compress(plain[50_000:])
    for blob in (lzma.compress(plain, preset=9), halves, zstandard.compress(plain, 19), gzip.compress(plain)):
        engine.docker("import", "-", "good", stdin=blob)
        engine.docker("rmi", "good")
    for cut in (lzma.compress(plain)[:-10], halves[:-20]):
        result = engine.docker("import", "-", "bad", stdin=cut, check=False)
        assert result.code == 1 and "broken xz stream" in result.err
