"""Whole programs, built and run by each client: with pip, npm, gcc, apt, and forty stages.

What they need of packages is served here; each client builds everything anew, for each says who it is.
"""

from __future__ import annotations

import json
import re
import shutil
import urllib.request

import pytest

from tests.support.clients import places
from tests.support.clients.compose_one import Compose
from tests.support.clients.compose_one import Project as ComposeProject
from tests.support.projects import base, index, sources
from tests.support.rawapi import Api
from tests.support.waiting import patient, until

pytestmark = [pytest.mark.ketch_only, pytest.mark.timeout(120)]

NAMES = ("web", "node", "c", "debian", "monorepo")
HOST = f"{index.NAME}:host-gateway"
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@pytest.fixture(scope="module")
def packages():
    """The indexes."""
    with index.serving() as one:
        yield one


@pytest.fixture(scope="module")
def harbour(file_engine):
    """An engine with the base image."""
    archive = base.path()
    file_engine.start()
    file_engine.client("import", "-c", f"ENV {_PATH}", archive, "projects", timeout=60)
    return file_engine


@pytest.fixture(scope="module")
def projects(harbour, packages, tmp_path_factory):
    """The programs, by their names."""
    root = tmp_path_factory.mktemp("projects")
    return root, sources.make_projects(root, packages)


# -- one program by one client -------------------------------------------------------------------


def ketch(engine, place, tag, args):
    """`ketch build`; whether all of it was cached."""
    words = [word for name, value in args.items() for word in ("--build-arg", f"{name}={value}")]
    done = engine.ketch("build", "--progress=plain", "-t", tag, "--add-host", HOST, *words, place, timeout=60)
    return _all_cached(done.err)


def buildx(engine, place, tag, args):
    """`docker buildx build`."""
    words = [word for name, value in args.items() for word in ("--build-arg", f"{name}={value}")]
    words = ["--progress=plain", "-t", tag, "--add-host", HOST, *words, place]
    return _all_cached(engine.docker("buildx", "build", *words, timeout=90).err)


def _all_cached(progress):
    steps = set(re.findall(r"^#(\d+) \[(?!internal).* (?:RUN|COPY|WORKDIR) ", progress, re.MULTILINE))
    return steps <= set(re.findall(r"^#(\d+) CACHED$", progress, re.MULTILINE))


def docker(engine, place, tag, args):
    """`docker build` as of before BuildKit."""
    words = [word for name, value in args.items() for word in ("--build-arg", f"{name}={value}")]
    out = engine.docker("build", "-t", tag, "--add-host", HOST, *words, place, timeout=60, DOCKER_BUILDKIT="0").out
    return _cached(out)


def docker_py(engine, place, tag, args):
    """docker-py."""
    client = engine.py()
    try:
        built = client.images.build(path=place, tag=tag, buildargs=args, extra_hosts=dict([HOST.split(":")]), rm=True)
        return _cached("".join(line.get("stream", "") for line in built[1]))
    finally:
        client.close()


def _cached(out: str) -> bool:
    assert "Successfully tagged" in out
    return "Running in" not in out


BUILDERS = {"ketch": ketch, "buildx": buildx, "docker": docker, "docker-py": docker_py}


def answer(engine, tag, port) -> str:
    """What a program says when it is run, or asked at its port."""
    if not port:
        return engine.client("run", "--rm", tag).out
    name = engine.client("run", "-d", "-p", f"127.0.0.1::{port}", tag).out.strip()
    try:
        return _page(engine, name, port)
    finally:
        engine.client("rm", "-f", name)


def _page(engine, name, port):
    address = engine.client("port", name, str(port)).out.split()[0]
    found = []

    def asked():
        try:
            with urllib.request.urlopen(f"http://{address}/", timeout=patient(5)) as page:
                found.append(page.read().decode())
        except OSError:
            return False
        return True

    until(asked, "the program answers")
    return found[0]


@pytest.mark.parametrize("builder", BUILDERS)
@pytest.mark.parametrize("name", NAMES)
def test_a_program(harbour, projects, name, builder):
    root, found = projects
    project, tag = found[name], f"{name}:{builder}"
    args = {**project.args, "BUILDER": builder}
    assert not BUILDERS[builder](harbour, str(root / name), tag, args)
    assert answer(harbour, tag, project.port) == project.says.format(builder)
    first = Api(harbour.socket).must("GET", f"/images/{tag}/json")["Id"]
    assert BUILDERS[builder](harbour, str(root / name), tag, args)
    assert Api(harbour.socket).must("GET", f"/images/{tag}/json")["Id"] == first


# -- all of them by Compose ----------------------------------------------------------------------


def compose_file(found, builder) -> str:
    """All programs as services."""
    services = {}
    for name, project in found.items():
        args = {**project.args, "BUILDER": builder}
        service = {"build": {"context": f"./{name}", "args": args, "extra_hosts": [HOST]}, "image": f"{name}:{builder}"}
        if project.port:
            service["ports"] = [f"127.0.0.1::{project.port}"]
        services[name] = service
    return json.dumps({"version": "2.4", "services": services})


def says(engine, container, project) -> str:
    if project.port:
        return _page(engine, container, project.port)
    engine.client("wait", container)
    return engine.client("logs", container).out


def test_docker_compose_1(harbour, projects, tmp_path):
    root, found = projects
    compose = Compose(harbour, places.place("compose1"))
    directory = tmp_path / "first"
    shutil.copytree(root, directory, symlinks=True)
    one = ComposeProject(compose, directory, compose_file(found, "compose1"))
    try:
        assert one("build", "--parallel").count("Successfully tagged") == len(NAMES)
        assert "Running in" not in one("build")
        one("up", "-d")
        for name, project in found.items():
            assert says(harbour, f"first_{name}_1", project) == project.says.format("compose1")
    finally:
        one("down", "-v", "-t", "0")
        compose.close()


@pytest.mark.parametrize("buildkit", ["0", "1"])
def test_docker_compose_2(harbour, projects, tmp_path, buildkit):
    root, found = projects
    directory = tmp_path / "second"
    shutil.copytree(root, directory, symlinks=True)
    builder = f"compose2-{buildkit}"
    (directory / "compose.yaml").write_text(compose_file(found, builder))

    def run(*words):
        return harbour.docker("compose", *words, cwd=str(directory), timeout=90, DOCKER_BUILDKIT=buildkit)

    def built_anew():
        done = run("--progress=plain", "build")
        return not _all_cached(done.out + done.err) if buildkit == "1" else "Running in" in done.out

    try:
        assert built_anew()
        assert not built_anew()
        run("up", "-d")
        for name, project in found.items():
            assert says(harbour, f"second-{name}-1", project) == project.says.format(builder)
    finally:
        run("down", "-v", "-t", "0")


# -- what is special about them ------------------------------------------------------------------


def test_what_pip_and_npm_have_kept_is_not_fetched_again(harbour, projects, packages):
    """Cache mounts outlive builds."""
    root, found = projects
    for builder in ("one", "two"):
        before = packages.asked.copy()
        for name in ("web", "node"):
            assert not ketch(harbour, str(root / name), f"{name}:again", {**found[name].args, "BUILDER": builder})
    fetched = [path for path in packages.asked - before if path.endswith((".whl", ".tgz"))]
    assert fetched == []
    assert [path for path in packages.asked - before if path.startswith("/simple/")]


def test_one_package_of_the_monorepo_changes(harbour, projects, tmp_path):
    """What needs it is made again, and nothing else."""
    place = tmp_path / "monorepo"
    shutil.copytree(projects[0] / "monorepo", place)
    ketch(harbour, str(place), "monorepo:before", {})
    with open(place / "p5" / "p5.h", "a") as file:
        file.write("/* changed */\n")
    done = harbour.ketch("build", "--progress=plain", "-t", "monorepo:after", str(place))
    compiled = {int(number) for number in re.findall(r"compiled /src/p(\d+)\.c", done.err)}

    def needs_five(number):
        return number == 5 or any(map(needs_five, sources.needs(number)))

    assert compiled == {number for number in range(1, sources.LAST + 1) if needs_five(number)}
    assert answer(harbour, "monorepo:after", 0) == projects[1]["monorepo"].says.format("")
