"""Our registry by the distribution specification: pull, push, discovery, management; on disk and in S3."""

from __future__ import annotations

import http.client
import json
import os
import re
from urllib.parse import urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.registries import made_images as made
from tests.support.registries.raw import JSON, Raw, begin, named, put_blob, put_manifest
from tests.support.registries.registries import bucket, ours
from tests.support.waiting import patient

ALGORITHMS = ["sha256", "sha512"]


@pytest.fixture(scope="module", params=["disk", "s3"])
def raw(request):
    if request.param == "disk":
        with ours() as one:
            yield Raw(one.host)
    else:
        with bucket() as flags, ours(*flags) as one:
            yield Raw(one.host)


@pytest.fixture
def name(request) -> str:
    """A repository for one test."""
    return "t/" + re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")


def test_the_base(raw):
    status, headers, _ = raw("GET", "/v2/")
    assert status == 200 and headers["docker-distribution-api-version"] == "registry/2.0"


# -- pull --------------------------------------------------------------------------------------


def test_blobs_and_parts_of_them(raw, name):
    data = os.urandom(100_000)
    digest = put_blob(raw, name, data)
    place = f"/v2/{name}/blobs/{digest}"
    status, headers, got = raw("GET", place)
    assert (status, got) == (200, data) and headers["docker-content-digest"] == digest
    status, headers, got = raw("HEAD", place)
    assert (status, got, headers["content-length"]) == (200, b"", "100000")
    for text, part in (("bytes=0-9", data[:10]), ("bytes=99990-", data[-10:]), ("bytes=-5", data[-5:])):
        status, headers, got = raw("GET", place, Range=text)
        assert (status, got) == (206, part)
        assert headers["content-range"].endswith("/100000")
    assert raw("GET", place, Range="bytes=100000-")[0] == 416


def test_one_answer_for_each_request_on_a_connection(raw, name):
    data = os.urandom(100_000)
    digest = put_blob(raw, name, data)
    connection = http.client.HTTPConnection(raw.host, timeout=patient(30))
    for _ in range(3):
        for method, place, body in (("GET", f"blobs/{digest}", data), ("HEAD", f"blobs/{digest}", b"")):
            connection.request(method, f"/v2/{name}/{place}")
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == (200, body)
    connection.close()


def test_manifests_by_tag_and_digest(raw, name):
    digest, data = put_manifest(raw, name, "1.0")
    for ref in ("1.0", digest):
        status, headers, got = raw("GET", f"/v2/{name}/manifests/{ref}", Accept=JSON)
        assert (status, got, headers["content-type"]) == (200, data, JSON)
        status, headers, got = raw("HEAD", f"/v2/{name}/manifests/{ref}")
        assert (status, got, headers["content-length"]) == (200, b"", str(len(data)))
        assert headers["docker-content-digest"] == digest
    assert raw("GET", f"/v2/{name}/manifests/1.0", If_None_Match=f'"{digest}"')[0] == 304


def test_missing_objects(raw, name):
    absent = "sha256:" + "0" * 64
    assert raw.code("GET", f"/v2/{name}/manifests/none") == (404, "MANIFEST_UNKNOWN")
    assert raw.code("GET", f"/v2/{name}/blobs/{absent}") == (404, "BLOB_UNKNOWN")
    assert raw("HEAD", f"/v2/{name}/blobs/{absent}")[0] == 404
    assert raw.code("GET", f"/v2/{name}/tags/list") == (404, "NAME_UNKNOWN")
    assert raw.code("DELETE", f"/v2/{name}/manifests/{absent}") == (404, "MANIFEST_UNKNOWN")
    put_blob(raw, name, b"here")
    assert raw("HEAD", f"/v2/{name}-other/blobs/{made.digest(b'here')}")[0] == 404


# -- push --------------------------------------------------------------------------------------


def test_an_upload_in_two_requests(raw, name):
    data = os.urandom(50_000)
    place = begin(raw, name)
    status, headers, _ = raw("PUT", f"{place}?digest={made.digest(data)}", data)
    assert status == 201 and headers["location"].endswith(made.digest(data))
    assert raw("GET", headers["location"])[2] == data


def test_an_upload_in_chunks(raw, name):
    data = os.urandom(3_000)
    place = begin(raw, name)
    for start in (0, 1000):
        part = data[start : start + 1000]
        status, headers, _ = raw("PATCH", place, part, Content_Range=f"{start}-{start + 999}")
        assert (status, headers["range"]) == (202, f"0-{start + 999}")
        place = headers["location"]
    status, headers, _ = raw("PATCH", place, b"x" * 10, Content_Range="0-9")
    assert status == 416 and headers["range"] == "0-1999"
    status, headers, _ = raw("GET", place)
    assert (status, headers["range"]) == (204, "0-1999")
    digest = made.digest(data)
    assert raw("PUT", f"{place}?digest={digest}", data[2000:], Content_Range="2000-2999")[0] == 201
    assert raw("GET", f"/v2/{name}/blobs/{digest}")[2] == data
    assert raw.code("GET", place) == (404, "BLOB_UPLOAD_UNKNOWN")


def test_an_upload_that_is_given_up(raw, name):
    place = begin(raw, name)
    assert raw("DELETE", place)[0] == 204
    assert raw.code("PATCH", place, b"x") == (404, "BLOB_UPLOAD_UNKNOWN")
    other = begin(raw, name).replace(name, f"{name}-other")
    assert raw.code("GET", other) == (404, "BLOB_UPLOAD_UNKNOWN")


def test_the_empty_blob(raw, name):
    place = begin(raw, name)
    assert raw("PUT", f"{place}?digest={made.digest(b'')}", b"")[0] == 201
    assert raw("GET", f"/v2/{name}/blobs/{made.digest(b'')}")[:3:2] == (200, b"")


def test_a_digest_that_does_not_match(raw, name):
    wrong = made.digest(b"something else")
    assert raw.code("POST", f"/v2/{name}/blobs/uploads/?digest={wrong}", b"data") == (400, "DIGEST_INVALID")
    assert raw.code("PUT", f"{begin(raw, name)}?digest={wrong}", b"data") == (400, "DIGEST_INVALID")
    assert raw("HEAD", f"/v2/{name}/blobs/{wrong}")[0] == 404
    assert raw.code("PUT", f"/v2/{name}/manifests/{wrong}", b'{"schemaVersion":2}', Content_Type=JSON) == (
        400,
        "DIGEST_INVALID",
    )


def test_a_mount(raw, name):
    digest = put_blob(raw, f"{name}-from", b"shared")
    status, headers, _ = raw("POST", f"/v2/{name}/blobs/uploads/?mount={digest}&from={name}-from", b"")
    assert status == 201 and headers["docker-content-digest"] == digest
    assert raw("GET", f"/v2/{name}/blobs/{digest}")[2] == b"shared"
    status, headers, _ = raw("POST", f"/v2/{name}/blobs/uploads/?mount={made.digest(b'no')}&from={name}-from", b"")
    assert status == 202 and "/uploads/" in headers["location"]


def test_a_manifest_needs_what_it_names(raw, name):
    body = {"schemaVersion": 2, "config": {"mediaType": made.CONFIG, "digest": made.digest(b"none"), "size": 4}}
    code = raw.code("PUT", f"/v2/{name}/manifests/1", json.dumps(body).encode(), Content_Type=JSON)
    assert code == (404, "MANIFEST_BLOB_UNKNOWN")
    index = {"schemaVersion": 2, "manifests": [{"mediaType": JSON, "digest": made.digest(b"none"), "size": 4}]}
    code = raw.code("PUT", f"/v2/{name}/manifests/1", json.dumps(index).encode(), Content_Type=made.INDEX)
    assert code == (404, "MANIFEST_BLOB_UNKNOWN")
    foreign = {"mediaType": "application/x", "digest": made.digest(b"f"), "size": 1, "urls": ["https://example.com/f"]}
    put_manifest(raw, name, "foreign", layers=[foreign])


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"schemaVersion":1}', b'{"schemaVersion":2,"layers":[{"digest":"x","size":1}]}']
)
def test_invalid_manifests(raw, name, body):
    assert raw.code("PUT", f"/v2/{name}/manifests/1", body, Content_Type=JSON) == (400, "MANIFEST_INVALID")


def test_a_manifest_that_is_too_large(raw, name):
    huge = b'{"schemaVersion":2,"x":"' + b"x" * (5 << 20) + b'"}'
    assert raw.code("PUT", f"/v2/{name}/manifests/1", huge, Content_Type=JSON) == (413, "SIZE_INVALID")


@pytest.mark.parametrize("bad", ["Upper", "a//b", "a/../b", "..", "a%2f..%2f..%2fetc", "-a", "a/" + "b" * 300])
def test_bad_names(raw, bad):
    status, _, data = raw("GET", f"/v2/{bad}/manifests/1")
    assert status in (400, 404) and b"root" not in data
    status, _, data = raw("POST", f"/v2/{bad}/blobs/uploads/", b"")
    assert status in (400, 404)


def test_bad_references(raw, name):
    assert raw.code("GET", f"/v2/{name}/manifests/-bad") == (400, "TAG_INVALID")
    assert raw.code("GET", f"/v2/{name}/manifests/sha256:12") == (400, "DIGEST_INVALID")
    assert raw.code("GET", f"/v2/{name}/blobs/sha256:..") == (400, "DIGEST_INVALID")
    assert raw.code("PATCH", f"/v2/{name}/blobs/uploads/..", b"") == (404, "BLOB_UPLOAD_UNKNOWN")
    assert raw.code("POST", f"/v2/{name}/manifests/1", b"") == (405, "UNSUPPORTED")


# -- discovery ---------------------------------------------------------------------------------


def test_tags_page_by_page(raw, name):
    for tag in ("b", "a", "c", "A"):
        put_manifest(raw, name, tag)
    assert json.loads(raw("GET", f"/v2/{name}/tags/list")[2]) == {"name": name, "tags": ["A", "a", "b", "c"]}
    found, place = [], f"/v2/{name}/tags/list?n=3"
    for _ in range(3):
        _, headers, data = raw("GET", place)
        found.append(json.loads(data)["tags"])
        if "link" not in headers:
            break
        place = headers["link"].partition("<")[2].partition(">")[0]
    assert found == [["A", "a", "b"], ["c"]]
    assert json.loads(raw("GET", f"/v2/{name}/tags/list?n=0")[2])["tags"] == []
    assert json.loads(raw("GET", f"/v2/{name}/tags/list?last=b")[2])["tags"] == ["c"]
    assert raw("GET", f"/v2/{name}/tags/list?n=x")[0] == 400


def test_the_catalog(raw, name):
    for one in ("x", "y/z"):
        put_manifest(raw, f"{name}/{one}", "1")
    found = json.loads(raw("GET", "/v2/_catalog?n=1000")[2])["repositories"]
    assert {f"{name}/x", f"{name}/y/z"} <= set(found) and found == sorted(found, key=lambda n: n.replace("/", "%2F"))
    _, headers, data = raw("GET", "/v2/_catalog?n=1")
    assert len(json.loads(data)["repositories"]) == 1 and 'rel="next"' in headers["link"]


def test_repositories_without_manifests_are_not_in_the_catalog(raw, name):
    digest, _ = put_manifest(raw, name, "1")
    put_blob(raw, f"{name}-blobs", b"alone")

    def listed() -> list[str]:
        return [one for one in json.loads(raw("GET", "/v2/_catalog?n=1000")[2])["repositories"] if one.startswith(name)]

    assert listed() == [name]
    assert raw("DELETE", f"/v2/{name}/manifests/{digest}")[0] == 202
    assert listed() == []
    put_manifest(raw, name, "1")
    assert listed() == [name]


def test_sparse_indexes():
    with ours("--sparse-indexes") as one:
        raw = Raw(one.host)
        digest, data = put_manifest(raw, "sparse", "here")
        entries = [{"mediaType": JSON, "digest": digest, "size": len(data)}]
        index = {"schemaVersion": 2, "manifests": [*entries, {**entries[0], "digest": made.digest(b"none")}]}
        put = raw("PUT", "/v2/sparse/manifests/1", json.dumps(index).encode(), Content_Type=made.INDEX)
        assert put[0] == 201 and raw("GET", "/v2/sparse/manifests/1")[2] == json.dumps(index).encode()
        wrong = {"schemaVersion": 2, "manifests": [{**entries[0], "size": 1}]}
        code = raw.code("PUT", "/v2/sparse/manifests/1", json.dumps(wrong).encode(), Content_Type=made.INDEX)
        assert code == (400, "MANIFEST_INVALID")


def test_indexes_of_blobs(raw, name):
    """Older builders list the layers of a cache in an index; these must be there, with the size that it says."""
    digest = put_blob(raw, name, b"layer")
    layer = {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest, "size": 5}
    data = json.dumps({"schemaVersion": 2, "manifests": [layer]}).encode()
    assert raw("PUT", f"/v2/{name}/manifests/1", data, Content_Type=made.INDEX)[0] == 201
    for wrong in ({"digest": made.digest(b"none")}, {"size": 1}, {"mediaType": JSON}):
        data = json.dumps({"schemaVersion": 2, "manifests": [{**layer, **wrong}]}).encode()
        assert raw.code("PUT", f"/v2/{name}/manifests/1", data, Content_Type=made.INDEX)[0] in (400, 404)


def test_referrers(raw, name):
    digest, data = put_manifest(raw, name, "1")
    subject = {"mediaType": JSON, "digest": digest, "size": len(data)}
    signature, _ = put_manifest(raw, name, "sig", subject=subject, artifactType="application/x.sig")
    other, _ = put_manifest(raw, name, "sbom", subject=subject, annotations={"k": "v"})
    status, headers, body = raw("GET", f"/v2/{name}/referrers/{digest}")
    found = json.loads(body)
    assert status == 200 and headers["content-type"] == made.INDEX
    assert {one["digest"]: one["artifactType"] for one in found["manifests"]} == {
        signature: "application/x.sig",
        other: made.CONFIG,
    }
    _, headers, body = raw("GET", f"/v2/{name}/referrers/{digest}?artifactType=application/x.sig")
    assert [one["digest"] for one in json.loads(body)["manifests"]] == [signature]
    assert headers["oci-filters-applied"] == "artifactType"
    assert json.loads(raw("GET", f"/v2/{name}/referrers/{made.digest(b'none')}")[2])["manifests"] == []
    assert raw("DELETE", f"/v2/{name}/manifests/{other}")[0] == 202
    assert len(json.loads(raw("GET", f"/v2/{name}/referrers/{digest}")[2])["manifests"]) == 1


def test_pages_of_referrers(raw, name):
    """What somebody pushes to a repository must not become an answer of any size."""
    digest, data = put_manifest(raw, name, "1")
    subject = {"mediaType": JSON, "digest": digest, "size": len(data)}
    pushed = {
        put_manifest(
            raw,
            name,
            f"s{n}",
            subject=subject,
            artifactType=f"application/x.{n % 2}",
            annotations={"text": f"{n}" * (1 << 20)},
        )[0]
        for n in range(6)
    }
    for kind, expected in (("", pushed), ("application/x.1", None)):
        place, found = f"/v2/{name}/referrers/{digest}" + (f"?artifactType={kind}" if kind else ""), []
        pages = 0
        while place:
            _, headers, body = raw("GET", place)
            assert len(body) <= 4 << 20
            found += json.loads(body)["manifests"]
            place, pages = headers.get("link", "").partition("<")[2].partition(">")[0], pages + 1
        assert len({one["digest"] for one in found}) == len(found)
        if expected:
            assert (pages, {one["digest"] for one in found}) == (2, expected)
        else:
            assert (pages, {one["artifactType"] for one in found}, len(found)) == (1, {kind}, 3)


@pytest.mark.parametrize("place", ["x:../../../../../../../../../..{}", "../..{}", "sha256:..", "sha256:../../x", ""])
def test_subjects_are_digests(raw, name, place, tmp_path):
    """It becomes a part of a file's path."""
    outside = tmp_path / "outside"
    subject = {"mediaType": JSON, "digest": place.format(outside), "size": 1}
    config = put_blob(raw, name, b"{}")
    body = {
        "schemaVersion": 2,
        "mediaType": JSON,
        "config": {"mediaType": made.CONFIG, "digest": config, "size": 2},
        "layers": [],
        "subject": subject,
    }
    answer = raw.code("PUT", f"/v2/{name}/manifests/1", json.dumps(body).encode(), Content_Type=JSON)
    assert answer == (400, "MANIFEST_INVALID")
    assert not outside.exists()


WRONG_SIZES = [0, 1, 3, 10**12, (1 << 63) - 1, 1 << 63, 10**30, -1, -2, 2.5, "2", None, [2], True]


@pytest.mark.parametrize("size", WRONG_SIZES)
@pytest.mark.parametrize("part", ["config", "layers", "manifests", "subject"])
def test_wrong_sizes(raw, name, part, size):
    """Clients rely on a descriptor's size before they have the blob."""
    blob = put_blob(raw, name, b"{}")
    inner, data = put_manifest(raw, name, "inner")
    right = {"mediaType": made.CONFIG, "digest": blob, "size": 2}
    manifest = {"mediaType": JSON, "digest": inner, "size": len(data)}
    body: dict[str, object] = {"schemaVersion": 2, "mediaType": JSON, "config": right, "layers": [right]}
    kind = JSON
    if part == "manifests":
        kind, body = made.INDEX, {"schemaVersion": 2, "mediaType": made.INDEX, "manifests": [manifest]}
    elif part == "subject":
        body["subject"] = manifest
    assert raw("PUT", f"/v2/{name}/manifests/right", json.dumps(body).encode(), Content_Type=kind)[0] == 201
    wrong = {**(manifest if part in ("manifests", "subject") else right), "size": size}
    body[part] = wrong if part in ("config", "subject") else [wrong]
    answer = raw.code("PUT", f"/v2/{name}/manifests/wrong", json.dumps(body).encode(), Content_Type=kind)
    assert answer == (400, "MANIFEST_INVALID")
    assert raw("GET", f"/v2/{name}/manifests/wrong")[0] == 404


@pytest.mark.parametrize("digits", ["9" * 19, "9" * 5000, "-1", "\u0663".encode().decode("latin1"), "1_0", "0x1", " 1"])
def test_numbers_that_are_none(raw, name, digits):
    """Refused, or not understood; never an error of the server's."""
    digest = put_blob(raw, name, b"blob")
    put_manifest(raw, name, "1")
    _, headers, _ = raw("POST", f"/v2/{name}/blobs/uploads/", b"")
    for method, path, more in (
        ("GET", f"/v2/{name}/tags/list?{urlencode({'n': digits})}", {}),
        ("GET", f"/v2/_catalog?{urlencode({'n': digits})}", {}),
        ("GET", f"/v2/{name}/blobs/{digest}", {"Range": f"bytes={digits}-"}),
        ("GET", f"/v2/{name}/blobs/{digest}", {"Range": f"bytes=0-{digits}"}),
        ("GET", f"/v2/{name}/blobs/{digest}", {"Range": f"bytes=-{digits}"}),
        ("PATCH", headers["location"], {"Content_Range": f"{digits}-{digits}"}),
        ("PATCH", headers["location"], {"Content_Range": f"0-{digits}"}),
    ):
        status, _, body = raw(method, path, b"x" if method == "PATCH" else None, **more)
        assert status in (200, 206, 400, 416), (path, more, body)


# -- management --------------------------------------------------------------------------------


def test_deleting(raw, name):
    digest, data = put_manifest(raw, name, "one")
    raw("PUT", f"/v2/{name}/manifests/two", data, Content_Type=JSON)
    assert raw("DELETE", f"/v2/{name}/manifests/one")[0] == 202
    assert raw.code("GET", f"/v2/{name}/manifests/one") == (404, "MANIFEST_UNKNOWN")
    assert raw("GET", f"/v2/{name}/manifests/two")[0] == 200
    assert raw("DELETE", f"/v2/{name}/manifests/{digest}")[0] == 202
    assert json.loads(raw("GET", f"/v2/{name}/tags/list")[2])["tags"] == []
    assert raw.code("GET", f"/v2/{name}/manifests/{digest}") == (404, "MANIFEST_UNKNOWN")
    blob = put_blob(raw, name, b"gone soon")
    assert raw("DELETE", f"/v2/{name}/blobs/{blob}")[0] == 202
    assert raw.code("GET", f"/v2/{name}/blobs/{blob}") == (404, "BLOB_UNKNOWN")
    assert raw.code("DELETE", f"/v2/{name}/blobs/{blob}") == (404, "BLOB_UNKNOWN")


# -- sha512 ------------------------------------------------------------------------------------


def sha512_manifest(raw: Raw, name: str, query: str = "", **more: object) -> tuple[str, bytes]:
    """Push a manifest whose descriptors, and whose own name, are sha512."""
    config = put_blob(raw, name, b"{}", "sha512")
    descriptor = {"mediaType": made.CONFIG, "digest": config, "size": 2}
    data = json.dumps({"schemaVersion": 2, "mediaType": JSON, "config": descriptor, "layers": [descriptor], **more})
    digest = named(data.encode())
    status, headers, answer = raw("PUT", f"/v2/{name}/manifests/{digest}{query}", data.encode(), Content_Type=JSON)
    assert (status, headers.get("docker-content-digest")) == (201, digest), answer
    assert headers["location"].endswith(digest)
    return digest, data.encode()


def test_blobs_by_sha512(raw, name):
    data = os.urandom(10_000)
    digest = put_blob(raw, name, data, "sha512")
    place = f"/v2/{name}/blobs/{digest}"
    status, headers, got = raw("GET", place)
    assert (status, got, headers["docker-content-digest"]) == (200, data, digest)
    status, headers, _ = raw("HEAD", place)
    assert (status, headers["content-length"], headers["docker-content-digest"]) == (200, "10000", digest)
    assert raw("GET", place, Range="bytes=10-19")[::2] == (206, data[10:20])
    assert raw("HEAD", f"/v2/{name}/blobs/{made.digest(data)}")[0] == 404  # nobody has pushed it by this name
    for taken in ("", "-to"):  # an upload in two requests, and a mount into another repository
        query = f"mount={digest}&from={name}" if taken else f"digest={named(b'')}"
        status, headers, _ = raw("POST", f"/v2/{name}{taken}/blobs/uploads/?{query}", b"")
        assert status == 201 and headers["docker-content-digest"] == (digest if taken else named(b""))
    assert raw("GET", f"/v2/{name}-to/blobs/{digest}")[2] == data
    assert raw("DELETE", place)[0] == 202
    assert raw.code("GET", place) == (404, "BLOB_UNKNOWN")
    for wrong in (named(b"other"), digest[:-1], digest + "0", digest.upper(), digest.replace("512", "384")):
        assert raw.code("POST", f"/v2/{name}/blobs/uploads/?digest={wrong}", data) == (400, "DIGEST_INVALID")
        assert raw.code("PUT", f"{begin(raw, name)}?digest={wrong}", data) == (400, "DIGEST_INVALID")


@settings(max_examples=8, deadline=None)
@given(
    data=st.binary(max_size=3000), cuts=st.sets(st.integers(1, 2999), max_size=3), algorithm=st.sampled_from(ALGORITHMS)
)
def test_uploads_in_any_chunks_are_had_by_their_digest(raw, data, cuts, algorithm):
    place, sent = begin(raw, "t/chunks"), 0
    for end in sorted({cut for cut in cuts if cut < len(data)}):
        status, headers, _ = raw("PATCH", place, data[sent:end], Content_Range=f"{sent}-{end - 1}")
        place, sent = headers["location"], end
        assert (status, headers["range"]) == (202, f"0-{end - 1}")
    digest = named(data, algorithm)
    status, headers, _ = raw("PUT", f"{place}?digest={digest}", data[sent:])
    assert (status, headers["docker-content-digest"]) == (201, digest)
    assert raw("GET", headers["location"])[2] == data
    assert raw("DELETE", f"/v2/t/chunks/blobs/{digest}")[0] == 202


def test_manifests_by_sha512(raw, name):
    digest, data = sha512_manifest(raw, name, "?tag=one&tag=two")
    for ref in ("one", "two", digest):
        for method in ("GET", "HEAD"):
            status, headers, got = raw(method, f"/v2/{name}/manifests/{ref}")
            assert (status, got) == (200, data if method == "GET" else b"")
            assert headers["docker-content-digest"] == digest
    status, headers, _ = raw("PUT", f"/v2/{name}/manifests/three?digest={digest}", data, Content_Type=JSON)
    assert (status, headers["docker-content-digest"]) == (201, digest)
    _, headers, _ = raw("PUT", f"/v2/{name}/manifests/{digest}?tag=four", data, Content_Type=JSON)
    assert headers["oci-tag"] == "four"
    for ref in (named(b"x"), f"five?digest={named(b'x')}", "five?digest=sha512:1"):
        assert raw.code("PUT", f"/v2/{name}/manifests/{ref}", data, Content_Type=JSON) == (400, "DIGEST_INVALID")
    answer = raw.code("PUT", f"/v2/{name}/manifests/{digest}?tag=-bad", data, Content_Type=JSON)
    assert answer == (400, "TAG_INVALID")
    absent = {"schemaVersion": 2, "manifests": [{"mediaType": JSON, "digest": named(b"no"), "size": 2}]}
    answer = raw.code("PUT", f"/v2/{name}/manifests/six", json.dumps(absent).encode(), Content_Type=made.INDEX)
    assert answer == (404, "MANIFEST_BLOB_UNKNOWN")
    index = {"schemaVersion": 2, "manifests": [{"mediaType": JSON, "digest": digest, "size": len(data)}]}
    assert raw("PUT", f"/v2/{name}/manifests/six", json.dumps(index).encode(), Content_Type=made.INDEX)[0] == 201
    assert json.loads(raw("GET", f"/v2/{name}/tags/list")[2])["tags"] == ["four", "one", "six", "three", "two"]
    assert raw("DELETE", f"/v2/{name}/manifests/{digest}")[0] == 202
    assert raw.code("GET", f"/v2/{name}/manifests/{digest}") == (404, "MANIFEST_UNKNOWN")
    assert json.loads(raw("GET", f"/v2/{name}/tags/list")[2])["tags"] == ["six"]


def test_referrers_by_sha512(raw, name):
    digest, data = sha512_manifest(raw, name)
    subject = {"mediaType": JSON, "digest": digest, "size": len(data)}
    by_sha256, _ = put_manifest(raw, name, "sig", subject=subject)
    by_sha512, _ = sha512_manifest(raw, name, subject=subject, annotations={"k": "v"})
    found = json.loads(raw("GET", f"/v2/{name}/referrers/{digest}")[2])["manifests"]
    assert {one["digest"] for one in found} == {by_sha256, by_sha512}
    assert raw("DELETE", f"/v2/{name}/manifests/{by_sha512}")[0] == 202
    found = json.loads(raw("GET", f"/v2/{name}/referrers/{digest}")[2])["manifests"]
    assert [one["digest"] for one in found] == [by_sha256]
    assert json.loads(raw("GET", f"/v2/{name}/referrers/{named(b'none')}")[2])["manifests"] == []
