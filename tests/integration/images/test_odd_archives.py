"""Archives that leave something out, or are very old; imports of nothing, and of what a web server has."""

from __future__ import annotations

import functools
import hashlib
import http.server
import io
import json
import tarfile
import threading

import pytest

from tests.support.rawapi import Api

OLD, NEW = "a" * 64, "b" * 64


def tar(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


LAYERS = [tar({"hello": b"hi"}), tar({"second": b"yo"})]
DIFF_IDS = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in LAYERS]
CONFIG = {"architecture": "amd64", "os": "linux", "config": {"Cmd": ["x"]}, "rootfs": {"diff_ids": DIFF_IDS[:1]}}


def docker_archive(config: dict[str, object], entry: dict[str, object] | None = None) -> bytes:
    described = {"Config": "c.json", "RepoTags": ["odd:1"], "Layers": ["l/layer.tar"], **(entry or {})}
    manifest = json.dumps([described]).encode()
    return tar({"c.json": json.dumps(config).encode(), "l/layer.tar": LAYERS[0], "manifest.json": manifest})


def oldest_archive(names: dict[str, dict[str, str]]) -> bytes:
    below = {"id": OLD, "created": "2015-01-01T00:00:00Z", "config": {"Cmd": ["old"]}, "architecture": "amd64"}
    top = {**below, "id": NEW, "parent": OLD, "config": {"Cmd": ["new"]}, "author": "me", "comment": "c"}
    files = {"repositories": json.dumps(names).encode()}
    for config, layer in zip((below, top), LAYERS, strict=True):
        files |= {f"{config['id']}/json": json.dumps(config).encode(), f"{config['id']}/layer.tar": layer}
    return tar(files)


@pytest.fixture
def api(engine):
    one = Api(engine.socket)
    yield one
    for name in ("odd:1", "odd:base"):
        one("DELETE", f"/images/{name}", force=1)


def loaded(api: Api, archive: bytes, name: str = "odd:1"):
    """(Os, Architecture, Cmd, layers) of an image that an archive has; its error's text where that is refused."""
    status, answer = api("POST", "/images/load", archive)
    if status != 200 or "error" in str(answer):
        return str(answer)
    status, image = api("GET", f"/images/{name}/json")
    assert status == 200, (answer, image)
    return image["Os"], image["Architecture"], image["Config"]["Cmd"], image["RootFS"].get("Layers")


def test_configurations_that_leave_something_out(api):
    def without(*names: str) -> dict[str, object]:
        return {name: value for name, value in CONFIG.items() if name not in names}

    whole = ("linux", "amd64", ["x"], DIFF_IDS[:1])
    assert loaded(api, docker_archive(without("os"))) == whole
    assert loaded(api, docker_archive({**CONFIG, "os": ""})) == whole
    assert loaded(api, docker_archive(without("architecture"))) == ("linux", "", ["x"], DIFF_IDS[:1])
    empty = {**CONFIG, "rootfs": {"type": "layers", "diff_ids": None}}
    assert loaded(api, docker_archive(empty, {"Layers": None})) == ("linux", "amd64", ["x"], None)
    assert "cannot load windows image on linux" in loaded(api, docker_archive({**CONFIG, "os": "windows"}))
    mismatch = "invalid manifest, layers length mismatch: expected 0, got 1"
    assert mismatch in loaded(api, docker_archive(CONFIG, {"Layers": []}))
    assert "manifest cannot be null (but can be [])" in str(
        api("POST", "/images/load", tar({"manifest.json": b"null"}))
    )
    assert api("POST", "/images/load", tar({"manifest.json": b"[]"}))[0] == 200


def test_the_oldest_format(api):
    archive = oldest_archive({"odd": {"1": NEW, "base": OLD}})
    assert loaded(api, archive) == ("linux", "amd64", ["new"], DIFF_IDS)
    assert loaded(api, archive, "odd:base") == ("linux", "amd64", ["old"], DIFF_IDS[:1])
    image = api("GET", "/images/odd:1/json")[1]
    assert (image["Created"], image["Author"], image["Comment"]) == ("2015-01-01T00:00:00Z", "me", "c")
    assert len(api("GET", "/images/odd:1/history")[1]) == 2
    assert f"invalid target ID: {'c' * 64}" in loaded(api, oldest_archive({"odd": {"1": "c" * 64}}))
    assert "invalid target ID" in loaded(api, oldest_archive({"odd": {"1": "../x"}}))


def test_an_import_of_nothing(api):
    assert api("POST", "/images/create", b"", fromSrc="-", repo="odd", tag="1", media="application/x-tar")[0] == 200
    image = api("GET", "/images/odd:1/json")[1]
    assert len(image["RootFS"]["Layers"]) == 1 and image["Size"] == 0


@pytest.mark.ketch_only
def test_an_import_from_a_web_server(engine, api, tmp_path):
    (tmp_path / "root.tar").write_bytes(LAYERS[0])
    (tmp_path / "junk").write_bytes(b"junk" * 300)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=tmp_path))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    host = f"127.0.0.1:{server.server_address[1]}"
    try:
        for source in (f"http://{host}/root.tar", f"{host}/root.tar"):
            status, answer = api("POST", "/images/create", fromSrc=source, repo="odd", tag="1", changes="CMD a")
            assert status == 200 and f"Downloading from http://{host}/root.tar" in str(answer)
            image = api("GET", "/images/odd:1/json")[1]
            assert image["RootFS"]["Layers"] == DIFF_IDS[:1]
            assert image["Comment"] == f"Imported from http://{host}/root.tar"
        assert "sha256:" in engine.ketch("import", f"http://{host}/root.tar", "odd:1").out
        for source, expected, words in (
            (f"http://{host}/nope", 404, f"failed to GET http://{host}/nope with status 404 File not found"),
            (f"https://{host}/root.tar", 500, f'Get "https://{host}/root.tar": '),
            ("http://127.0.0.1:1/x", 500, "dial tcp 127.0.0.1:1: connect: connection refused"),
            ("ftp://127.0.0.1/x", 500, 'Get "ftp://127.0.0.1/x": unsupported protocol scheme "ftp"'),
            ("http:///x", 500, 'Get "http:///x": http: no Host in request URL'),
            ("://x", 400, 'parse "://x": missing protocol scheme'),
            (f"http://{host}/junk", 200, "invalid tar header"),
        ):
            status, answer = api("POST", "/images/create", fromSrc=source, repo="odd", tag="2")
            assert status == expected and words in str(answer), (source, answer)
    finally:
        server.shutdown()
        server.server_close()
