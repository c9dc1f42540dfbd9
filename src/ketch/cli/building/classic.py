"""A build by a daemon that is not Ketch: the old builder of Docker's API, as far as it goes."""

from __future__ import annotations

import base64
import hashlib

from ketch import dockerignore
from ketch.cli import credentials
from ketch.cli.building import request, values
from ketch.client import context_tar
from ketch.client.errors import error_of
from ketch.errors import KetchError, Unimplemented
from ketch.notation import documents

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ketch.cli.building.request import BuildRequest, Request
    from ketch.cli.context import Context


def check(build: BuildRequest) -> None:
    """Unimplemented for what that builder cannot do."""
    wanted = {
        f"--call {build.method}": build.method != "build",
        "--secret": bool(build.secrets),
        "--ssh": bool(build.agents),
        "--build-context": bool(build.contexts.addresses),
        "--cache-to": bool(build.cache_to),
        "--output": any(output.comes_here or output.attributes for output in build.outputs),
        "--explain": build.opts["explain"],
        "--shell-on-failure": build.opts["shell-on-failure"],
        "--attest": bool(values.attestations(build.opts, by_default=False)),
        "several --platform": len(request.platforms(build.opts)) > 1,
        "--no-cache-filter": bool(build.opts["no-cache-filter"]),
    }
    for what, asked in wanted.items():
        if asked:
            raise Unimplemented(f"{what}: the daemon is not ketchd, and its old builder cannot do that")


def run(ctx: Context, build: BuildRequest, *, quiet: bool) -> str:
    """Build, and show its steps as they come; returns the image's id (KetchError)."""
    check(build)
    body, path = _body(build)
    header = base64.urlsafe_b64encode(documents.dumps(credentials.known()).encode()).decode("ascii")
    client = ctx.client()
    query = _query(build, path)
    if body is None:
        response = client.request("POST", "/build", query, stream=True, headers={"X-Registry-Config": header})
    else:
        response = client.upload("POST", "/build", body, query, {"X-Registry-Config": header})
    found = ""
    for row in response.stream_lines():
        if "error" in row:
            raise error_of(row["error"], "")
        found = (row.get("aux") or {}).get("ID") or found
        text = row.get("stream") or (f"{row['status']}\n" if row.get("status") and not row.get("id") else "")
        if text and not quiet:
            ctx.show(text)
            ctx.out.flush()
    if not found:
        raise KetchError("the daemon's answer ended without an image", hint="look at its log")
    return found


def _query(build: BuildRequest, path: str) -> Request:
    opts = build.opts
    return {
        "t": opts["tag"],
        "dockerfile": path,
        "remote": build.place.remote or None,
        "target": opts["target"] or None,
        "platform": next(iter(request.platforms(opts)), None),
        "buildargs": documents.dumps(build.arguments),
        "labels": documents.dumps(values.pairs(opts["label"], "label")),
        "cachefrom": documents.dumps([attributes.get("ref") for _, attributes in build.cache_from]),
        "nocache": opts["no-cache"] or None,
        "pull": opts["pull"] or None,
        "networkmode": opts["network"],
        "extrahosts": request.hosts(opts),
        "rm": True,
        **{name: documents.dumps(value) if isinstance(value, list) else value for name, value in build.limits.items()},
    }


def _body(build: BuildRequest) -> tuple[Iterator[bytes] | None, str]:
    """The context's archive, with the Dockerfile in it, and the Dockerfile's path there."""
    place = build.place
    if place.remote or place.archive is not None:
        if place.dockerfile is not None:
            raise Unimplemented("--file -: the daemon is not ketchd, and its old builder cannot do that")
        return place.archive, place.dockerfile_path
    text = place.dockerfile
    assert text is not None  # of a directory, and of nothing, there always is one
    rules = text.ignore or b""
    if text.inside:
        rows = dockerignore.read(rules.decode(errors="replace"))
        always = (text.inside, dockerignore.DEFAULT)  # the daemon removes them again, if they are to be left out
        return _ended(context_tar.pack(place.directory, rows, always=always)), text.inside
    name = f".dockerfile.{hashlib.sha256(text.content).hexdigest()[:20]}"
    rules += f"\n{name}\n{dockerignore.DEFAULT}\n".encode()
    return _ended(_with_file(build, name, text.content, rules)), name


def _with_file(build: BuildRequest, name: str, content: bytes, rules: bytes) -> Iterator[bytes]:
    if build.place.directory:
        yield from context_tar.pack(build.place.directory, dockerignore.read(rules.decode(errors="replace")))
    yield context_tar.member(name, content)
    yield context_tar.member(dockerignore.DEFAULT, rules)


def _ended(chunks: Iterator[bytes]) -> Iterator[bytes]:
    yield from chunks
    yield context_tar.END
