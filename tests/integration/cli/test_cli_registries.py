"""The command line and registries: pictures on a terminal, lines elsewhere, credentials that docker shares."""

from __future__ import annotations

import http.server
import json
import os
import stat
import threading
import urllib.parse

import pytest

from tests.support.registries import made_images as made
from tests.support.registries.nasty_registry import NastyRegistry
from tests.support.registries.registries import registry

pytestmark = pytest.mark.ketch_only


@pytest.fixture(scope="module")
def host():
    with registry() as one:
        yield one.host


@pytest.fixture
def ketch(engine):
    yield engine.ketch
    made.sweep(engine.client)
    config = os.path.join(engine.root, "config.json")
    if os.path.exists(config):
        os.unlink(config)


def test_a_picture_on_a_terminal(ketch):
    with NastyRegistry() as nasty:
        nasty.add("app", "1", made.image({"big": os.urandom(4 << 20)}, {"small": b"x"}, compression="none"))
        nasty.rate = 4 << 20
        with ketch.terminal("pull", f"{nasty.host}/app:1") as shown:
            shown.expect("1: Pulling from app")
            shown.expect(r"Downloading\s+━*╸?─+\s+[\d.]+MB/4.\d+MB")
            shown.expect(r"of 2 done")
            shown.expect("Pull complete")
            shown.expect("Status: Downloaded newer image")
            assert shown.wait() == 0


def test_a_picture_of_a_save(ketch, tmp_path):
    path = str(tmp_path / "box.tar")
    with ketch.terminal("save", "-o", path, "busybox") as shown:
        shown.expect(r"box.tar\s+Saved")
        assert shown.wait() == 0
    assert os.stat(path).st_size > 1 << 20


def test_lines_elsewhere(ketch, host):
    image = made.image({"a": b"1"})
    made.put(host, "cli/app", image, "1")
    out = ketch("pull", f"{host}/cli/app:1").out.splitlines()
    layer = image.layers[0][7:19]
    assert out[0] == "1: Pulling from cli/app"
    assert f"{layer}: Pulling fs layer" in out and f"{layer}: Pull complete" in out
    assert out[-3:] == [
        f"Digest: {image.digest}",
        f"Status: Downloaded newer image for {host}/cli/app:1",
        f"{host}/cli/app:1",
    ]
    assert len(out) == len(set(out))
    assert ketch("pull", "-q", f"{host}/cli/app:1").out == f"{host}/cli/app:1\n"
    items = [json.loads(line) for line in ketch("pull", "--progress", "json", f"{host}/cli/app:1").out.splitlines()]
    assert items[-1]["status"].startswith("Status: Image is up to date")
    ketch("tag", f"{host}/cli/app:1", f"{host}/cli/copy:2")
    assert f"2: digest: {image.digest}" in ketch("push", f"{host}/cli/copy:2").out
    assert ketch("push", "-q", f"{host}/cli/copy:2").out == f"{host}/cli/copy:2\n"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("pull", "-a", "app:1"), "can't be used"),
        (("pull", "--progress", "loud", "app"), "invalid --progress"),
        (("pull", "UPPER"), "must be lowercase"),
        (("push", "nothing:1"), "does not exist"),
        (("login", "--password-stdin", "x"), "must provide --username"),
        (("login", "-u", "a", "-p", "b", "--password-stdin", "x"), "mutually exclusive"),
        (("login", "-u", "a", "x"), "non TTY"),
    ],
)
def test_invalid_servers(ketch, args, said):
    result = ketch(*args, check=False)
    assert result.code and said in result.err


def test_run_pulls_or_not(ketch, host):
    ref = f"{host}/cli/run:1"
    made.put(host, "cli/run", made.busybox(cmd=["/bin/sh", "-c", "echo one"]), "1")
    refused = ketch("run", "--rm", "--pull", "never", ref, check=False)
    assert refused.code == 125 and "No such image" in refused.err
    result = ketch("run", "--rm", ref)
    assert result.out == "one\n" and f"Unable to find image '{ref}' locally" in result.err
    made.put(host, "cli/run", made.busybox(cmd=["/bin/sh", "-c", "echo two"]), "1")
    assert ketch("run", "--rm", ref).out == "one\n"
    result = ketch("run", "--rm", "--pull", "always", ref)
    assert result.out == "two\n" and "Downloaded newer image" in result.err
    result = ketch("run", "--rm", "--quiet", "--pull", "always", ref)
    assert (result.out, result.err) == ("two\n", "")
    absent = ketch("run", "--rm", f"{host}/cli/none:1", check=False)
    assert absent.code == 125 and "manifest unknown" in absent.err and "bootstrap" in absent.err


# -- credentials -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def private():
    with registry(users={"ann": "secret"}) as one:
        yield one.host


def config(engine) -> dict:
    with open(os.path.join(engine.root, "config.json"), encoding="utf-8") as f:
        return json.load(f)


def test_both_clients_share_what_they_know(engine, ketch, private):
    ref = f"{private}/shared/box:1"
    ketch("tag", "busybox", ref)
    bad = ketch("login", "-u", "ann", "--password-stdin", private, stdin=b"wrong\n", check=False)
    assert bad.code == 1 and "unauthorized" in bad.err
    path = os.path.join(engine.root, "config.json")
    with open(path, "w", encoding="utf-8") as f:
        json.dump({"psFormat": "table", "auths": {"other": {"auth": "eDp5"}}}, f)
    assert "Login Succeeded" in ketch("login", "-u", "ann", "--password-stdin", private, stdin=b"secret\n").out
    assert config(engine)["psFormat"] == "table" and set(config(engine)["auths"]) == {"other", private}
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    engine.docker("push", "-q", ref)
    assert "existing credentials" in ketch("login", private).out
    assert ketch("logout", private).out == f"Removing login credentials for {private}\n"
    assert ketch("logout", private).out == f"Not logged in to {private}\n"
    engine.docker("login", "-u", "ann", "--password-stdin", private, stdin=b"secret")
    ketch("rmi", ref)
    ketch("pull", "-q", ref)


def test_a_credential_helper(engine, ketch, private, tmp_path, monkeypatch):
    helper = tmp_path / "docker-credential-box"
    helper.write_text(
        "#!/usr/bin/env python3\n"
        "import json, os, sys\n"
        f"path = {str(tmp_path / 'kept')!r}\n"
        "kept = json.load(open(path)) if os.path.exists(path) else {}\n"
        "text = sys.stdin.read()\n"
        "if sys.argv[1] == 'get':\n"
        "    if text not in kept: print('credentials not found in native keychain'); sys.exit(1)\n"
        "    print(json.dumps(kept[text]))\n"
        "elif sys.argv[1] == 'store': one = json.loads(text); kept[one['ServerURL']] = one\n"
        "elif sys.argv[1] == 'erase': kept.pop(text, None)\n"
        "json.dump(kept, open(path, 'w'))\n"
    )
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with open(os.path.join(engine.root, "config.json"), "w", encoding="utf-8") as f:
        json.dump({"credHelpers": {private: "box"}}, f)
    ketch("login", "-u", "ann", "--password-stdin", private, stdin=b"secret\n")
    assert json.loads((tmp_path / "kept").read_text())[private]["Secret"] == "secret"
    assert config(engine)["auths"] == {private: {}}
    ref = f"{private}/helped/box:1"
    ketch("tag", "busybox", ref)
    ketch("push", "-q", ref)
    engine.docker("push", "-q", ref)
    ketch("logout", private)
    assert json.loads((tmp_path / "kept").read_text()) == {}
    assert ketch("push", ref, check=False).code == 1


# -- images for several platforms --------------------------------------------------------------


def several(host: str, name: str) -> tuple[made.Made, made.Made, made.Made]:
    ours, theirs = made.busybox({"a": b"amd64"}), made.image({"a": b"arm64"}, arch="arm64", variant="v8")
    both = made.index(ours, theirs)
    made.put(host, name, both, "1")
    return ours, theirs, both


def test_a_tree_of_platforms(engine, ketch, host):
    several(host, "tree/app")
    ref = f"{host}/tree/app:1"
    ketch("pull", "-q", ref)
    shown = ketch("images", "--tree", f"{host}/tree/app").out.splitlines()
    assert shown[1].startswith(ref) and shown[2].startswith("├─ linux/amd64") and shown[3].split()[-2:] == ["-", "-"]
    docker = engine.docker("image", "ls", "--tree").out
    assert "linux/amd64" in docker and "linux/arm64/v8" in docker


def test_save_and_load_of_several_platforms(ketch, host, tmp_path):
    ours, theirs, both = several(host, "moved/app")
    ref, path = f"{host}/moved/app:1", str(tmp_path / "app.tar")
    ketch("pull", "-q", ref)
    ketch("pull", "-q", "--platform", "linux/arm64", ref)
    arm = json.loads(ketch("image", "inspect", "--platform", "linux/arm64", ref).out)[0]
    assert (arm["Id"], arm["Architecture"]) == (theirs.image_id, "arm64")
    assert theirs.image_id[7:19] in ketch("history", "--platform", "linux/arm64", ref).out
    ketch("save", "-o", path, ref)
    ketch("rmi", ref)
    assert f"Loaded image: {ref}" in ketch("load", "-i", path).out
    row = json.loads(ketch("image", "inspect", ref).out)[0]
    assert row["Id"] == ours.image_id and row["RepoDigests"] == [f"{host}/moved/app@{both.digest}"]
    ketch("tag", ref, f"{host}/moved/again:1")
    ketch("push", "-q", f"{host}/moved/again:1")
    assert made.got(host, "moved/again", "1") == both.data
    ketch("rmi", ref, f"{host}/moved/again:1")
    ketch("load", "-i", path, "--platform", "linux/arm64")
    assert json.loads(ketch("image", "inspect", ref).out)[0]["Id"] == theirs.image_id
    ketch("rmi", ref)
    ketch("load", "-i", path)
    ketch("save", "--platform", "linux/arm64", "-o", path, ref)
    ketch("rmi", ref)
    ketch("load", "-i", path, "--platform", "linux/arm64")
    assert json.loads(ketch("image", "inspect", ref).out)[0]["Architecture"] == "arm64"


# -- search ------------------------------------------------------------------------------------


@pytest.fixture
def index():
    """A registry that knows Docker's old way of searching."""
    asked: list[dict[str, list[str]]] = []
    found = [
        {"name": "chart", "description": "all charts", "star_count": 70, "is_official": True},
        {"name": "sea/chart", "description": "charts of\nthe sea", "star_count": 7, "is_official": False},
    ]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query))
            body = json.dumps({"num_results": 2, "results": found}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"127.0.0.1:{server.server_address[1]}", asked
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("name", ["docker", "ketch"])
def test_search(engine, index, name):
    host, asked = index
    client = getattr(engine, name)
    lines = client("search", "--limit", "5", f"{host}/chart").out.splitlines()
    assert lines[0].split() == ["NAME", "DESCRIPTION", "STARS", "OFFICIAL"]
    assert lines[1].split() == ["chart", "all", "charts", "70", "[OK]"]
    assert lines[2].split()[:2] == ["sea/chart", "charts"]
    assert asked[0] == {"q": ["chart"], "n": ["5"]}
    only = client("search", "--filter", "stars=10", "--format", "{{.Name}}", f"{host}/chart")
    assert only.out == "chart\n"
    assert client("search", "--filter", "colour=red", f"{host}/chart", check=False).code == 1


def test_a_look_without_a_pull(engine, host):
    image = made.image({"a": b"1"}, arch="arm64")
    made.put(host, "seen/app", image, "1")
    import contextlib

    with contextlib.closing(engine.py()) as docker:
        data = docker.images.get_registry_data(f"{host}/seen/app:1")
        assert data.id == image.digest and data.has_platform("linux/arm64") and not data.has_platform("linux/amd64")
        pulled = docker.images.pull(f"{host}/seen/app", tag="1")
        assert pulled.id == image.image_id
        docker.images.remove(f"{host}/seen/app:1")
