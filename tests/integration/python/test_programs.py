"""Programs run from Python: their input, output, options, end."""

from __future__ import annotations

import pickle
import threading

import pytest

import ketch
from ketch.errors import Conflict, ImageNotFound, InvalidArgument, NotFound, ProgramNotFound
from tests.support.waiting import patient

pytestmark = pytest.mark.ketch_only

MEGABYTES = 3 << 20


def test_run(python):
    """Each option arrives where it belongs, both streams come back whole, and nothing stays."""
    script = 'cat; echo "$A" "$(id -u)" "$PWD" "$(hostname)" >&2; exit 3'
    given = {"env": {"A": "1 2"}, "user": 5, "cwd": "/tmp", "hostname": "here"}
    result = python.run("busybox", script, input=b"x" * MEGABYTES, **given)
    assert result.exit_code == 3
    assert len(result.stdout) == MEGABYTES
    assert result.stderr == b"1 2 5 /tmp here\n"
    assert 0 < result.duration < 60
    assert python.run("busybox", ["ls", "/sys/class/net"]).text.split() == ["lo"], "a container has no network"
    assert "mem" in python.run("busybox", ["mount"], mounts={"/mem": ketch.Tmpfs("1m")}).text
    assert python.run("busybox", ["cat"], input="").stdout == b""
    assert list_of_containers(python) == []


def list_of_containers(python) -> list[str]:
    from ketch.aio.waiting import finished

    http = finished(python.access.http())
    return [one["Names"][0] for one in finished(http.json("GET", "/containers/json", {"all": True}))]


def test_errors(python):
    """What goes wrong says what it was, and has what was known."""
    with pytest.raises(ketch.CommandFailed, match="exit code 4: because") as failed:
        python.run("busybox", "echo said; echo because >&2; exit 4", check=True)
    assert failed.value.result.text == "said\n"
    again = pickle.loads(pickle.dumps(failed.value))
    assert (str(again), again.result) == (str(failed.value), failed.value.result)
    with pytest.raises(ketch.TimedOut, match="within 3 s") as late:
        python.run("busybox", "echo before; sleep 1000", timeout=3)
    assert late.value.result.text == "before\n"
    with pytest.raises(ketch.TooMuchOutput):
        python.run("busybox", ["yes"], max_output=100_000)
    for _ in range(5):  # it has ended, or is about to, when it has said too much
        with pytest.raises(ketch.TooMuchOutput):
            python.run("busybox", ["seq", "1", "20000"], max_output=1000)
    with pytest.raises(ProgramNotFound):
        python.run("busybox", ["/no/such/program"])
    with pytest.raises(ImageNotFound):
        python.run("nothing-of-that-name", pull=False)
    with pytest.raises(InvalidArgument, match="not a number of bytes"):
        python.run("busybox", memory="much")
    with pytest.raises(TypeError, match="memroy"):
        python.run("busybox", memroy="1g")
    assert list_of_containers(python) == []


def test_out_of_memory(python, limits):
    eat = "x=a; while :; do x=$x$x; done"
    result = python.run("busybox", eat, memory="16m")
    assert result.oom_killed
    assert result.exit_code != 0


def test_execs(python):
    """Programs in a running container: options, streams at both ends, many at once."""
    with python.container("busybox") as box:
        script = 'cat; echo "$A" "$(id -u)" "$PWD" >&2; exit 2'
        result = box.exec(script, input=b"y" * MEGABYTES, env={"A": "b"}, user="7", cwd="/etc")
        assert (result.exit_code, len(result.stdout), result.stderr) == (2, MEGABYTES, b"b 7 /etc\n")
        with pytest.raises(ketch.CommandFailed):
            box.exec(["false"], check=True)
        found: list[str] = []
        threads = [
            threading.Thread(target=lambda n=n: found.append(box.exec(["echo", str(n)]).text.strip())) for n in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(found) == [str(n) for n in range(8)]
    with pytest.raises(Conflict, match="not started"):
        box.exec(["true"])


def test_a_program_beside(python):
    """Its output comes while it runs, line by line; it reads what it is told."""
    with python.container("busybox") as box, box.popen("while read a; do echo got $a; done; printf end") as program:
        lines = program.lines()
        for word in ("one", "two"):
            program.write(f"{word}\n")
            assert next(lines) == ("stdout", f"got {word}\n".encode())
        program.end_input()
        assert list(lines) == [("stdout", b"end")]
        assert program.wait() == 0


def test_the_containers_own_program(python):
    script = "echo started; read line; echo got $line; exit 5"
    with python.container("busybox", script) as box:
        with box.attach() as program:
            program.write("this\n")
            program.end_input()
            assert program.wait() == 5
        assert box.wait() == 5
        assert box.logs().stdout == b"started\ngot this\n"
        assert [line.data for line in box.follow(tail=1).lines()] == [b"got this\n"]


def test_files(python, tmp_path):
    """Bytes, mappings and trees, in and out; nothing that a container made is written elsewhere, or runs as root."""
    (tmp_path / "in" / "d").mkdir(parents=True)
    (tmp_path / "in" / "d" / "f").write_text("deep")
    with python.container("busybox") as box:
        box.put("/new/one.txt", "text", mode=0o600, owner=(3, 4))
        assert box.exec(["stat", "-c", "%a %u %g", "/new/one.txt"]).text == "600 3 4\n"
        box.put("/work", {"a.py": b"1", "b/c.py": "2"})
        box.put("/work/tree", tmp_path / "in")
        assert box.get("/new/one.txt") == b"text"
        assert box.get_tree("/work") == {"a.py": b"1", "b/c.py": b"2", "tree/d/f": b"deep"}
        box.exec("ln -s /etc/passwd /work/link; chmod 4755 /work/a.py; mkfifo /work/pipe", check=True)
        box.copy_to("/work", tmp_path / "out")
        assert (tmp_path / "out" / "link").readlink().as_posix() == "/etc/passwd"
        assert (tmp_path / "out" / "a.py").stat().st_mode & 0o7777 == 0o755
        assert not (tmp_path / "out" / "pipe").exists()
        with python.container("busybox") as small:
            small.put("/new", {"a": "1"})
            assert small.get_tree("/")["new/a"] == b"1"
            small.copy_to("/", tmp_path / "root")
        assert (tmp_path / "root" / "new" / "a").read_text() == "1"
        with pytest.raises(NotFound):
            box.get("/none")
        with pytest.raises(InvalidArgument, match="is no file"):
            box.get("/work")
        with pytest.raises(InvalidArgument, match="upwards"):
            box.put("/work/../../x", "x")
        box.exec(["truncate", "-s", "2G", "/big"], check=True)
        with pytest.raises(ketch.KetchError, match="larger than 1000 bytes"):
            box.get("/big", limit=1000)


def test_images(python, tmp_path):
    """Made of a container, a directory, a Dockerfile, an archive; under other names."""
    with python.container("busybox") as box:
        box.exec("echo kept > /kept", check=True)
        assert str(box.commit("py/kept:1", pause=False)) == "py/kept:1"
    assert python.run("py/kept:1", ["cat", "/kept"]).text == "kept\n"
    (tmp_path / "Dockerfile").write_text("FROM py/kept:1\nCOPY file /\nARG A\nRUN echo $A >> /file\n")
    (tmp_path / "file").write_text("copied\n")
    built = python.images.build(tmp_path, tag="py/built", args={"A": "more"})
    assert python.run(built, ["cat", "/file"]).text == "copied\nmore\n"
    with pytest.raises(ketch.KetchError) as failed:
        python.images.build(dockerfile="FROM py/kept:1\nRUN echo why; false\n")
    assert "why" in "".join(failed.value.__notes__)
    python.images.save("py/built", tmp_path / "built.tar")
    python.images.remove("py/built")
    assert not python.images.exists("py/built")
    assert [str(one) for one in python.images.load(tmp_path / "built.tar")] == ["py/built:latest"]
    (tmp_path / "root" / "only").mkdir(parents=True)
    (tmp_path / "root" / "only" / "file").write_text("x")
    made = python.images.from_directory(tmp_path / "root", "py/tree:2")
    with pytest.raises(ProgramNotFound), python.container(made, ["/none"]):
        pass
    assert list_of_containers(python) == []
    python.images.tag(made, "py/other")
    assert {"py/tree:2", "py/other:latest"} == set(python.images.get("py/other").tags)
    for name in ("py/other", "py/tree:2", "py/built", "py/kept:1"):
        python.images.remove(name)


def test_networks_and_limits(python, limits, tmp_path):
    """A port that is published is reached; what a container takes is told; volumes outlive it."""
    (tmp_path / "page").write_text("hello")
    options = {"ports": {80: None}, "mounts": {"/www": ketch.Bind(tmp_path, read_only=True)}, "memory": "32m"}
    with python.container("busybox", ["httpd", "-f", "-h", "/www"], **options) as box:
        host, port = box.address(80)
        assert host == "127.0.0.1"
        assert box.exec(["wget", "-qO-", "http://127.0.0.1/page"]).text == "hello"
        assert port > 0
        assert box.usage().memory_limit == 32 << 20
        with pytest.raises(NotFound, match="publishes no port"):
            box.address(81)
        assert box.exec(["touch", "/www/x"]).exit_code == 1
        box.pause()
        box.unpause()
        box.kill()
        assert box.wait(timeout=patient(30)) == 137
    with python.container("busybox", mounts={"/v": ketch.Volume("py-kept")}) as box:
        box.put("/v/file", b"stays")
    assert python.run("busybox", ["cat", "/v/file"], mounts={"/v": ketch.Volume("py-kept")}).stdout == b"stays"
    python.remove_volume("py-kept")
