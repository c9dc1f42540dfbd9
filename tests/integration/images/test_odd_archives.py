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
OLD_IDS = [  # by dockerd's encoding of the configurations
    "sha256:f88cdab7f16ac0089a0b3bd081244ef2afd65313c46e8c2c3c1de4a2a1a81228",
    "sha256:476f481e17f4aa13f2512dfa08abfc205b20c4961920f59b14e4f9e7c9d382b1",
]
CONFIG = {"architecture": "amd64", "os": "linux", "config": {"Cmd": ["x"]}, "rootfs": {"diff_ids": DIFF_IDS[:1]}}


def docker_archive(config: dict[str, object], entry: dict[str, object] | None = None) -> bytes:
    described = {"Config": "c.json", "RepoTags": ["odd:1"], "Layers": ["l/layer.tar"], **(entry or {})}
    manifest = json.dumps([described]).encode()
    return tar({"c.json": json.dumps(config).encode(), "l/layer.tar": LAYERS[0], "manifest.json": manifest})


def oldest_archive(names: dict[str, dict[str, str]] | None) -> bytes:
    below = {"id": OLD, "created": "2015-01-01T00:00:00Z", "config": {"Cmd": ["old"]}, "architecture": "amd64"}
    below |= {"docker_version": "20.10.1", "container_config": {"Cmd": ["sh", "-c", "a <b>"]}}
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


def test_how_configurations_are_read(api):
    """As Go decodes them: names in any case, nulls, texts for lists of words; times are those of RFC 3339."""
    other = {
        "OS": "linux",
        "Architecture": None,
        "RootFS": {"Type": "layers", "Diff_IDs": DIFF_IDS[:1]},
        "config": {"cmd": "x", "ENV": None},
        "history": None,
    }
    assert loaded(api, docker_archive(other)) == ("linux", "", ["x"], DIFF_IDS[:1])
    more = {"docker_version": "1.2", "variant": "v7", "os.version": "1", "created": "2020-01-02T03:04:05.1200+02:00"}
    loaded(api, docker_archive({**CONFIG, **more, "rootfs": {"type": "x", "diff_ids": DIFF_IDS[:1]}}))
    image = api("GET", "/images/odd:1/json")[1]
    assert [image[name] for name in ("DockerVersion", "Variant", "OsVersion")] == ["1.2", "v7", "1"]
    assert (image["Created"], image["RootFS"]["Type"]) == ("2020-01-02T03:04:05.12+02:00", "x")
    for created, row, seen, long_ago in (
        (None, 0, None, "0001-01-01T00:00:00Z"),
        ("1969-12-31T23:59:59Z", -1, "1969-12-31T23:59:59Z", "1969-12-31T23:59:59Z"),
    ):
        loaded(api, docker_archive({**CONFIG, "created": created, "history": [{"created": created}]}))
        image, old = (api("GET", f"/v{version}/images/odd:1/json")[1] for version in ("1.44", "1.43"))
        assert (image.get("Created"), old["Created"]) == (seen, long_ago)
        assert api("GET", "/images/odd:1/history")[1][0]["Created"] == row
        rows = api("GET", "/images/json", filters='{"reference":["odd:1"]}')[1]
        assert [one["Created"] for one in rows] == [row]


@pytest.mark.parametrize("field", ["created", "history"])
def test_times_that_are_none(api, field):
    layout = 'as "2006-01-02T15:04:05Z07:00": cannot parse'
    for text, words in (
        ("", f'parsing time "" {layout} "" as "2006"'),
        ("x", f'parsing time "x" {layout} "x" as "2006"'),
        ("2020-1", f'parsing time "2020-1" {layout} "1" as "01"'),
        ("2020-01-02", f'parsing time "2020-01-02" {layout} "" as "T"'),
        ("2020-01-02T03:04:05", f'parsing time "2020-01-02T03:04:05" {layout} "" as "Z07:00"'),
        ("2020-01-02T03:04:05Zx", 'parsing time "2020-01-02T03:04:05Zx": extra text: "x"'),
        ("2020-13-02T03:04:05Z", 'parsing time "2020-13-02T03:04:05Z": month out of range'),
        ("2020-02-30T03:04:05Z", 'parsing time "2020-02-30T03:04:05Z": day out of range'),
        ("2020-01-02T03:04:05+25:00", 'parsing time "2020-01-02T03:04:05+25:00": time zone offset hour out of range'),
    ):
        archive = docker_archive({**CONFIG, field: text if field == "created" else [{"created": text}]})
        answer = api("POST", "/images/load", archive)[1]
        assert answer["error"].startswith(words), answer


def test_configurations_that_are_none(api):
    for change, words in (
        ({"rootfs": None}, "invalid image JSON, no RootFS key"),
        ({"history": [{}, {}]}, "too many non-empty layers in History section"),
        ({"created": 5}, "json: cannot unmarshal number into Go struct field Image.created of type time.Time"),
        ({"architecture": 5}, "json: cannot unmarshal number into Go struct field Image.architecture of type string"),
        ({"history": 5}, "json: cannot unmarshal number into Go struct field Image.history of type []v1.History"),
        (
            {"config": {"Env": "x"}},
            "json: cannot unmarshal string into Go struct field Image.config.Env of type []string",
        ),
    ):
        answer = api("POST", "/images/load", docker_archive({**CONFIG, **change}))[1]
        assert answer["error"].startswith(words), answer
    for tags, words in ((["odd"], 'invalid tag "odd"'), (["ODD:1"], "invalid reference format: repository name")):
        answer = api("POST", "/images/load", docker_archive(CONFIG, {"RepoTags": tags}))[1]
        assert answer["error"].startswith(words), answer
    api("POST", "/images/prune")  # dockerd keeps an image whose name it refuses


def test_what_a_load_tells(api):
    """Nothing of layers unless asked for; and which image lost its name."""
    first, second = (docker_archive({**CONFIG, "author": author}) for author in ("a", "b"))
    told = {"stream": "Loaded image: odd:1\n"}
    assert api("POST", "/images/load", first) == (200, told)
    before = api("GET", "/images/odd:1/json")[1]["Id"]
    old = f"The image odd:1 already exists, renaming the old one with ID {before} to empty string\n"
    status, lines = api("POST", "/images/load", second)
    assert status == 200 and [json.loads(line) for line in lines.split(b"\r\n") if line] == [{"stream": old}, told]
    assert api("GET", f"/images/{before}/json")[1]["RepoTags"] == []
    assert api("DELETE", f"/images/{before}")[0] == 200


def test_layers_that_are_here_already(api):
    """An archive need not have them: only that of an image on other layers is refused."""
    assert "Loaded image: odd:1" in str(api("POST", "/images/load", docker_archive(CONFIG))[1])
    config = {**CONFIG, "rootfs": {"diff_ids": DIFF_IDS}}
    entry = {"Config": "c.json", "RepoTags": ["odd:base"], "Layers": ["nowhere", "l/layer.tar"]}
    files = {"c.json": json.dumps(config).encode(), "manifest.json": json.dumps([entry]).encode()}
    above = tar({**files, "l/layer.tar": LAYERS[1]})
    whole = ("linux", "amd64", ["x"], DIFF_IDS)
    assert loaded(api, above, "odd:base") == whole
    _, saved = api("GET", "/images/odd:base/get")
    for name in ("odd:base", "odd:1"):
        assert api("DELETE", f"/images/{name}")[0] == 200
    assert "nowhere" in loaded(api, above, "odd:base")
    assert loaded(api, saved, "odd:base") == whole


def test_the_oldest_format(api):
    archive = oldest_archive({"odd": {"1": NEW, "base": OLD}})
    assert api("POST", "/images/load", archive) == (200, None)  # nothing is told
    assert loaded(api, archive) == ("linux", "amd64", ["new"], DIFF_IDS)
    assert loaded(api, archive, "odd:base") == ("linux", "amd64", ["old"], DIFF_IDS[:1])
    image, base = (api("GET", f"/images/{name}/json")[1] for name in ("odd:1", "odd:base"))
    assert (image["Created"], image["Author"], image["Comment"]) == ("2015-01-01T00:00:00Z", "me", "c")
    assert (image["Id"], image["Parent"], base["Parent"]) == (OLD_IDS[1], OLD_IDS[0], "")
    steps = api("GET", "/images/odd:1/history")[1]
    assert [step["Id"] for step in steps] == [image["Id"], base["Id"]]
    assert [step["CreatedBy"] for step in steps] == ["sh -c a <b>"] * 2
    assert api("DELETE", "/images/odd:base") == (200, [{"Untagged": "odd:base"}])
    gone = [next(iter(row)) for row in api("DELETE", "/images/odd:1")[1]]
    assert gone == ["Untagged", *["Deleted"] * 4]  # with the one below it, and the layers of both
    for names in ({}, {"odd": {}}, {"odd": None}, None):
        assert api("POST", "/images/load", oldest_archive(names)) == (200, None)
    for names, words in (
        ({"odd": {"1": "c" * 64}}, f"invalid target ID: {'c' * 64}"),
        ({"odd": {"1": "../x"}}, "invalid target ID: ../x"),
        ({"odd": {"1": ""}}, "invalid target ID: "),
        ({"odd": {"!": NEW}}, "invalid tag format"),
    ):
        assert words in loaded(api, oldest_archive(names))


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
