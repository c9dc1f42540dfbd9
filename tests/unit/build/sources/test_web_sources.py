"""Files of the web as sources, from a real server on loopback."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import stat
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ketch.build.cache.maps import Download, http_map
from ketch.build.sources.kept.versions import Version, Versions
from ketch.errors import Conflict, InvalidArgument, NotFound, Unavailable
from tests.support.building.sources import FolderDraft, LayerFolders, SourceBox, SourceClient, SourceWork

MODIFIED = "Tue, 05 Mar 2024 10:20:30 GMT"
SECONDS = 1709634030


class FileServer(ThreadingHTTPServer):
    """A server whose answers are ``pages`` (path → status, headers, body), with the requests that it got."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.pages, self.asked, self.bodies = {}, [], 0
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append((self.path, dict(self.headers)))
        status, header, body = self.server.pages.get(self.path, (404, {}, b"no"))
        if status == 200 and header.get("ETag", "-") in self.headers.get("If-None-Match", "").split(", "):
            status, body = 304, b""
        self.send_response(status)
        for name, value in header.items():
            self.send_header(name, value)
        if status != 304 and "Content-Length" not in header:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.server.bodies += bool(body)

    def log_message(self, *_):
        pass


def test_a_cancelled_download_has_ended_and_left_nothing(server, box):
    """Also one that is cancelled while its layer is begun, or made."""
    server.pages["/f"] = 200, {}, b"content"
    for name in ("begin", "commit"):
        begun, let = threading.Event(), threading.Event()
        operation, work = box.operation(f"{server.url}/f"), SourceWork(box.client)

        async def cancelled(name=name, begun=begun, let=let, operation=operation, work=work):
            with pytest.MonkeyPatch.context() as patch:
                of = LayerFolders if name == "begin" else FolderDraft
                plain = getattr(of, name)

                def slow(*arguments):
                    begun.set()
                    let.wait()
                    return plain(*arguments)

                patch.setattr(of, name, slow)
                task = asyncio.create_task(operation.run(work, ()))
                await asyncio.to_thread(begun.wait)
                task.cancel()
                await asyncio.sleep(0.01)
                early = task.done()
                let.set()
                assert not early
                with pytest.raises(asyncio.CancelledError):
                    await task

        asyncio.run(cancelled())
        assert [path.name for path in box.layers.root.iterdir() if path.name.startswith("draft")] == []


@pytest.fixture
def server():
    with FileServer() as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.01,))
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture
def box(tmp_path):
    return SourceBox(tmp_path)


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def test_a_file_with_its_time_and_mode(box, server):
    server.pages["/d/file%20name?x=1"] = (200, {"Last-Modified": MODIFIED}, b"content")
    maps, layer = box.run(f"{server.url}/d/file%20name?x=1")
    file = layer / "file name"
    status = file.stat()
    assert file.read_bytes() == b"content"
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_mtime) == (0o600, 0, 0, SECONDS)
    assert maps == [http_map(Download("file name", digest(b"content"), modified=MODIFIED))]
    attrs = {"http_filename": "f", "http_perm": "0755", "http_uid": "5", "http_gid": "6"}
    maps, layer = box.run(f"{server.url}/d/file%20name?x=1", **attrs)
    status = (layer / "f").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o755, 5, 6)
    assert maps == [http_map(Download("f", digest(b"content"), 0o755, 5, 6, MODIFIED))]


@pytest.mark.parametrize(
    ("disposition", "path", "expected"),
    [
        ('attachment; filename="given.tgz"', "/x", "given.tgz"),
        ('attachment; filename="a/b/last"', "/x", "last"),
        ('attachment; filename="../../out"', "/x", "out"),
        ('attachment; filename=".."', "/x", "download"),
        ('attachment; filename="d/"', "/d/x/", "x"),
        ("inline", "/", "download"),
    ],
)
def test_names(box, server, disposition, path, expected):
    server.pages[path] = (200, {"Content-Disposition": disposition}, b"x")
    layer = box.run(server.url + path)[1]
    assert [one.name for one in layer.iterdir()] == [expected]


def test_what_servers_said_is_counted_and_removed(box, server):
    server.pages["/f"] = (200, {"ETag": '"1"'}, b"one")
    versions = box.kept.versions
    assert versions.records() == []
    box.run(f"{server.url}/f")
    [kept] = versions.records()
    assert kept.kind == "internal" and versions.size(kept.name) > 0
    assert asyncio.run(versions.remove("other")) == -1
    assert asyncio.run(versions.remove(kept.name)) > 0
    assert versions.records() == []


def test_what_has_not_changed_is_not_downloaded(box, server):
    server.pages["/f"] = (200, {"ETag": '"1"', "Last-Modified": MODIFIED}, b"one")
    first = box.run(f"{server.url}/f")[0]
    assert server.bodies == 1
    operation, work = box.operation(f"{server.url}/f"), SourceWork(box.client)
    assert asyncio.run(operation.cache_maps(work)) == first
    assert server.bodies == 1
    tree = asyncio.run(operation.run(work, ()))[0]  # the result was not in the cache any more
    assert server.bodies == 2
    assert (box.layers.root / tree.layers[0] / "f").read_bytes() == b"one"
    server.pages["/f"] = (200, {"ETag": 'W/"2"'}, b"two")
    second = box.run(f"{server.url}/f")[0]
    assert second == [http_map(Download("f", digest(b"two")))]
    server.pages["/f"] = (200, {"ETag": '"1"', "Last-Modified": MODIFIED}, b"one")
    assert asyncio.run(box.operation(f"{server.url}/f").cache_maps(work)) == first


def test_a_checksum_is_the_key_and_is_verified(box, server):
    server.pages["/f"] = (200, {}, b"one")
    operation = box.operation(f"{server.url}/f", http_checksum=digest(b"one"))
    work = SourceWork(box.client)
    assert asyncio.run(operation.cache_maps(work)) == [http_map(Download("f", digest(b"one")))]
    assert server.asked == []
    assert len(asyncio.run(operation.run(work, ()))) == 1
    with pytest.raises(InvalidArgument, match=f"digest mismatch {digest(b'one')}: {digest(b'two')}"):
        box.run(f"{server.url}/f", http_checksum=digest(b"two"))
    with pytest.raises(InvalidArgument, match="invalid checksum"):
        box.operation(f"{server.url}/f", http_checksum="sha256:x")


def test_a_secret_goes_to_its_server_alone(box, server):
    with FileServer() as other:
        thread = threading.Thread(target=other.serve_forever, args=(0.01,))
        thread.start()
        other.pages["/f"] = (200, {}, b"there")
        server.pages["/f"] = (302, {"Location": other.url.replace("127.0.0.1", "localhost") + "/f"}, b"")
        box.client.secrets["TOKEN"] = b"Bearer abc\n"
        box.run(f"{server.url}/f", http_authheadersecret="TOKEN")
        other.shutdown()
        thread.join()
    assert server.asked[0][1]["Authorization"] == "Bearer abc"
    assert "Authorization" not in other.asked[0][1]
    box.client.secrets["TOKEN"] = b"Bearer abc\r\nX-Other: 1"
    with pytest.raises(InvalidArgument, match="the secret TOKEN cannot be a header"):
        box.run(f"{server.url}/f", http_authheadersecret="TOKEN")
    with pytest.raises(NotFound, match="secret OTHER: not found"):
        box.run(f"{server.url}/f", http_authheadersecret="OTHER")


def test_errors_leave_nothing(box, server):
    server.pages["/broken"] = (200, {"Content-Length": "100"}, b"short")
    server.pages["/500"] = (500, {}, b"oh")
    server.pages["/loop"] = (302, {"Location": "/loop"}, b"")
    for path, kind, text in (
        ("/404", NotFound, "invalid response status 404"),
        ("/500", Unavailable, "invalid response status 500"),
        ("/loop", Unavailable, "stopped after 10 redirects"),
        ("/broken", Unavailable, "unexpected EOF|connection reset"),
    ):
        with pytest.raises(kind, match=text):
            box.run(server.url + path)
    with pytest.raises(Unavailable, match="connection refused"):
        box.run("http://127.0.0.1:1/x")
    with pytest.raises(InvalidArgument, match="invalid file name"):
        box.run(f"{server.url}/f", http_filename="a/b", http_checksum=digest(b""))
    assert list(box.layers.root.iterdir()) == []


def test_a_file_that_changes_between_key_and_download(box, server):
    server.pages["/f"] = (200, {"ETag": '"1"'}, b"one")
    box.run(f"{server.url}/f")
    operation, work = box.operation(f"{server.url}/f"), SourceWork(box.client)
    asyncio.run(operation.cache_maps(work))
    server.pages["/f"] = (200, {"ETag": '"2"'}, b"two")
    with pytest.raises(Conflict, match="changed while it was downloaded"):
        asyncio.run(operation.run(work, ()))


def test_passwords_in_addresses_are_used_and_not_shown(box, server):
    server.pages["/f"] = (200, {}, b"x")
    address = server.url.replace("//", "//user:secret@")
    box.run(f"{address}/f")
    assert server.asked[0][1]["Authorization"] == "Basic " + base64.b64encode(b"user:secret").decode()
    with pytest.raises(NotFound) as caught:
        box.run(f"{address}/none")
    assert "secret" not in f"{caught.value.message}{caught.value.hint}"


def test_what_a_client_keeps_is_a_source(tmp_path):
    box = SourceBox(tmp_path)
    content = b"x" * 3_000_000
    box.client.uploads["/id"] = [content[:10], content[10:]]
    other = SourceClient("other")
    maps, top = box.run("http://buildkit-session/id", SourceWork(other, box.client), http_filename="context")
    assert (top / "context").read_bytes() == content
    work = SourceWork(other, box.client)  # what was given once is known as long as its layer is there
    assert box.run("http://buildkit-session/id", work, http_filename="context") == (maps, top)
    assert top.name in work.lease.names
    box.client.uploads["/id2"] = [content]
    assert box.run("http://buildkit-session/id2", http_filename="context")[0] == maps
    os.rename(top, tmp_path / "aside")
    with pytest.raises(NotFound, match="nothing at http://buildkit-session/id"):
        box.run("http://buildkit-session/id", http_filename="context")
    box.close()


def test_a_note_that_a_killed_writer_left(tmp_path):
    versions = Versions(str(tmp_path))
    versions.keep("key", Version(etag='"1"', checksum="sha256:1"))
    (tmp_path / "key.new-0a1b2c3d").write_text("[")
    assert [one.etag for one in Versions(str(tmp_path)).known("key")] == ['"1"']
    assert [path.name for path in tmp_path.iterdir()] == ["key"]
