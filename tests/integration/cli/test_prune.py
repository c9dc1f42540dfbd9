"""``prune`` of everything, and dry runs, which agree with it."""

from __future__ import annotations

import json
import os
import subprocess

import pytest


def state(engine) -> list[str]:
    """Everything that a removal could change."""
    docker = engine.docker
    return [
        docker("ps", "-aq", "--no-trunc").out,
        docker("volume", "ls", "-q").out,
        docker("network", "ls", "-q").out,
        docker("images", "-aq", "--no-trunc").out,
    ]


@pytest.fixture
def litter(own_engine):
    """A daemon with things that are used and things that are not."""
    own_engine.start()
    own_engine.add_busybox()
    docker = own_engine.docker
    docker("network", "create", "used")
    docker("network", "create", "idle")
    docker("volume", "create", "named")
    docker("run", "-d", "--name", "up", "--network", "used", "-v", "/anonymous", "busybox", "sleep", "1000")
    docker(
        "run",
        "--name",
        "down",
        "--network",
        "idle",
        "-v",
        "/data",
        "busybox",
        "sh",
        "-c",
        "echo much > /data/x; echo x > /y",
    )
    docker("create", "--name", "down2", "-l", "keep", "--volumes-from", "down", "busybox")
    for name in ("one", "two"):
        docker("import", "-", f"{name}:latest", stdin=layer(name))
    docker("tag", "one", "uno")
    docker("import", "-", stdin=layer("three"))
    docker("create", "--name", "holds", "two", "x")
    return own_engine


def layer(text: str) -> bytes:
    import io
    import tarfile

    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        info = tarfile.TarInfo("file")
        info.size = 100_000
        archive.addfile(info, io.BytesIO(text.encode().ljust(info.size)))
    return target.getvalue()


@pytest.mark.parametrize("flags", [(), ("-a", "--volumes"), ("-a", "--volumes", "--filter", "label!=keep")])
def test_a_dry_run_says_what_system_prune_then_does(litter, flags):
    ketch, before = litter.ketch, state(litter)
    said = json.loads(ketch("system", "prune", *flags, "--dry-run", "--format", "json").out)
    words = ketch("system", "prune", *flags, "--dry-run").out
    assert state(litter) == before
    for one in said["Containers"]:
        assert one["Name"] in words
    done = ketch("system", "prune", *flags, "-f").out
    gone = [sorted(set(was.split()) - set(now.split())) for was, now in zip(before, state(litter), strict=True)]
    assert sorted(one["Id"] for one in said["Containers"]) == gone[0]
    assert sorted(one["Id"] for one in said["Volumes"]) == gone[1]
    assert sorted(one["Id"][:12] for one in said["Networks"]) == gone[2]
    assert sorted(one["Id"] for one in said["Images"]) == gone[3]
    rows = [f"{action.lower()}: {what}" for row in said["ImagesDeleted"] for action, what in row.items()]
    assert all(row in done for row in rows)
    assert done.splitlines()[-1].partition(": ")[2] == words.splitlines()[-1].partition(": ")[2]
    left = json.loads(ketch("system", "prune", *flags, "--dry-run", "--format", "json").out)
    assert left == {
        "Containers": [],
        "Networks": [],
        "Volumes": [],
        "Images": [],
        "ImagesDeleted": [],
        "SpaceReclaimed": 0,
    }
    if flags == ("-a", "--volumes"):
        assert [len(part) for part in gone] == [3, 1, 1, 3]
        assert litter.docker("ps", "-q").out and "named" in state(litter)[1]


def test_system_prune_asks_first(litter):
    ketch, before = litter.ketch, state(litter)
    asked = ketch("system", "prune", "--volumes", "--filter", "label=x", stdin=b"n\n", check=False)
    assert asked.out == (
        "WARNING! This will remove:\n  - all stopped containers\n  - all networks not used by at least one container\n"
        "  - all anonymous volumes not used by at least one container\n  - all dangling images\n"
        "  - unused build cache\n"
        "\n  Items to be pruned will be filtered with:\n  - label=x\n\nAre you sure you want to continue? [y/N] "
    )
    assert asked.code == 0 and state(litter) == before
    refused = ketch("system", "prune", "--volumes", "--filter", "until=1h", check=False)
    assert refused.code == 1 and '"until" filter is not supported with "--volumes"' in refused.err
    assert "Deleted Containers:" in ketch("system", "prune", stdin=b"y\n").out


def test_the_kinds_one_by_one(litter):
    ketch, before = litter.ketch, state(litter)
    for kind in ("container", "image", "volume", "network"):
        said = json.loads(ketch(kind, "prune", "--dry-run", "--format", "json").out)
        assert state(litter) == before
        assert [k for k in ("Containers", "Images", "Volumes", "Networks") if said[k]] in (
            [f"{kind.capitalize()}s"],
            [],
        )
    assert ketch("container", "prune", "--format", "json", check=False).code == 1
    answer = json.loads(ketch("image", "prune", "-a", "--dry-run", "--format", "json").out)
    assert [one["Name"] for one in answer["Images"] if one["Name"] != "<none>"] == ["one:latest, uno:latest"]
    assert {100_000 <= one["Size"] < 110_000 for one in answer["Images"]} == {True}
    assert ketch("image", "prune", "-af").out.splitlines()[-1] == "Total reclaimed space: 200kB"


def test_rm(litter):
    ketch, before = litter.ketch, state(litter)
    running = ketch("rm", "--dry-run", "up", check=False)
    assert running.code == 1 and "stop the container before removing or force remove" in running.err
    assert ketch("rm", "--dry-run", "nobody", check=False).code == 1
    assert "up" in ketch("rm", "-f", "--dry-run", "up").out
    shared = json.loads(ketch("rm", "-v", "--dry-run", "--format", "json", "down").out)
    assert shared["Volumes"] == []  # another container has it, too
    both = json.loads(ketch("rm", "-v", "--dry-run", "--format", "json", "down2", "down").out)
    assert (len(both["Containers"]), len(both["Volumes"])) == (2, 1)
    assert both["SpaceReclaimed"] >= 4096
    assert state(litter) == before
    ketch("rm", "-v", "down2", "down")
    gone = set(before[1].split()) - set(state(litter)[1].split())
    assert gone == {one["Id"] for one in both["Volumes"]}


def test_nothing_but_ketch_is_asked_to_try(litter, tmp_path):
    """A daemon that does not know the word would remove things."""
    import socket
    import threading

    path, seen = str(tmp_path / "s.sock"), []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                seen.append(connection.recv(4096).split(b" ")[1])
                connection.sendall(b"HTTP/1.1 200 OK\r\nServer: Docker/27\r\nContent-Length: 2\r\n\r\nOK")
                seen.append(connection.recv(4096))

        thread = threading.Thread(target=serve)
        thread.start()
        refused = litter.ketch("-H", f"unix://{path}", "system", "prune", "--dry-run", check=False)
        thread.join()
    assert refused.code == 1 and "would really remove" in refused.err
    assert seen == [b"/_ping", b""]


def test_system_prune_through_both_clients(client):
    client("run", "--name", "gone", "busybox", "true")
    ident = client("inspect", "-f", "{{.Id}}", "gone").out.strip()
    pruned = client("system", "prune", "-f", "--filter", "label!=keep").out
    assert pruned.startswith(f"Deleted Containers:\n{ident}\n\n")
    assert pruned.splitlines()[-1].startswith("Total reclaimed space: ")


def test_prune_words(client):
    """What `docker` and `ketch` print for the same."""
    client("run", "--name", "gone", "busybox", "true")
    ident = client("inspect", "-f", "{{.Id}}", "gone").out.strip()
    pruned = client("container", "prune", "-f").out
    assert pruned.startswith(f"Deleted Containers:\n{ident}\n\nTotal reclaimed space: ")
    for command, what in (
        ("container prune", "all stopped containers.\n"),
        ("image prune", "all dangling images.\n"),
        ("image prune -a", "all images without at least one container associated to them.\n"),
        ("volume prune", "anonymous local volumes not used by at least one container.\n"),
        ("volume prune -a", "all local volumes not used by at least one container.\n"),
        ("network prune", "all custom networks not used by at least one container.\n"),
        ("builder prune", "all dangling build cache. "),
    ):
        asked = client(*command.split(), stdin=b"n\n")  # no is no failure
        text = f"WARNING! This will remove {what}Are you sure you want to continue? [y/N] "
        assert (asked.out + asked.err).startswith(text), command


@pytest.mark.ketch_only
def test_many_containers_fit_into_a_question(engine):
    from ketch.client.http import Client

    engine.ketch("create", "--name", "box", "-v", "/data", "busybox")
    ident = engine.ketch("inspect", "-f", "{{.Id}}", "box").out.strip()
    without = [*(f"{number:064x}" for number in range(3000)), ident]
    client = Client(engine.host)
    answers = [
        client.request("POST", "/volumes/prune", {"dry-run": True}, {"Without": ids}).json() for ids in (without, [])
    ]
    volume = engine.ketch("inspect", "-f", "{{(index .Mounts 0).Name}}", "box").out.strip()
    assert [volume in answer["VolumesDeleted"] for answer in answers] == [True, False]
    # Only a dry run takes anything as gone.
    assert volume not in client.request("POST", "/volumes/prune", None, {"Without": without}).json()["VolumesDeleted"]
    assert volume in engine.ketch("volume", "ls", "-q").out


def test_what_cannot_be_removed_keeps_nothing_else(own_engine, tmp_path):
    """A directory on which the administrator mounted something stays, and what is mounted there as well."""
    own_engine.start()
    docker = own_engine.docker
    for name in "first", "second", "third":
        docker("volume", "create", name)
    (tmp_path / "precious").write_text("x")
    place = f"{own_engine.data_root}/volumes/first/_data/in"
    os.mkdir(place)
    subprocess.run(["mount", "--bind", str(tmp_path), place], check=True)
    try:
        pruned = docker("volume", "prune", "-af", check=False)
        assert pruned.code == 1
        assert f"prune volumes: not all could be removed: remove volume first: device or resource busy: `{place}`" in (
            pruned.err
        )
        assert docker("volume", "ls", "-q").out == "first\n"
        assert (tmp_path / "precious").read_text() == "x"
    finally:
        subprocess.run(["umount", place], check=True)
    assert "first" in docker("volume", "prune", "-af").out
