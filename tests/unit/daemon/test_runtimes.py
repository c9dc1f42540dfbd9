"""``runtimes``, ``default-runtime``, ``--add-runtime``: what they mean, and dockerd's words for what they cannot."""

from __future__ import annotations

import json
import os

import pytest

from ketch import places
from ketch.daemon.settings import load, runtimes
from ketch.engine.runtimes import catalog
from ketch.errors import InvalidArgument

SHIM = "io.containerd.runc.v2"


@pytest.fixture(autouse=True)
def machine(monkeypatch, tmp_path):
    """A PATH with crun alone, and no settings of the system's."""
    (tmp_path / "bin").mkdir()
    _program(tmp_path / "bin" / "crun")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(places.ROOT, "config", str(tmp_path / "absent.json"))
    return tmp_path


def _program(path) -> str:
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return str(path)


def settings(tmp_path, document, *flags):
    path = tmp_path / "daemon.json"
    path.write_text(json.dumps(document))
    return runtimes.build(load.load(["--config-file", str(path), "--exec-root", "/run/k", *flags]))


def test_names(machine):
    own = _program(machine / "own")
    document = {
        "runtimes": {
            "plain": {"path": own},
            "args": {"path": "crun", "runtimeArgs": ["--debug", "-x"]},
            "gone": {"path": "/nonexistent/runtime"},
            "shim": {"runtimeType": SHIM, "options": {"BinaryName": own, "Root": "/run/other"}},
            "ours": {"runtimeType": SHIM},
        }
    }
    found = settings(machine, document, "--add-runtime", f"flag={own}")
    crun = str(machine / "bin" / "crun")
    expected = {
        "": None,
        "ketch": None,
        SHIM: None,
        "runc": None,
        "ours": None,
        "plain": {"command": [own], "root": "/run/k/runtimes/plain"},
        "flag": {"command": [own], "root": "/run/k/runtimes/flag"},
        "args": {"command": [crun, "--debug", "-x"], "root": "/run/k/runtimes/args"},
        "gone": {"command": ["/nonexistent/runtime"], "root": "/run/k/runtimes/gone"},
        "shim": {"command": [own], "root": "/run/other"},
        "crun": {"command": [crun], "root": "/run/k/runtimes/crun"},
        own: {"command": [own], "root": f"/run/k/runtimes/{own[1:].replace('/', '-')}"},
    }
    assert {name: found.find(name) for name in expected} == expected
    assert found.check("runc") != []
    assert [found.check(name) for name in ("ketch", "crun", "plain", "gone", own)] == [[]] * 5
    assert found.listing()["args"] == {"path": "crun", "runtimeArgs": ["--debug", "-x"]}
    assert found.listing().keys() - document["runtimes"].keys() == {"ketch", SHIM, "runc", "crun", "flag"}


@pytest.mark.parametrize("name", ["nonesuch", "runsc", "/nonexistent/x", "io.containerd.foo.v1", "./crun", "a/b", "/"])
def test_unknown_names(name):
    with pytest.raises(InvalidArgument, match=f"^unknown or invalid runtime name: {name}$"):
        runtimes.build(load.load([])).check(name)


def test_runc_is_the_machines(machine):
    path = _program(machine / "bin" / "runc")
    found = runtimes.build(load.load([]))
    assert found.check("runc") == []
    assert found.find("runc") == {"command": [path], "root": "/run/ketch/runtimes/runc"}


def test_default(machine):
    found = settings(machine, {"default-runtime": "crun"})
    assert (found.default, found.find("")) == ("crun", found.find("crun"))
    assert load.load([]).default_runtime == catalog.BUILT_IN


WRONG = [
    ({"runtimes": {"x": {}}}, "runtime x: either a runtimeType or a path must be configured"),
    ({"runtimes": {"x": {"path": "/a", "runtimeType": SHIM}}}, "runtime x: cannot configure both path and runtimeType"),
    ({"runtimes": {"x": {"path": "/a", "options": {}}}}, "runtime x: options cannot be used with a path runtime"),
    (
        {"runtimes": {"x": {"runtimeType": SHIM, "runtimeArgs": ["a"]}}},
        "runtime x: args cannot be used with a runtimeType runtime",
    ),
    ({"runtimes": {"x": {"runtimeType": "io.containerd.runsc.v1"}}}, "is a shim of containerd's"),
    ({"runtimes": {"x": {"runtimeType": SHIM, "options": {"SystemdCgroup": True}}}}, "runtime x: .*SystemdCgroup"),
    ({"runtimes": {"x": {"runtimeType": SHIM, "options": {"Root": "a"}}}}, "not an absolute path"),
    ({"runtimes": {"x": {"path": "./crun"}}}, "runtime x: `./crun` is neither an absolute path nor a name in PATH"),
    ({"runtimes": {"x": {"runtimeType": SHIM, "options": {"BinaryName": "b/crun"}}}}, "runtime x: `b/crun` is neither"),
    ({"runtimes": {"x": {"path": "/a", "bogus": 1}}}, "runtime x: .*bogus"),
    ({"runtimes": {"x": "/a"}}, "runtime x: "),
    ({"runtimes": {"ketch": {"path": "/a"}}}, "runtime name 'ketch' is reserved"),
    ({"runtimes": {"": {"path": "/a"}}}, "must not be empty"),
    ({"runtimes": []}, "runtimes must be"),
    ({"default-runtime": "zz"}, "specified default runtime 'zz' does not exist"),
]


@pytest.mark.parametrize(("document", "words"), WRONG, ids=lambda value: value if isinstance(value, str) else "")
def test_what_is_refused(machine, document, words):
    with pytest.raises(InvalidArgument, match=words):
        settings(machine, document)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["foo"], "invalid runtime argument: foo"),
        (["=x"], "invalid runtime argument: =x"),
        (["a="], "invalid runtime argument: a="),
        (["ketch=/x"], "runtime name 'ketch' is reserved"),
        (["x=/a", "x=/b"], "runtime 'x' was already defined"),
    ],
)
def test_flags_that_are_refused(flags, words):
    with pytest.raises(InvalidArgument, match=words):
        load.load([word for flag in flags for word in ("--add-runtime", flag)])


def test_paths_are_not_looked_up_in_the_current_directory(machine, monkeypatch):
    _program(machine / "runc")
    monkeypatch.chdir(machine)
    monkeypatch.setenv("PATH", f":.:{os.environ['PATH']}")
    assert runtimes.build(load.load([])).find("runc") is None
