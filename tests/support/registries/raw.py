"""Requests to a registry, without a client's opinions."""

from __future__ import annotations

import hashlib
import http.client
import json
import re

from tests.support.registries import made_images as made
from tests.support.waiting import patient

JSON = made.MANIFEST


class Raw:
    """Requests without a client's opinions."""

    def __init__(self, host: str) -> None:
        self.host = host

    def __call__(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self.host, timeout=patient(30))
        path = re.sub(r"^https?://[^/]+", "", path)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, named)
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, data

    def code(self, *arguments: object, **headers: str) -> tuple[int, str]:
        """Status and error code of what is refused."""
        status, _, data = self(*arguments, **headers)  # type: ignore[arg-type]
        return status, json.loads(data)["errors"][0]["code"]


def named(data: bytes, algorithm: str = "sha512") -> str:
    """The digest of some bytes by an algorithm."""
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


def put_blob(raw: Raw, name: str, data: bytes, algorithm: str = "sha256") -> str:
    digest = named(data, algorithm)
    status, headers, _ = raw("POST", f"/v2/{name}/blobs/uploads/?digest={digest}", data)
    assert status == 201 and headers["docker-content-digest"] == digest
    return digest


def put_manifest(raw: Raw, name: str, ref: str, **more: object) -> tuple[str, bytes]:
    config = put_blob(raw, name, b"{}")
    body = {
        "schemaVersion": 2,
        "mediaType": JSON,
        "config": {"mediaType": made.CONFIG, "digest": config, "size": 2},
        "layers": [],
        **more,
    }
    data = json.dumps(body).encode()
    status, headers, answer = raw("PUT", f"/v2/{name}/manifests/{ref}", data, Content_Type=JSON)
    assert status == 201, answer
    assert headers["docker-content-digest"] == made.digest(data)
    return made.digest(data), data


def begin(raw: Raw, name: str) -> str:
    status, headers, _ = raw("POST", f"/v2/{name}/blobs/uploads/", b"")
    assert status == 202
    return headers["location"]
