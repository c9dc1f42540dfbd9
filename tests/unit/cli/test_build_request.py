"""What a command line of `build` asks for: outputs, caches, secrets, contexts, and what is refused."""

from __future__ import annotations

import base64
import io
import json
import os
import socket
import tarfile

import pytest

from ketch import dockerignore
from ketch.cli.building import flags, gifts, outputs, places, request, values
from ketch.cli.building.delivery import Delivery
from ketch.cli.building.request import BuildRequest
from ketch.cli.errors import UsageError
from ketch.client import context_tar
from ketch.errors import InvalidArgument, KetchError, NotFound, Unimplemented


def parsed(*words: str):
    return flags.flag_set().parse([*words])[0]


def wanted(*words: str) -> list[tuple]:
    return [(output.kind, output.attributes, output.dest) for output in outputs.parse(parsed(*words))]


def test_outputs():
    assert wanted() == []
    assert wanted("-o", "out") == [("local", {}, "out")]
    assert wanted("-o", "type=tar,dest=a.tar") == [("tar", {}, "a.tar")]
    assert wanted("--output", "-") == [("tar", {}, "-")]
    assert wanted("--output", 'type=oci,"dest=a,b.tar",name=x') == [("oci", {"name": "x"}, "a,b.tar")]
    assert wanted("--load") == [("docker", {}, "")]
    assert wanted("--load", "-o", "type=docker") == [("docker", {}, "")]
    assert wanted("--push", "-t", "a") == [("image", {"push": "true"}, "")]
    assert wanted("-o", "type=registry,name=a") == [("image", {"push": "true", "name": "a"}, "")]
    assert wanted("--push", "-t", "a", "-o", "type=image,name=b") == [("image", {"name": "b", "push": "true"}, "")]
    assert wanted("--annotation", "a=b", "--annotation", "index[linux/amd64]:c=d=e") == [
        ("image", {"annotation.a": "b", "annotation-index[linux/amd64].c": "d=e"}, "")
    ]
    assert not outputs.parse(parsed("-o", "type=docker"))[0].comes_here
    assert outputs.parse(parsed("-o", "type=docker,dest=x.tar"))[0].comes_here


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-o", "type=local"], "dest is required for local output"),
        (["-o", "type=nothing"], "type `nothing`"),
        (["-o", "dest=x"], "type is required"),
        (["-o", "type=tar,x"], "`x` has no value"),
        (["-o", "type=tar,dest=/"], "needs a file"),
        (["-o", "-", "-o", "type=oci"], "only one output can go to standard output"),
        (["--push"], "tag is needed when pushing to registry"),
        (["--annotation", "x"], "invalid --annotation"),
    ],
)
def test_refused_outputs(words, message):
    with pytest.raises(UsageError, match=message):
        outputs.parse(parsed(*words))


def test_evaluations_and_displays(monkeypatch):
    monkeypatch.setenv("BUILDKIT_PROGRESS", "plain")
    assert [flags.mode(parsed(*words)) for words in ([], ["-q"], ["--progress=auto"])] == ["plain", "quiet", "auto"]
    monkeypatch.delenv("BUILDKIT_PROGRESS")
    assert values.call(parsed()) == ("build", False)
    assert values.call(parsed("--check")) == ("check", False)
    assert values.call(parsed("--call=outline,format=json")) == ("outline", True)
    assert flags.mode(parsed("-q")) == "quiet" and flags.mode(parsed("--progress", "rawjson")) == "rawjson"
    for words in (["--call=nothing"], ["--call=check,format=x"]):
        with pytest.raises(UsageError, match="invalid --call"):
            values.call(parsed(*words))
    for words in (["--progress=x"], ["-q", "--progress=plain"]):
        with pytest.raises(UsageError, match="--progress"):
            flags.mode(parsed(*words))


def attested(*words: str) -> dict[str, str]:
    return values.attestations(parsed(*words), by_default=True)


def test_attestations(monkeypatch):
    monkeypatch.delenv("BUILDX_NO_DEFAULT_ATTESTATIONS", raising=False)
    default = {"provenance": "mode=min,inline-only=true"}
    assert attested() == default
    assert values.attestations(parsed(), by_default=False) == {}
    assert attested("--provenance=false", "--attest", "type=sbom,disabled=true") == {}
    assert attested("--provenance=mode=max", "--sbom=true") == {"provenance": "mode=max", "sbom": ""}
    assert attested("--attest", "type=sbom,generator=a:1,EXTRA=x") == {**default, "sbom": "generator=a:1,EXTRA=x"}
    assert attested("--attest", 'type=provenance,"builder-id=a,b"') == {"provenance": '"builder-id=a,b"'}
    monkeypatch.setenv("BUILDX_NO_DEFAULT_ATTESTATIONS", "1")
    assert attested() == {}
    for words, message in (
        (["--attest", "mode=max"], "type not specified"),
        (["--attest", "type=sbom", "--sbom=true"], "duplicate attestation field sbom"),
        (["--attest", "type=sbom,disabled=perhaps"], "disabled is true or false"),
    ):
        with pytest.raises(UsageError, match=message):
            attested(*words)


def test_caches():
    assert values.caches(["a/b:c", "type=local,src=d,x=y"], "cache-from") == [
        ("registry", {"ref": "a/b:c"}),
        ("local", {"src": "d", "x": "y"}),
    ]
    assert values.caches(["type=inline"], "cache-to") == [("inline", {})]
    for text in ("type=local", "ref=x", "type=registry"):
        with pytest.raises(UsageError, match="is required"):
            values.caches([text], "cache-to")


def test_arguments(monkeypatch):
    monkeypatch.setenv("GIVEN", "here")
    monkeypatch.delenv("MISSING", raising=False)
    items = ["a=b=c", "GIVEN", "MISSING", "empty="]
    assert values.pairs(items, "build-arg", inherit=True) == {"a": "b=c", "GIVEN": "here", "empty": ""}
    with pytest.raises(UsageError, match="the name is empty"):
        values.pairs(["=x"], "label")


def test_secrets(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOKEN", "from the environment")
    (tmp_path / "file").write_bytes(b"\xff content\n")
    assert gifts.secrets(["id=a,src=file", "id=b,env=TOKEN", "id=TOKEN", "id=file", "type=env,id=TOKEN"]) == {
        "a": b"\xff content\n",
        "b": b"from the environment",
        "TOKEN": b"from the environment",
        "file": b"\xff content\n",
    }
    (tmp_path / "large").write_bytes(bytes((500 << 10) + 1))
    for text, message in (
        ("id=a,src=large", "larger than 500 KiB"),
        ("id=a,src=none", "open none: No such file"),
        ("id=a,env=NONE_OF_THAT_NAME", "no variable"),
        ("src=file", "id is required"),
        ("id=a,mode=1", "unexpected `mode`"),
        ("id=a,type=x", "unsupported secret type"),
    ):
        with pytest.raises(KetchError, match=message):
            gifts.secrets([text])


def test_agents(tmp_path, monkeypatch):
    path = str(tmp_path / "agent")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        monkeypatch.setenv("SSH_AUTH_SOCK", path)
        assert gifts.agents(["default", f"other={path}"]) == {"default": path, "other": path}
    (tmp_path / "key").touch()
    monkeypatch.delenv("SSH_AUTH_SOCK")
    for text, message in (
        ("default", "SSH_AUTH_SOCK is not set"),
        (f"a={tmp_path}/key", "is no agent's socket"),
        (f"a={tmp_path}/none", "No such file"),
    ):
        with pytest.raises(KetchError, match=message):
            gifts.agents([text])


def test_named_contexts(tmp_path):
    layout = tmp_path / "layout"
    layout.mkdir()
    one, two = ({"digest": f"sha256:{n}", "annotations": {"org.opencontainers.image.ref.name": n}} for n in "ab")
    (layout / "index.json").write_text(json.dumps({"manifests": [one, two]}))
    found = gifts.contexts(
        [
            f"Src={tmp_path}",
            "docker.io/library/alpine:latest=docker-image://busybox",
            "web=https://example.org/x.git#main",
            f"img=oci-layout://{layout}:b",
        ]
    )
    assert found.addresses == {
        "src": "local:src",
        "alpine": "docker-image://busybox",
        "web": "https://example.org/x.git#main",
        "img": "oci-layout://img.layout@sha256:b",
    }
    assert found.directories == {"src": str(tmp_path), "img.layout": str(layout)}
    for text in ("x", "x=", f"x={tmp_path}/none", f"x=oci-layout://{layout}", f"x=oci-layout://{tmp_path}"):
        with pytest.raises(KetchError):
            gifts.contexts([text])


def test_places(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    context = tmp_path / "context"
    (context / "sub").mkdir(parents=True)
    (context / "dockerfile").write_text("lower")
    (context / ".dockerignore").write_text("all")
    assert places.find("context", "").dockerfile == ("dockerfile", b"lower", "dockerfile", b"all", ".dockerignore")
    (context / "Dockerfile").write_text("upper")
    (context / "sub" / "My").write_text("my")
    (context / "sub" / "My.dockerignore").write_text("of mine")
    assert places.find("context", "").dockerfile.content == b"upper"
    for name in ("context/sub/My", "sub/My", str(context / "sub/My")):
        found = places.find("context", name).dockerfile
        assert found == ("sub/My", b"my", "sub/My", b"of mine", "My.dockerignore")
    (tmp_path / "Outside").write_text("out")
    assert places.find("context", "Outside").dockerfile == ("Outside", b"out", "", b"all", ".dockerignore")
    for address in ("https://example.org/a.git#b:c", "github.com/a/b", "git@host:a", "http://host/a.tar.gz"):
        assert places.find(address, "sub/D")[:3] == ("", address, None)
    assert places.find("https://h/a", "sub/D").dockerfile_path == "sub/D"
    named = [("context", "", ""), ("context", "sub/My", "t"), ("https://h/x/app.git#main:d", "", "")]
    assert [request.build_name(places.find(where, file), target) for where, file, target in named] == [
        "context",
        "context/sub/My (t)",
        "app.git",
    ]
    with pytest.raises(NotFound, match="path `none` not found"):
        places.find("none", "")
    with pytest.raises(InvalidArgument, match="is no directory"):
        places.find("Outside", "")
    with pytest.raises(NotFound, match="open nothing: no such file"):
        places.find("context", "nothing")
    with pytest.raises(InvalidArgument, match="cannot be both"):
        places.find("-", "-")


def entries(chunks) -> dict[str, tarfile.TarInfo]:
    archive = b"".join(chunks) + context_tar.END
    return {member.name: member for member in tarfile.open(fileobj=io.BytesIO(archive))}


def test_the_tar_of_a_context(tmp_path):
    for path in ("a/b/keep", "a/b/drop", "a/drop", "c/drop/x", "d", ".git/x"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(path)
    os.link(tmp_path / "d", tmp_path / "linked")
    (tmp_path / "link").symlink_to("d")
    os.chmod(tmp_path / "a", 0o711)
    os.chown(tmp_path / "d", 12, 34)
    rules = dockerignore.read("**/drop\n.git\na\n!a/b/keep\n")
    found = entries(context_tar.pack(str(tmp_path), rules, "0/"))
    assert list(found) == ["0/a", "0/a/b", "0/a/b/keep", "0/c", "0/d", "0/link", "0/linked"]
    assert found["0/a"].mode == 0o711 and found["0/linked"].linkname == "0/d" and found["0/link"].linkname == "d"
    assert (found["0/d"].uid, found["0/d"].gid) == (0, 0)
    kept = entries(context_tar.pack(str(tmp_path), dockerignore.read("*"), always=("c/drop/x", "d")))
    assert list(kept) == ["c", "c/drop", "c/drop/x", "d"]
    assert list(entries(context_tar.pack(str(tmp_path), dockerignore.read("*")))) == []
    with pytest.raises(InvalidArgument, match="No such file"):
        list(context_tar.pack(str(tmp_path / "none"), dockerignore.read("")))


def test_delivery(tmp_path, monkeypatch):
    from contextlib import ExitStack

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    (tmp_path / ".dockerignore").write_text("more\n")
    (tmp_path / "more").mkdir()
    words = ["-t", "app", "--build-context", "more=more", "--shm-size=1m", "--ulimit=nofile=1:2", "-o", "out", "."]
    opts, rest = flags.flag_set().parse(words)
    with ExitStack() as stack:
        asked = Delivery(BuildRequest(opts, rest[0], ""), stack, by_descriptor=True).request
        for name, path in (("context", tmp_path), ("more", tmp_path / "more")):
            _, fd, device, inode = asked["directories"][name].split(":")
            status = os.fstat(int(fd))
            assert os.path.samestat(status, os.stat(path)) and (status.st_dev, status.st_ino) == (
                int(device),
                int(inode),
            )
        assert asked["outputs"][0]["to"].startswith("fd:")
        assert asked["contexts"] == {"more": "local:more"} and asked["t"] == ["app"]
        assert asked["shmsize"] == 1 << 20 and asked["ulimits"] == [{"Name": "nofile", "Soft": 1, "Hard": 2}]
        assert "memory" not in asked and base64.b64decode(asked["dockerfile"]["ignore"]) == b"more\n"
        json.dumps(asked)
    with ExitStack() as stack:
        delivery = Delivery(BuildRequest(opts, rest[0], ""), stack, by_descriptor=False)
        assert delivery.request["directories"] == {"context": "tar:0", "more": "tar:1"}
        assert delivery.request["outputs"] == [{"type": "local", "attrs": {}, "to": "stream"}]
        assert list(entries([b"".join(delivery.body())])) == ["0", "0/.dockerignore", "0/Dockerfile", "0/out", "1"]
        with pytest.raises(Unimplemented, match="not on this machine"):
            opts, _ = flags.flag_set().parse(["--cache-to", "type=local,dest=x", "."])
            Delivery(BuildRequest(opts, ".", ""), stack, by_descriptor=False)
