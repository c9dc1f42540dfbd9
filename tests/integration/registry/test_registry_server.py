"""Our registry as a service: caching another one, garbage, several processes, figures, logs, and its end."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import http.server
import json
import os
import signal
import subprocess
import sys
import threading

import bcrypt
import pytest

from ketch.registry import errors
from tests.support.engines import KETCH
from tests.support.registries import made_images as made
from tests.support.registries.nasty_registry import Fault, NastyRegistry
from tests.support.registries.raw import Raw, begin, named, put_blob, put_manifest
from tests.support.registries.registries import bucket, free_port, listens, ours, registry
from tests.support.waiting import patient, until

pytestmark = pytest.mark.ketch_only


def collect(root: str, *flags: str) -> dict:
    """``ketch registry gc`` beside whatever runs."""
    command = [KETCH, "registry", "gc", "--root", f"{root}/data", *flags]
    return json.loads(subprocess.run(command, capture_output=True, check=True, timeout=patient(60)).stdout)


def test_read_only():
    with ours() as one:
        put_manifest(Raw(one.host), "some", "1")
        with ours("--read-only", "--root", f"{one.root}/data") as other:
            raw = Raw(other.host)
            assert raw("GET", "/v2/some/manifests/1")[0] == 200
            assert raw.code("POST", "/v2/some/blobs/uploads/", b"") == (405, "UNSUPPORTED")
            assert raw.code("DELETE", "/v2/some/manifests/1") == (405, "UNSUPPORTED")


# -- a cache -----------------------------------------------------------------------------------


def test_a_cache_of_another_registry():
    image = made.image({"big": os.urandom(3 << 20)}, compression="none")
    with contextlib.ExitStack() as undo:
        upstream = undo.enter_context(registry())
        made.put(upstream.host, "some/app", image, "1")
        cache = undo.enter_context(ours("--upstream", f"http://{upstream.host}", "--upstream-ttl", "0"))
        raw = Raw(cache.host)
        place = f"/v2/some/app/blobs/{image.layers[0]}"
        assert raw("GET", "/v2/some/app/manifests/1")[2] == image.data
        answers: list[bytes] = []
        threads = [threading.Thread(target=lambda: answers.append(raw("GET", place)[2])) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [image.blobs[image.layers[0]]] * 4
        assert raw("HEAD", place)[0] == 200
        assert raw("GET", place, Range="bytes=10-19")[2] == answers[0][10:20]
        assert raw("GET", f"/v2/some/app/blobs/{image.image_id}")[0] == 200
        assert raw.code("POST", "/v2/some/app/blobs/uploads/", b"") == (405, "UNSUPPORTED")
        assert raw("GET", "/v2/nothing/manifests/1")[0] == 404
        newer = made.image({"a": b"2"})
        made.put(upstream.host, "some/app", newer, "1")
        assert raw("GET", "/v2/some/app/manifests/1")[2] == newer.data
        upstream.process.kill()
        upstream.process.wait()
        assert raw("GET", "/v2/some/app/manifests/1")[2] == newer.data
        assert raw("GET", f"/v2/some/app/manifests/{image.digest}")[2] == image.data
        assert raw("GET", place)[2] == answers[0]
        assert raw.code("GET", f"/v2/some/app/blobs/{newer.layers[0]}") == (503, "UNAVAILABLE")


def test_a_cache_of_what_has_sha512_digests():
    with ours() as upstream, ours("--upstream", f"http://{upstream.host}") as cache:
        blob = put_blob(Raw(upstream.host), "some", b"{}", "sha512")
        config = {"mediaType": made.CONFIG, "digest": blob, "size": 2}
        data = json.dumps({"schemaVersion": 2, "mediaType": made.MANIFEST, "config": config, "layers": []}).encode()
        place = f"/v2/some/manifests/{named(data)}"
        status, _, _ = Raw(upstream.host)("PUT", place, data, Content_Type=made.MANIFEST)
        assert status == 201
        for _ in range(2):  # the second time without the upstream
            status, headers, got = Raw(cache.host)("GET", place)
            assert (status, got, headers["docker-content-digest"]) == (200, data, named(data))
        assert Raw(cache.host)("GET", f"/v2/some/blobs/{blob}")[2] == b"{}"


# -- garbage -----------------------------------------------------------------------------------


def test_garbage_goes_in_two_runs():
    with ours() as one:
        raw = Raw(one.host)
        kept, _ = put_manifest(raw, "some", "1")
        gone, _ = put_manifest(raw, "some", "2", annotations={"n": "2"})
        loose = put_blob(raw, "some", b"nobody needs it")
        config = put_blob(raw, "some", b"{}", "sha512")  # one of those that the manifest below needs
        put_blob(raw, "some", b"nobody needs it", "sha512")
        needing, _ = put_manifest(raw, "some", "3", layers=[{"mediaType": made.CONFIG, "digest": config, "size": 2}])
        begin(raw, "some")
        assert raw("DELETE", f"/v2/some/manifests/{gone}")[0] == 202
        assert collect(one.root)["condemned"] == 0  # all of it is young
        first = collect(one.root, "--gc-grace", "0")
        assert (first["condemned"], first["deleted_blobs"], first["deleted_uploads"]) == (3, 0, 1)
        assert raw("HEAD", f"/v2/some/blobs/{loose}")[0] == 404  # who would rely on it is told to bring it again
        second = collect(one.root, "--gc-grace", "0")
        assert second["deleted_blobs"] == 3 and second["deleted_bytes"] > 0
        assert raw("GET", f"/v2/some/blobs/{loose}")[0] == 404
        assert [raw("GET", f"/v2/some/manifests/{digest}")[0] for digest in (kept, needing)] == [200, 200]
        assert raw("GET", f"/v2/some/blobs/{config}")[2] == b"{}"
        assert raw("GET", f"/v2/some/blobs/{named(b'nobody needs it')}")[0] == 404
        assert collect(one.root, "--gc-grace", "0")["condemned"] == 0


def test_a_push_takes_back_what_was_condemned():
    with ours() as one:
        raw = Raw(one.host)
        blob = put_blob(raw, "some", b"{}")  # a push has begun …
        put_blob(raw, "some", b"layer")
        assert collect(one.root, "--gc-grace", "0")["condemned"] == 2
        digest, _ = put_manifest(raw, "some", "1")  # … and ends between the two runs
        assert collect(one.root, "--gc-grace", "0")["deleted_blobs"] == 1
        assert raw("GET", f"/v2/some/manifests/{digest}")[0] == 200
        assert raw("GET", f"/v2/some/blobs/{blob}")[2] == b"{}"


def test_a_push_between_the_second_run_s_claim_and_its_look():
    """Whoever comes while a blob is being deleted waits, and writes it again."""
    with ours() as one:
        raw = Raw(one.host)
        data = b"wanted again"
        digest = put_blob(raw, "some", data)
        claim = os.path.join(one.root, "data/deleting", digest.removeprefix("sha256:"))
        os.makedirs(os.path.dirname(claim))
        open(claim, "w").close()
        done: list[int] = []
        pushing = threading.Thread(
            target=lambda: done.append(raw("POST", f"/v2/some/blobs/uploads/?digest={digest}", data)[0])
        )
        pushing.start()
        os.unlink(os.path.join(one.root, "data/blobs/sha256", digest[7:9], digest[7:]))
        assert done == []
        os.unlink(claim)
        pushing.join()
        assert done == [201] and raw("GET", f"/v2/some/blobs/{digest}")[2] == data


def test_untagged_manifests():
    with ours() as one:
        raw = Raw(one.host)
        tagged, data = put_manifest(raw, "some", "1")
        loose, _ = put_manifest(raw, "some", "2", annotations={"n": "2"})
        subject = {"mediaType": made.MANIFEST, "digest": tagged, "size": len(data)}
        signature, _ = put_manifest(raw, "some", "3", subject=subject)
        for tag in ("2", "3"):
            assert raw("DELETE", f"/v2/some/manifests/{tag}")[0] == 202
        assert collect(one.root, "--gc-grace", "0")["deleted_manifests"] == 0
        assert collect(one.root, "--gc-grace", "0", "--delete-untagged")["deleted_manifests"] == 1
        assert [raw("GET", f"/v2/some/manifests/{d}")[0] for d in (tagged, loose, signature)] == [200, 404, 200]


def test_garbage_while_docker_pushes(engine):
    """Runs without a pause and without grace beside pushes and pulls: every one of them succeeds."""
    with ours("--gc-interval", "0.01", "--gc-grace", "2") as one:
        for n in range(4):
            ref = f"{one.host}/busy/{n}:1"
            engine.docker("tag", "busybox", ref)
            engine.docker("push", "-q", ref)
            engine.docker("rmi", ref)
            engine.docker("pull", "-q", ref)
            engine.docker("rmi", ref)
        text = Raw(one.host)("GET", "/metrics")[2].decode()
        runs = next(line for line in text.splitlines() if line.startswith("ketch_registry_gc_runs_total"))
        assert int(runs.split()[1]) > 2


# -- several processes -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["disk", "s3"])
def test_an_upload_that_goes_from_process_to_process(kind, tmp_path):
    with contextlib.ExitStack() as undo:
        flags = undo.enter_context(bucket()) if kind == "s3" else []
        root = str(tmp_path)
        hosts = [undo.enter_context(ours(*flags, root=root)).host for _ in range(2)]
        first, second = (Raw(host) for host in hosts)
        data = os.urandom(300_000)
        place = begin(first, "some")
        for n, raw in enumerate((first, second, first)):
            part = data[n * 100_000 : (n + 1) * 100_000]
            status, headers, _ = raw("PATCH", place, part, Content_Range=f"{n * 100_000}-{n * 100_000 + 99_999}")
            assert (status, headers["range"]) == (202, f"0-{(n + 1) * 100_000 - 1}")
        assert second("PUT", f"{place}?digest={made.digest(data)}", b"")[0] == 201
        assert first("GET", f"/v2/some/blobs/{made.digest(data)}")[2] == data
        digest, _ = put_manifest(first, "some", "1")
        assert second("GET", "/v2/some/manifests/1")[1]["docker-content-digest"] == digest
        assert first("DELETE", f"/v2/some/manifests/{digest}")[0] == 202
        assert second("GET", f"/v2/some/manifests/{digest}")[0] == 404


def test_workers(tmp_path):
    with ours("--workers", "2") as one:
        raw = Raw(one.host)
        digest, data = put_manifest(raw, "some", "1")
        for _ in range(20):
            assert raw("GET", f"/v2/some/manifests/{digest}")[2] == data
        children = f"/proc/{one.process.pid}/task/{one.process.pid}/children"

        def workers() -> list[str]:
            with open(children) as f:
                return f.read().split()

        before = workers()
        assert len(before) == 2
        os.kill(int(before[0]), signal.SIGKILL)
        until(lambda: len(workers()) == 2 and workers() != before, "no new worker takes its place")
        until(lambda: listens(one.host), "nobody listens")
        assert raw("GET", f"/v2/some/manifests/{digest}")[2] == data


def test_an_end_while_a_worker_is_started():
    """The signal comes between the start of the worker in a dead one's place and its entry in the list."""
    code = """
import os, signal, subprocess, sys
from ketch.registry import serve

class Started(subprocess.Popen):
    count = 0

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        Started.count += 1
        if Started.count == 1:
            os.kill(self.pid, signal.SIGKILL)
        if Started.count == 3:
            os.kill(os.getpid(), signal.SIGTERM)

serve.subprocess.Popen = Started
serve.programs.python = lambda *_: ["sleep", "1000"]
sys.exit(serve._supervise(2, []))
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=patient(50), check=False).returncode == 0


# -- figures, logs, ends -----------------------------------------------------------------------


def test_figures_and_log():
    with ours() as one:
        raw = Raw(one.host)
        assert raw("GET", "/healthz")[2] == b"ok\n"
        put_blob(raw, "some", b"x" * 1000)
        raw("GET", "/v2/some/manifests/none", User_Agent="test/1")
        text = raw("GET", "/metrics")[2].decode()
        assert 'ketch_registry_requests_total{method="GET",route="manifests",status="404"} 1' in text
        assert 'ketch_registry_bytes_total{direction="in"} 1000' in text
        assert 'ketch_registry_request_seconds_bucket{route="uploads",le="+Inf"} 1' in text
        with open(os.path.join(one.root, "access.log")) as f:
            lines = [json.loads(line) for line in f]
        found = next(line for line in lines if "manifests" in line["path"])
        assert (found["status"], found["method"], found["agent"]) == (404, "GET", "test/1")
        assert next(line for line in lines if line["method"] == "POST")["bytes_in"] == 1000


def test_requests_under_way_are_finished():
    with ours() as one:
        raw = Raw(one.host)
        digest = put_blob(raw, "some", os.urandom(8 << 20))
        host, _, port = one.host.partition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=patient(30))
        connection.request("GET", f"/v2/some/blobs/{digest}")
        answer = connection.getresponse()
        one.process.terminate()
        until(lambda: not listens(one.host), "it goes on to listen")
        assert len(answer.read()) == 8 << 20


def test_a_full_disk(tmp_path):
    root = str(tmp_path / "small")
    os.mkdir(root)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", root], check=True)
    try:
        with ours("--root", root) as one:
            raw = Raw(one.host)
            data = os.urandom(6 << 20)
            code = raw.code("POST", f"/v2/some/blobs/uploads/?digest={made.digest(data)}", data)
            assert code == (507, "NO_SPACE")
            assert raw("HEAD", f"/v2/some/blobs/{made.digest(data)}")[0] == 404
            assert put_blob(raw, "some", b"small")
    finally:
        subprocess.run(["umount", root], check=True)


def test_bodies_are_what_was_sent():
    """``Content-Encoding`` is not undone: a blob has the digest of its bytes, and nothing is inflated onto the disk."""
    with ours() as one:
        raw = Raw(one.host)
        bomb = gzip.compress(bytes(64 << 20))
        digest = made.digest(bomb)
        place = f"/v2/some/blobs/uploads/?digest={digest}"
        assert raw("POST", place, bomb, Content_Encoding="gzip")[0] == 201
        assert int(raw("HEAD", f"/v2/some/blobs/{digest}")[1]["content-length"]) == len(bomb)
        manifest = gzip.compress(b" " * (64 << 20))
        headers = {"Content_Encoding": "gzip", "Content_Type": made.MANIFEST}
        assert raw.code("PUT", "/v2/some/manifests/1", manifest, **headers) == (400, "MANIFEST_INVALID")


def test_an_upstream_that_sends_more_than_it_says():
    image = made.image({"a": b"x"})
    layer = image.layers[0]
    with NastyRegistry() as upstream:
        upstream.add("some/app", "1", image)
        upstream.faults.append(Fault(f"/blobs/{layer}", body=bytes(32 << 20)))
        with ours("--upstream", f"http://{upstream.host}") as cache:
            with contextlib.suppress(http.client.HTTPException, OSError):
                status, _, body = Raw(cache.host)("GET", f"/v2/some/app/blobs/{layer}")
                assert status != 200 or len(body) <= len(image.blobs[layer])
            until(lambda: "sends more than" in _log(cache.root), "it takes whatever comes")
            until(lambda: not _files_over(cache.root, 1 << 20), "what was too much is kept")
            assert Raw(cache.host)("HEAD", "/v2/some/app/blobs/sha256:" + "0" * 64)[0] == 404


def _log(root: str) -> str:
    with open(f"{root}/log", encoding="utf-8") as f:
        return f.read()


def _files_over(root: str, size: int) -> list[str]:
    found = [os.path.join(place, name) for place, _, names in os.walk(root) for name in names]
    return [path for path in found if os.path.exists(path) and os.path.getsize(path) > size]


def test_a_client_that_breaks_off():
    with ours() as one:
        raw = Raw(one.host)
        place = begin(raw, "some")
        host, _, port = one.host.partition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=patient(30))
        connection.putrequest("PATCH", place)
        connection.putheader("Content-Length", str(8 << 20))
        connection.endheaders()
        connection.send(b"x" * (3 << 20))
        connection.close()

        def arrived() -> int:
            return int(raw("GET", place)[1]["range"].partition("-")[2]) + 1

        until(lambda: arrived() >= 1 << 20, "nothing of it is kept")
        until(lambda: raw("PATCH", place, b"y", Content_Range=f"{arrived()}-{arrived()}")[0] == 202, "it stays busy")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--addr", "nowhere"], "not an address"),
        (["--tls-cert", "x"], "TLS needs both"),
        (["--token-realm", "x"], "tokens need all four"),
        (["--htpasswd", "/nowhere"], "no such file"),
        (["--bucket-option", "x"], "KEY=VALUE"),
        (["--config-file", "/nowhere"], "read configuration"),
    ],
)
def test_settings_that_cannot_be_meant(tmp_path, flags, said):
    command = [KETCH, "registry", "serve", "--root", str(tmp_path), *flags]
    if "--addr" not in flags:
        command += ["--addr", f"127.0.0.1:{free_port()}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=patient(30), check=False)
    assert done.returncode == 1
    assert said.lower() in done.stderr.lower()


def test_a_configuration_file(tmp_path):
    users = str(tmp_path / "users")
    with open(users, "w") as f:
        f.write(f"ann:{bcrypt.hashpw(b'secret', bcrypt.gensalt(4)).decode()}\n")
    path = tmp_path / "registry.json"
    path.write_text(json.dumps({"htpasswd": users, "anonymous-pull": True}))
    with ours("--config-file", str(path)) as one:
        assert Raw(one.host)("POST", "/v2/some/blobs/uploads/", b"")[0] == 401


def test_htpasswd_lines():
    command = [KETCH, "registry", "htpasswd", "--cost", "4", "ann"]
    line = (
        subprocess.run(command, input=b"secret\n", capture_output=True, check=True, timeout=patient(30))
        .stdout.decode()
        .strip()
    )
    user, _, hashed = line.partition(":")
    assert user == "ann" and bcrypt.checkpw(b"secret", hashed.encode())


def test_the_page_has_every_error():
    with open(os.path.join(os.path.dirname(__file__), "../../../docs/registry.md"), encoding="utf-8") as f:
        page = f.read()
    for kind in errors.ALL:
        assert f"| `{kind.code}` | {kind.status} | {kind.message} |" in page
