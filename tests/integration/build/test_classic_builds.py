"""The old API beside dockerd's classic builder: stream, configuration, files, refusals."""

from __future__ import annotations

import io
import json
import tarfile
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import pytest

from tests.support.builds import classic_builds as builds
from tests.support.rawapi import Api, Unix
from tests.support.waiting import until

pytestmark = pytest.mark.usefixtures("no_images_left")

# (name, Dockerfile, further files, query)
CASES = [
    ("plain", 'FROM base:1\nRUN echo hi > /a\nCMD ["cat", "/a"]\n', {}, ""),
    (
        "settings",
        "FROM base:1\nENV A=b C='d e'\nLABEL x=y z=\"1 2\"\nEXPOSE 80 53/udp\nWORKDIR /w/x\nUSER 1:2\nVOLUME /v\n"
        'STOPSIGNAL SIGINT\nHEALTHCHECK --interval=5s CMD true\nENTRYPOINT ["/bin/sh"]\nCMD ["-c", "id"]\n'
        'ONBUILD RUN true\nSHELL ["/bin/sh", "-ec"]\n',
        {},
        "",
    ),
    (
        "copies",
        "FROM base:1\nCOPY a /\nCOPY d /e/\n"
        "ADD a d/b /f/\nCOPY --chown=3:4 a /g\nWORKDIR /h\nCOPY . .\nADD t.tar /t/\n",
        {"a": "1", "d": None, "d/b": "22", "t.tar": builds.context({"in": "tar"})},
        "",
    ),
    (
        "stages",
        "FROM base:1 AS one\nRUN echo 1 > /one\nFROM one AS two\nRUN echo 2 > /two\nFROM base:1\n"
        "COPY --from=one /one /\nCOPY --from=two /two /2\n",
        {},
        "",
    ),
    ("target", "FROM base:1 AS one\nRUN echo 1 > /one\nFROM one\nRUN exit 9\n", {}, "target=one"),
    (
        "args",
        "ARG T=1\nFROM base:$T\nARG A\nARG B=2\nRUN echo $A $B > /a\n",
        {},
        "buildargs=" + quote('{"A":"1","N":null,"Z":"9"}'),
    ),
    ("labels", "FROM base:1\nRUN true\n", {}, "labels=" + quote('{"b":"2","a":"1"}')),
    (
        "ignored",
        "FROM base:1\nCOPY . /c/\n",
        {".dockerignore": "*.x\n!k.x\nd/e\n", "a.x": "", "k.x": "", "b": "", "d": None, "d/e": "", "d/f": ""},
        "",
    ),
    (
        "other file",
        "FROM scratch\nCOPY Dockerfile /\n",
        {"sub": None, "sub/F": "FROM base:1\nRUN echo x >/x\n"},
        "dockerfile=sub/F",
    ),
    ("scratch", "FROM scratch\nCOPY a /b\n", {"a": "x"}, ""),
    ("output", "FROM base:1\nRUN echo out\nRUN echo err >&2\n", {}, ""),
    ("removed", "FROM base:1\nRUN rm -rf /home && mkdir -p /x/y && ln -s y /x/z\n", {}, ""),
    ("tagged", "FROM base:1\nRUN true\n", {}, "t=built:1&t=built:2"),
]
FAILING = [
    ("code", "FROM base:1\nRUN echo before\nRUN exit 7\n", {}, ""),
    ("no file", "FROM base:1\nCOPY nothing /\n", {}, ""),
]
REFUSED = [
    ("empty", "", {}, ""),
    ("blank", "  \n", {}, ""),
    ("unknown", "FROM base:1\nRUNN x\n", {}, ""),
    ("no from", "RUN x\n", {}, ""),
    ("not there", "FROM base:1\n", {}, "dockerfile=Nope"),
    ("outside", "FROM base:1\n", {}, "dockerfile=" + quote("../../etc/passwd")),
    ("squash", "FROM base:1\n", {}, "squash=1"),
    ("isolation", "FROM base:1\n", {}, "isolation=x"),
    ("shm", "FROM base:1\n", {}, "shmsize=x"),
    ("security", "FROM base:1\n", {}, "securityopt=x"),
    ("tag", "FROM base:1\n", {}, "t=UPPER"),
    ("target", "FROM base:1\n", {}, "target=nope"),
    ("version", "FROM base:1\n", {}, "version=3"),
    ("platform", "FROM base:1\n", {}, "platform=x/y/z/w"),
    ("args", "FROM base:1\n", {}, "buildargs=x"),
    ("labels", "FROM base:1\n", {}, "labels=x"),
    ("cachefrom", "FROM base:1\n", {}, "cachefrom=x"),
    ("ulimits", "FROM base:1\n", {}, "ulimits=x"),
]


@pytest.fixture(scope="module")
def base(engine, dockerd):
    """The same image in both engines, with which most files begin."""
    builds.share(Api(dockerd.socket), Api(engine.socket), "busybox", "base:1")


def both(engine, dockerd, case):
    _, dockerfile, more, query = case
    found = {**more, "Dockerfile": dockerfile}
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(builds.post, one.socket, found, query) for one in (engine, dockerd)]
        return [job.result() for job in jobs]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_the_same_image(engine, dockerd, base, case):
    ours, theirs = both(engine, dockerd, case)
    assert (ours[0], theirs[0]) == (200, 200), (ours[1][-1:], theirs[1][-1:])
    assert builds.comparable(ours[1]) == builds.comparable(theirs[1])
    mine, other = (builds.image_id(lines) for _, lines in (ours, theirs))
    apis = Api(engine.socket), Api(dockerd.socket)
    assert builds.configuration(apis[0], mine) == builds.configuration(apis[1], other)
    assert builds.files(apis[0], mine) == builds.files(apis[1], other)
    again, lines = builds.post(engine.socket, {**case[2], "Dockerfile": case[1]}, case[3])
    assert (again, builds.image_id(lines)) == (200, mine)  # all of it is cached


@pytest.mark.parametrize("case", FAILING, ids=lambda case: case[0])
def test_the_same_failure(engine, dockerd, base, case):
    ours, theirs = both(engine, dockerd, case)
    assert ours[0] == theirs[0] == 200
    assert builds.comparable(ours[1]) == builds.comparable(theirs[1])
    assert ours[1][-1] == theirs[1][-1]


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case[0])
def test_the_same_refusal(engine, dockerd, base, case):
    ours, theirs = both(engine, dockerd, case)
    assert ours[0] == theirs[0], (ours, theirs)
    assert ours[1][0]["message"].startswith(theirs[1][0]["message"][:40])


def test_quiet_tells_the_id_alone(engine):
    _, lines = builds.post(engine.socket, {"Dockerfile": "FROM busybox\nRUN echo quiet\n"}, "q=1")
    assert [list(line) for line in lines] == [["stream"]]
    assert lines[0]["stream"].startswith("sha256:")
    _, lines = builds.post(engine.socket, {"Dockerfile": "FROM busybox\nRUN echo loud; exit 3\n"}, "q=1")
    assert "loud\n" in builds.text(lines)
    assert lines[-1]["errorDetail"]["code"] == 3


def test_the_history_of_builds(engine):
    builds.post(engine.socket, {"Dockerfile": "FROM busybox\nRUN echo remembered\n"}, "t=remembered:1")
    status, rows = Api(engine.socket)("GET", "/ketch/builds")
    assert status == 200
    assert (rows[0]["name"], rows[0]["status"], rows[0]["total_steps"]) == ("remembered:1", "completed", 2)
    details = Api(engine.socket).must("GET", f"/ketch/builds/{rows[0]['ref'][:10]}")
    assert details["image"].startswith("sha256:")
    Api(engine.socket).must("DELETE", f"/ketch/builds/{rows[0]['ref']}")
    assert Api(engine.socket)("GET", f"/ketch/builds/{rows[0]['ref']}")[0] == 404


def test_a_build_is_cancelled_by_its_name_and_with_its_client(engine):
    files = {"Dockerfile": "FROM busybox\nRUN echo begun; sleep 1000\n"}
    api = Api(engine.socket)
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(builds.post, engine.socket, files, "buildid=to-be-cancelled")
        try:
            until(lambda: "running" in [row["status"] for row in api.must("GET", "/ketch/builds")], "the build runs")
        finally:
            api.must("POST", "/build/cancel", id="to-be-cancelled")
        status, lines = job.result()
    assert lines[-1].get("error", lines[-1].get("message")) == "context canceled", (status, lines)
    ref = api.must("GET", "/ketch/builds")[0]["ref"]
    assert api.must("GET", f"/ketch/builds/{ref}")["status"] == "canceled"
    connection = Unix(engine.socket)
    connection.request("POST", "/build", builds.context(files), {"Content-Type": "application/x-tar"})
    answer = connection.getresponse()
    while b"begun" not in answer.readline():
        pass
    connection.sock.close()
    answer.close()
    until(lambda: "running" not in [row["status"] for row in api.must("GET", "/ketch/builds")], "the build has ended")


def test_the_cache_is_counted_and_pruned(engine):
    api = Api(engine.socket)
    builds.post(engine.socket, {"Dockerfile": "FROM busybox\nRUN echo counted > /counted\n"}, "t=counted:1")
    rows = api.must("GET", "/system/df?type=build-cache")["BuildCache"]
    mine = [row for row in rows if "counted" in row["Description"]]
    assert [(row["Shared"], row["InUse"], row["Size"]) for row in mine] == [(True, False, 8)]
    api.must("DELETE", "/images/counted:1")
    done = api.must("POST", "/build/prune", filters=json.dumps({"id": [mine[0]["ID"]]}))
    assert (done["CachesDeleted"], done["SpaceReclaimed"]) == ([mine[0]["ID"]], 8)
    for wrong in ('{"x":["y"]}', '{"until":["x"]}'):
        status, answer = api("POST", "/build/prune", filters=wrong)
        assert (status, answer["message"].startswith("failed to prune build cache: ")) == (400, True)


def test_docker_py_builds(engine, docker_py, tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM busybox\nARG A\nRUN echo $A > /a\n")
    image, log = docker_py.images.build(path=str(tmp_path), tag="by:py", buildargs={"A": "b"}, rm=True)
    assert image.tags == ["by:py"]
    assert any("Successfully built" in line.get("stream", "") for line in log)
    assert docker_py.containers.run("by:py", ["cat", "/a"], remove=True) == b"b\n"


def test_the_docker_client_builds_without_buildkit(engine, tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM busybox\nCOPY f /f\nRUN cat /f\n")
    (tmp_path / "f").write_text("content\n")
    done = engine.docker("build", "-t", "by:docker", str(tmp_path), DOCKER_BUILDKIT="0")
    assert "content" in done.out
    assert "Successfully tagged by:docker" in done.out
    quiet = engine.docker("build", "-q", str(tmp_path), DOCKER_BUILDKIT="0")
    assert quiet.out.startswith("sha256:")
    failed = engine.docker("build", "-", stdin=b"FROM busybox\nRUN exit 5\n", check=False, DOCKER_BUILDKIT="0")
    assert failed.code == 5
    assert "returned a non-zero code: 5" in failed.err


def test_annotations_stand_in_the_manifest(engine):
    def asked(attrs):
        return "outputs=" + quote(json.dumps([{"Type": "image", "Attrs": attrs}]))

    files = {"Dockerfile": "FROM busybox\nRUN echo annotated > /a\n"}
    status, lines = builds.post(engine.socket, files, "t=annotated:1&" + asked({"annotation.a.b": "c"}))
    assert status == 200, lines
    api = Api(engine.socket)
    status, archive = api("GET", "/images/annotated:1/get", timeout=60)
    with tarfile.open(fileobj=io.BytesIO(archive)) as found:
        index = json.load(found.extractfile("index.json"))
        digest = index["manifests"][0]["digest"].partition(":")[2]
        manifest = json.load(found.extractfile(f"blobs/sha256/{digest}"))
    assert manifest["annotations"] == {"a.b": "c"}
    for wrong in ({"annotation-index.a": "b"}, {"annotation-config.a": "b"}, {"compression": "estargz"}):
        status, lines = builds.post(engine.socket, files, asked(wrong))
        assert "error" in lines[-1] or status >= 400, (wrong, lines)


def test_a_given_time_gives_the_same_image_again(engine):
    """Also of files that were made at another time: with rewrite-timestamp."""
    outputs = quote(json.dumps([{"Type": "image", "Attrs": {"rewrite-timestamp": "true"}}]))
    asked = f"nocache=1&outputs={outputs}&buildargs=" + quote('{"SOURCE_DATE_EPOCH":"1700000000"}')
    files = {"Dockerfile": "FROM busybox\nRUN date +%N > /dev/null; touch /now; mkdir /d\nCOPY Dockerfile /d/\n"}
    made = {builds.image_id(builds.post(engine.socket, files, asked)[1]) for _ in range(2)}
    assert len(made) == 1
    image = Api(engine.socket).must("GET", f"/images/{made.pop()}/json")
    assert image["Created"] == "2023-11-14T22:13:20Z"
    status, lines = builds.post(engine.socket, files, f"outputs={outputs}")
    assert "SOURCE_DATE_EPOCH" in lines[-1].get("error", ""), (status, lines)
