"""The OCI distribution specification, case by case: pull, push, content discovery, content management.

Our registry has to pass all of it, and, so that the cases are right, docker-registry what it implements.
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import re
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest

from tests.support.registries import made_images as made
from tests.support.registries.raw import Raw, named
from tests.support.registries.registries import ours, registry
from tests.support.waiting import patient

IMAGE, INDEX, EMPTY = made.MANIFEST, made.INDEX, "application/vnd.oci.empty.v1+json"
LAYER, FOREIGN = made.LAYERS["gzip"], f"{made.OCI}layer.nondistributable.v1.tar+gzip"
BYTES, KIND, OTHER = "application/octet-stream", "application/x.kind", "application/x.other"
_NUMBERS = itertools.count()


class Subject(Raw):
    """A registry under test; ``complete``: it is ours, and does all that the specification knows."""

    def __init__(self, host: str, *, complete: bool) -> None:
        super().__init__(host)
        self.complete = complete

    def need_complete(self) -> None:
        if not self.complete:
            pytest.skip("docker-registry does not implement it")


@pytest.fixture(scope="module", params=["ours", "docker-registry"])
def raw(request):
    with ours() if request.param == "ours" else registry() as one:
        yield Subject(one.host, complete=request.param == "ours")


@pytest.fixture
def repo() -> str:
    """A repository that no other test has."""
    return f"conformance/r{next(_NUMBERS)}"


@pytest.fixture(params=["sha256", "sha512"])
def algorithm(request, raw) -> str:
    if request.param == "sha512":
        raw.need_complete()
    return request.param


# -- making things -----------------------------------------------------------------------------


def put(raw: Raw, repo: str, data: bytes, algorithm: str = "sha256") -> dict[str, Any]:
    """Push a blob with POST and PUT; its descriptor."""
    digest = named(data, algorithm)
    place = start(raw, repo)
    status, headers, _ = raw("PUT", more(place, f"digest={digest}"), data, Content_Type=BYTES)
    assert status == 201 and urlsplit(headers["location"]).path.endswith(f"/v2/{repo}/blobs/{digest}")
    return {"mediaType": BYTES, "digest": digest, "size": len(data)}


def start(raw: Raw, repo: str) -> str:
    """Begin an upload; where it goes on."""
    status, headers, _ = raw("POST", f"/v2/{repo}/blobs/uploads/", b"", Content_Length="0")
    assert status == 202
    return headers["location"]


def more(place: str, query: str) -> str:
    return f"{place}{'&' if '?' in place else '?'}{query}"


def manifest(raw: Raw, repo: str, **fields: Any) -> dict[str, Any]:
    """A manifest of two layers and a configuration that are pushed."""
    layers = [{**put(raw, repo, os.urandom(64)), "mediaType": LAYER} for _ in range(2)]
    config = {**put(raw, repo, b'{"architecture":"amd64","os":"linux"}'), "mediaType": made.CONFIG}
    return {"schemaVersion": 2, "mediaType": IMAGE, "config": config, "layers": layers, **fields}


def artifact(raw: Raw, repo: str, kind: str = KIND, **fields: Any) -> dict[str, Any]:
    empty = {**put(raw, repo, b"{}"), "mediaType": EMPTY}
    body = {"schemaVersion": 2, "mediaType": IMAGE, "artifactType": kind, "config": empty, "layers": [empty]}
    return {**body, **fields}


def push(raw: Raw, repo: str, body: dict[str, Any], ref: str = "") -> dict[str, Any]:
    """Push a manifest by a tag or by its digest, and pull it in all ways; its descriptor."""
    data = json.dumps(body).encode()
    digest, kind = named(data, "sha256"), body["mediaType"]
    status, headers, answer = raw("PUT", f"/v2/{repo}/manifests/{ref or digest}", data, Content_Type=kind)
    assert status == 201, answer
    assert urlsplit(headers["location"]).path.endswith(f"/v2/{repo}/manifests/{digest}")
    assert headers.get("docker-content-digest") == digest
    for found in {ref or digest, digest}:
        for method in ("GET", "HEAD"):
            status, headers, got = raw(method, f"/v2/{repo}/manifests/{found}", Accept=kind)
            assert (status, got) == (200, data if method == "GET" else b"")
            assert headers["content-type"] == kind and headers["content-length"] == str(len(data))
            assert headers["docker-content-digest"] == digest
    return {"mediaType": kind, "digest": digest, "size": len(data)}


def has(raw: Raw, repo: str, data: bytes, algorithm: str) -> bool:
    """Whether the registry has a blob, by all ways to ask."""
    digest = named(data, algorithm)
    place = f"/v2/{repo}/blobs/{digest}"
    status, headers, got = raw("HEAD", place)
    if status == 404:
        assert raw("GET", place)[0] == 404
        return False
    assert (status, got, headers["content-length"]) == (200, b"", str(len(data)))
    assert headers["docker-content-digest"] == digest
    status, headers, got = raw("GET", place)
    assert (status, got, headers["content-length"]) == (200, data, str(len(data)))
    return True


# -- blobs -------------------------------------------------------------------------------------


def test_ping(raw):
    assert raw("GET", "/v2/")[0] == 200


@pytest.mark.parametrize("content", [b"", b"{}", os.urandom(512)], ids=["empty", "empty JSON", "random"])
def test_monolithic_uploads(raw, repo, algorithm, content):
    assert not has(raw, repo, content, algorithm)
    put(raw, repo, content, algorithm)
    assert has(raw, repo, content, algorithm)
    digest = named(content + b"1", algorithm)
    status, headers, _ = raw("POST", f"/v2/{repo}/blobs/uploads/?digest={digest}", content + b"1", Content_Type=BYTES)
    if raw.complete:
        assert status == 201 and headers["location"].endswith(digest) and has(raw, repo, content + b"1", algorithm)
    else:  # which may leave it to the client to go on
        assert status == 202 and headers["location"]


@pytest.mark.parametrize("last", ["PATCH", "PUT"])
@pytest.mark.parametrize("order", ["in order", "out of order"])
def test_chunked_uploads(raw, repo, algorithm, last, order):
    """What comes out of order is refused with 416, and a GET says where to go on."""
    content, size = os.urandom(2995), 1000
    digest, place = named(content, algorithm), start(raw, repo)
    for begin in range(0, len(content), size):
        if order == "out of order" and raw.complete:
            wrong = begin + size if begin + size < len(content) else 0
            part = content[wrong : wrong + size]
            status, _, _ = raw("PATCH", place, part, Content_Range=f"{wrong}-{wrong + len(part) - 1}")
            assert status == 416
            status, headers, _ = raw("GET", place)
            assert status == 204 and headers["range"] == f"0-{max(begin - 1, 0)}"
            place = headers["location"]
        part = content[begin : begin + size]
        span = f"{begin}-{begin + len(part) - 1}"
        if last == "PUT" and begin + size >= len(content):
            status, headers, _ = raw("PUT", more(place, f"digest={digest}"), part, Content_Range=span)
        else:
            status, headers, _ = raw("PATCH", place, part, Content_Type=BYTES, Content_Range=span)
            assert (status, headers["range"]) == (202, f"0-{begin + len(part) - 1}")
            place = headers["location"]
    if last == "PATCH":
        status, headers, _ = raw("PUT", more(place, f"digest={digest}"), b"", Content_Length="0")
    assert status == 201 and headers["location"].endswith(digest)
    assert has(raw, repo, content, algorithm)


def test_streamed_uploads(raw, repo, algorithm):
    """One PATCH without a length, in chunks of the transfer's own."""
    content = os.urandom(5000)
    place = start(raw, repo)
    target = re.sub(r"^https?://[^/]+", "", place)
    connection = http.client.HTTPConnection(raw.host, timeout=patient(30))
    connection.request(
        "PATCH", target, iter([content[:100], content[100:]]), {"Content-Type": BYTES}, encode_chunked=True
    )
    answer = connection.getresponse()
    answer.read()
    connection.close()
    assert answer.status == 202
    place = answer.headers["Location"]
    assert raw("PUT", more(place, f"digest={named(content, algorithm)}"), b"", Content_Length="0")[0] == 201
    assert has(raw, repo, content, algorithm)


def test_uploads_with_another_digest(raw, repo, algorithm):
    content = os.urandom(100)
    wrong = named(b"something else", algorithm)
    assert raw("PUT", more(start(raw, repo), f"digest={wrong}"), content)[0] == 400
    status, headers, _ = raw("PATCH", start(raw, repo), content)
    assert status == 202
    assert raw("PUT", more(headers["location"], f"digest={wrong}"), b"", Content_Length="0")[0] == 400
    if raw.complete:
        assert raw("POST", f"/v2/{repo}/blobs/uploads/?digest={wrong}", content)[0] == 400
    assert raw("HEAD", f"/v2/{repo}/blobs/{wrong}")[0] == 404


def test_uploads_that_are_cancelled(raw, repo):
    place = start(raw, repo)
    assert raw("DELETE", place)[0] == 204
    for method, body in (("GET", None), ("PATCH", b"x"), ("DELETE", None)):
        assert raw.code(method, place, body) == (404, "BLOB_UPLOAD_UNKNOWN")


def test_mounts(raw, repo, algorithm):
    content = os.urandom(512)
    digest = put(raw, f"{repo}-from", content, algorithm)["digest"]
    status, headers, _ = raw("POST", f"/v2/{repo}/blobs/uploads/?mount={digest}&from={repo}-from", b"")
    assert status == 201 and headers["location"].endswith(f"/v2/{repo}/blobs/{digest}")
    assert has(raw, repo, content, algorithm)
    absent = named(b"absent", algorithm)
    for query in (f"mount={absent}&from={repo}-from", f"mount={absent}"):  # an upload begins instead
        status, headers, _ = raw("POST", f"/v2/{repo}/blobs/uploads/?{query}", b"")
        assert status == 202 and raw("DELETE", headers["location"])[0] == 204
    status, headers, _ = raw("POST", f"/v2/{repo}-2/blobs/uploads/?mount={digest}", b"")
    if status == 202:  # without a source the client sends it
        assert raw("PUT", more(headers["location"], f"digest={digest}"), content)[0] == 201
    assert has(raw, f"{repo}-2", content, algorithm)


def test_parts_of_blobs(raw, repo):
    content = os.urandom(2048)
    place = f"/v2/{repo}/blobs/{put(raw, repo, content)['digest']}"
    for asked, first, last in (
        ("500-1499", 500, 1499),
        ("500-", 500, 2047),
        ("-500", 1548, 2047),
        ("2000-5000", 2000, 2047),
    ):
        status, headers, got = raw("GET", place, Range=f"bytes={asked}")
        assert (status, got) == (206, content[first : last + 1]), asked
        assert headers["content-range"] == f"bytes {first}-{last}/2048"
        assert headers["content-length"] == str(last - first + 1)
    for asked in ("500-0", "5000-10000") if raw.complete else ():
        assert raw("GET", place, Range=f"bytes={asked}")[0] == 416, asked


# -- manifests ---------------------------------------------------------------------------------


def platform(descriptor: dict[str, Any], architecture: str) -> dict[str, Any]:
    return {**descriptor, "platform": {"os": "linux", "architecture": architecture}}


def index(*descriptors: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"schemaVersion": 2, "mediaType": INDEX, "manifests": list(descriptors), **fields}


def test_manifests_of_all_kinds(raw, repo):
    """They come back bit for bit, with fields that nobody knows."""
    image = push(raw, repo, manifest(raw, repo))
    push(raw, repo, manifest(raw, repo), "image")
    push(raw, repo, manifest(raw, repo, layers=[]), "no-layers")
    push(raw, repo, manifest(raw, repo, **{"org.example.unknown": {"a": [1, "b", None]}}), "custom-fields")
    notes = {f"note-{number}": "A" * 10_000 for number in range(390)}
    if raw.complete:
        push(raw, repo, manifest(raw, repo, annotations=notes), "large")
    both = index(platform(image, "amd64"), platform(push(raw, repo, manifest(raw, repo)), "arm64"))
    inner = push(raw, repo, both, "index")
    push(raw, repo, index(inner), "index-of-indexes")
    push(raw, repo, index(), "empty-index")
    push(raw, repo, artifact(raw, repo), "artifact")
    push(raw, repo, index(image, artifactType=KIND), "artifact-index")
    data = manifest(raw, repo)
    data["config"]["data"] = "eyJhcmNoaXRlY3R1cmUiOiJhbWQ2NCIsIm9zIjoibGludXgifQ=="
    push(raw, repo, data, "data-field")
    if raw.complete:  # docker-registry wants to know who may give such layers
        absent = {
            "mediaType": FOREIGN,
            "digest": named(b"far", "sha256"),
            "size": 123456,
            "urls": ["https://x.example/far"],
        }
        push(raw, repo, manifest(raw, repo, layers=[absent]), "nondistributable")


def test_manifests_with_several_tags(raw, repo):
    raw.need_complete()
    data = json.dumps(manifest(raw, repo)).encode()
    digest = named(data, "sha256")
    place = f"/v2/{repo}/manifests/{digest}?tag=one&tag=two"
    status, headers, _ = raw("PUT", place, data, Content_Type=IMAGE)
    assert status == 201 and headers["location"].endswith(digest)
    for ref in ("one", "two", digest):
        assert raw("GET", f"/v2/{repo}/manifests/{ref}")[2] == data


def test_manifests_that_are_refused(raw, repo):
    data = json.dumps(manifest(raw, repo)).encode()
    bad = f"/v2/{repo}/manifests/sha256:baddigeststring"
    for method, body in (("PUT", data), ("GET", None), ("DELETE", None)) if raw.complete else ():
        assert raw.code(method, bad, body, Content_Type=IMAGE) == (400, "DIGEST_INVALID"), method
    assert raw("PUT", f"/v2/{repo}/manifests/{named(b'other', 'sha256')}", data, Content_Type=IMAGE)[0] == 400
    for ref in ("missing", named(os.urandom(9), "sha256")):
        assert raw.code("GET", f"/v2/{repo}/manifests/{ref}") == (404, "MANIFEST_UNKNOWN")
        assert raw("HEAD", f"/v2/{repo}/manifests/{ref}")[::2] == (404, b"")
    lacking = manifest(raw, repo)
    lacking["layers"][0] = {**lacking["layers"][0], "digest": named(b"lacking", "sha256")}
    status, _, answer = raw("PUT", f"/v2/{repo}/manifests/lacking", json.dumps(lacking).encode(), Content_Type=IMAGE)
    assert status in (400, 404) and json.loads(answer)["errors"][0]["code"] == "MANIFEST_BLOB_UNKNOWN"


# -- discovery ---------------------------------------------------------------------------------


def test_lists_of_tags(raw, repo):
    raw.need_complete()  # docker-registry's are in no order
    assert raw("GET", f"/v2/{repo}/tags/list")[0] in (200, 404)  # there is nothing yet
    body = manifest(raw, repo)
    tags = ["B", "a", "b", "c", "d"]
    for tag in ("c", "a", "d", "b", "B"):
        push(raw, repo, body, tag)
    assert json.loads(raw("GET", f"/v2/{repo}/tags/list")[2]) == {"name": repo, "tags": tags}
    for count in (1, 2, 4, 5, 6):
        found, place = [], f"/v2/{repo}/tags/list?n={count}"
        while place:
            status, headers, answer = raw("GET", place)
            page = json.loads(answer)["tags"]
            assert status == 200 and len(page) <= count
            found += page
            link = re.match(r'<([^>]+)>; *rel="next"', headers.get("link", ""))
            place = link[1] if link else ""
        assert found == tags, count
    for query, expected in (("last=a", tags[2:]), ("last=a&n=2", tags[2:4]), ("last=aa", tags[2:]), ("last=d", [])):
        assert (json.loads(raw("GET", f"/v2/{repo}/tags/list?{query}")[2])["tags"] or []) == expected, query
    assert json.loads(raw("GET", f"/v2/{repo}/tags/list?n=0")[2])["tags"] == []


def referrers(raw: Raw, repo: str, digest: str, kind: str = "") -> dict[str, dict[str, Any]]:
    query = f"?{urlencode({'artifactType': kind})}" if kind else ""
    status, headers, answer = raw("GET", f"/v2/{repo}/referrers/{digest}{query}")
    assert (status, headers["content-type"]) == (200, INDEX)
    assert headers.get("oci-filters-applied") == ("artifactType" if kind else None)
    found = json.loads(answer)
    assert (found["schemaVersion"], found["mediaType"]) == (2, INDEX)
    return {one["digest"]: one for one in found["manifests"]}


def test_referrers(raw, repo):
    raw.need_complete()
    assert referrers(raw, repo, named(b"nothing", "sha256")) == {}
    image = push(raw, repo, manifest(raw, repo), "image")
    one = artifact(raw, repo, KIND, subject=image, annotations={"k": "v"})
    two = artifact(raw, repo, OTHER, subject=image, annotations={"k": "w"})
    untyped = manifest(raw, repo, subject=image)
    listed = index(artifactType=KIND, subject=image, annotations={"k": "x"})
    expected = {}
    for body, ref in ((one, "one"), (two, ""), (untyped, ""), (listed, "")):
        data = json.dumps(body).encode()
        digest = named(data, "sha256")
        put_as = f"/v2/{repo}/manifests/{ref or digest}"
        status, headers, _ = raw("PUT", put_as, data, Content_Type=body["mediaType"])
        assert (status, headers["oci-subject"]) == (201, image["digest"])
        kind = body.get("artifactType") or body["config"]["mediaType"]
        facts = {"mediaType": body["mediaType"], "digest": digest, "size": len(data), "artifactType": kind}
        expected[digest] = facts | ({"annotations": body["annotations"]} if "annotations" in body else {})
    assert referrers(raw, repo, image["digest"]) == expected
    for kind in (KIND, OTHER, made.CONFIG, "application/x.none"):
        chosen = {digest: facts for digest, facts in expected.items() if facts["artifactType"] == kind}
        assert referrers(raw, repo, image["digest"], kind) == chosen
    missing = {"mediaType": IMAGE, "digest": named(b"missing", "sha256"), "size": 123}
    late = artifact(raw, repo, KIND, subject=missing)
    assert push(raw, repo, late)["digest"] in referrers(raw, repo, missing["digest"])
    for digest in expected:
        assert raw("DELETE", f"/v2/{repo}/manifests/{digest}")[0] == 202
    assert referrers(raw, repo, image["digest"]) == {}


# -- management --------------------------------------------------------------------------------


def test_deletions(raw, repo):
    """At once: what was deleted is not found by the next request."""
    body = manifest(raw, repo)
    digest = push(raw, repo, body, "one")["digest"]
    push(raw, repo, body, "two")
    place = f"/v2/{repo}/manifests"
    if raw.complete:  # docker-registry deletes no tags
        assert raw("DELETE", f"{place}/one")[0] == 202
        assert raw("HEAD", f"{place}/one")[0] == 404
        assert json.loads(raw("GET", f"/v2/{repo}/tags/list")[2])["tags"] == ["two"]
    assert raw("DELETE", f"{place}/{digest}")[0] == 202
    for ref in ("one", "two", digest):
        assert raw("HEAD", f"{place}/{ref}")[0] == 404, ref
    assert raw("DELETE", f"{place}/{digest}")[0] == 404
    assert (json.loads(raw("GET", f"/v2/{repo}/tags/list")[2])["tags"] or []) == []
    for blob in (body["config"], *body["layers"]):
        assert raw("DELETE", f"/v2/{repo}/blobs/{blob['digest']}")[0] == 202
        assert raw("HEAD", f"/v2/{repo}/blobs/{blob['digest']}")[0] == 404
        assert raw("DELETE", f"/v2/{repo}/blobs/{blob['digest']}")[0] == 404
