"""The current directory: programs and modules in it are never executed."""

from __future__ import annotations

import ast
import glob
import json
import os
import shutil
import subprocess
import sys

import pytest

from ketch import programs
from ketch.cli import catalog
from ketch.runtime.oci_cli import main as runtime_cli
from tests.support.engines import BIN
from tests.support.source.project import ROOT
from tests.support.waiting import patient

PACKAGES = (
    "ketch",
    "aiohttp",
    "msgspec",
    "multidict",
    "yarl",
    "isal",
    "zstandard",
    "bcrypt",
    "obstore",
    "jwt",
    "cryptography",
    "sitecustomize",
    "usercustomize",
)
PROGRAMS = (
    "ps",
    "tar",
    "xz",
    "gzip",
    "unpigz",
    "zstd",
    "sh",
    "mount",
    "ssh",
    "unshare",
    "mmdebstrap",
    "nft",
    "iptables",
    "modprobe",
    "runc",
    "crun",
    "busybox",
    "docker-credential-planted",
    "getent",
    "id",
    "python3",
)
# What is needed for a command to come as far as it can without a daemon.
ARGUMENTS = {
    ("daemon", "run"): ["--version"],
    ("daemon", "repair"): ["--version"],
    ("daemon", "start"): ["--version"],
    ("registry", "serve"): ["--help"],
    ("registry", "gc"): ["--root", "store"],
    ("registry", "htpasswd"): ["somebody"],
    ("login",): ["-u", "a", "-p", "b", "127.0.0.1:1"],
}
COMMANDS = [
    *((name,) for name in catalog.COMMANDS),
    *((group, name) for group, names in catalog.GROUPS.items() for name in names),
]


@pytest.fixture
def planted(tmp_path, monkeypatch):
    """A folder full of modules and programs that leave a mark when they are run; it is the current one."""
    folder, mark = tmp_path / "planted", tmp_path / "mark"
    folder.mkdir()
    code = f"import sys\nopen({str(mark)!r}, 'a').write(f'{{__name__}} {{sys.argv}}\\n')\nraise SystemExit(66)\n"
    for name in {*sys.stdlib_module_names, *PACKAGES}:
        (folder / f"{name}.py").write_text(code)
    (folder / "ketch").mkdir()
    (folder / "ketch" / "__init__.py").write_text(code)
    for name in PROGRAMS:
        (folder / name).write_text(f"#!/bin/sh\necho {name} >>{mark}\nexit 66\n")
        (folder / name).chmod(0o755)
    monkeypatch.chdir(folder)
    yield mark
    assert not mark.exists(), mark.read_text()


def run(program: str, *args: str, prefix: tuple[str, ...] = (), **environment: str) -> subprocess.CompletedProcess[str]:
    """A program of ours, with a home of its own."""
    home = os.path.join(os.path.dirname(os.getcwd()), "home")
    return subprocess.run(
        [*prefix, os.path.join(BIN, program), *args],
        env={**os.environ, "DOCKER_HOST": "unix:///nowhere/s.sock", "HOME": home, **environment},
        input="password\n",
        capture_output=True,
        text=True,
        timeout=patient(30),
        check=False,
    )


# `daemon start` writes the machine's log.
PRIVATE_LOG = ("unshare", "--mount", "--", "sh", "-c", 'mount -t tmpfs none /var/log && exec "$@"', "sh")


@pytest.mark.timeout(180)
def test_ketch(planted):
    for command in COMMANDS:
        for arguments in ARGUMENTS.get(command, []), ["--help"]:
            done = run("ketch", *command, *arguments, prefix=PRIVATE_LOG if command == ("daemon", "start") else ())
            assert done.returncode not in (66, 127), (command, done.stderr)
            assert "Traceback" not in done.stderr, (command, done.stderr)
            assert not planted.exists(), (command, planted.read_text())


def test_ketchd_and_runtime(planted):
    assert run("ketchd", "--version").returncode == 0
    assert "no such file" in run("ketchd", "--config-file", "/none").stderr
    for command in runtime_cli.COMMANDS:
        for arguments in [], ["none"]:
            done = run("ketch-runtime", "--root", "state", command, *arguments)
            assert done.returncode not in (66, 127), (command, done.stderr)
            assert not planted.exists(), (command, planted.read_text())


RELATIVE = [".", ":", "../planted:", "/nowhere:."]


@pytest.mark.parametrize("path", RELATIVE)
def test_variables_lead_nowhere_near(planted, path):
    """``PYTHONPATH``: what the commands import that the interpreter, and the script that pip wrote, have not before."""
    code = "import re, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    shutil.rmtree("ketch")
    before = {name.partition(".")[0] for name in loaded.stdout.split()}
    for name in before | {"sitecustomize", "usercustomize", "ketch"}:
        if os.path.exists(f"{name}.py"):
            os.unlink(f"{name}.py")
    for program in "ketch", "ketchd", "ketch-runtime":
        done = run(program, "--version", PYTHONPATH=path)
        assert (done.returncode, done.stderr) == (0, ""), program
        assert not planted.exists(), (program, planted.read_text())


def test_other_places_stay(tmp_path):
    """Of ``PYTHONPATH`` the absolute ones, also when one stands there."""
    code = "import sys; from ketch import entry; entry._drop_relative_import_paths(); print(*sys.path, sep=chr(10))"
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}/src:other:{tmp_path}/again:again:/nowhere"}
    command = [sys.executable, "-P", "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, cwd=tmp_path)
    found = done.stdout.splitlines()
    assert {f"{ROOT}/src", "/nowhere", f"{tmp_path}/again"} <= set(found)
    assert f"{tmp_path}/other" not in found


# As pip writes scripts (it has no way to pass options on): for an interpreter with a short path, and with others.
BODY = "import re\nimport sys\nfrom ketch.entry import ketch\nsys.exit(ketch())\n"
FORMS = {
    "short": f"#!{sys.executable}\n{BODY}",
    "long": f"#!/bin/sh\n'''exec' {sys.executable} \"$0\" \"$@\"\n' '''\n{BODY}",
    "blank": f"#!/bin/sh\n'''exec' \"{sys.executable}\" \"$0\" \"$@\"\n' '''\n{BODY}",
}


@pytest.mark.parametrize("command", ["ketch", "runtime"])
@pytest.mark.parametrize("form", FORMS)
def test_isolated_scripts(planted, tmp_path, form, command):
    """What ``make engine`` does to them: nothing at all comes from here, not even what Python's own start imports."""
    script = tmp_path / "ketch"
    script.write_text(FORMS[form].replace("import ketch", f"import {command}").replace("ketch()", f"{command}()"))
    script.chmod(0o755)
    os.mkdir("encodings")
    shutil.move("encodings.py", "encodings/__init__.py")
    for _ in range(2):
        subprocess.run([f"{ROOT}/scripts/isolate", script], check=True)
        for path in RELATIVE:
            environment = {**os.environ, "PYTHONPATH": path}
            done = subprocess.run([script, "--version"], env=environment, capture_output=True, text=True, check=False)
            assert (done.returncode, done.stderr) == (0, "")
            assert not planted.exists(), planted.read_text()


def test_only_scripts_of_pip_are_isolated(tmp_path):
    script = tmp_path / "ketch"
    script.write_text("#!/bin/sh\nexec ketch\n")
    done = subprocess.run([f"{ROOT}/scripts/isolate", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "its first line names no Python" in done.stderr
    assert script.read_text() == "#!/bin/sh\nexec ketch\n"


@pytest.mark.parametrize("environment", [{}, {"PATH": ":/usr/sbin:/usr/bin:/sbin:/bin:."}], ids=["plain", "path"])
def test_a_daemon_and_its_children(own_engine, planted, environment):
    """The launcher, monitors, unpacking workers, and what ``bootstrap`` starts."""
    own_engine.settings = environment
    own_engine.start()
    own_engine.add_busybox()
    assert own_engine.docker("run", "--rm", "busybox", "echo", "hello").out == "hello\n"
    archive = f"{own_engine.root}/archive.tar"
    own_engine.docker("save", "-o", archive, "busybox")
    own_engine.docker("rmi", "busybox")
    own_engine.docker("load", "-i", archive)
    own_engine.docker("run", "-d", "--name", "sleeps", "busybox", "sleep", "100")
    own_engine.docker("top", "sleeps")
    own_engine.docker("export", "-o", archive, "sleeps")
    own_engine.docker("import", archive, "again")
    own_engine.docker("rm", "-f", "sleeps")


def test_a_registry_and_its_workers(planted, tmp_path):
    command = [f"{BIN}/ketch", "registry", "serve", "--root", "store", "--addr", "127.0.0.1:0", "--workers", "2"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert "registry listens" in process.stderr.readline()
        finally:
            process.terminate()
            process.wait(patient(20))


@pytest.mark.parametrize("path", ["", ".", "relative", "/usr/bin:", ":/usr/bin"])
def test_credential_helpers_are_not_taken_from_here(planted, path, tmp_path):
    (tmp_path / "config.json").write_text('{"credsStore": "planted"}')
    for command in ("login", "-u", "a", "-p", "b"), ("logout",):
        done = run("ketch", *command, "127.0.0.1:1", DOCKER_CONFIG=str(tmp_path), PATH=path)
        assert done.returncode == 1, done.stderr
        if command[0] == "logout":
            assert "`docker-credential-planted get`: no such program" in done.stderr


_PROBE = """
import json, subprocess, sys
from ketch import programs

command = programs.python("ketch.registry", "--help")
code = subprocess.call(command, env=programs.environment(), stdout=subprocess.DEVNULL)
print(json.dumps([code, command, programs.environment()]))
"""


def probe(**environment: str) -> tuple[int, list[str], dict[str, str]]:
    """What a process with these variables starts an interpreter with: its exit code, command, environment."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.pop(0)\n{_PROBE}"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return tuple(json.loads(done.stdout))


def test_a_checkout_on_the_path_works(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    startup = tmp_path / "startup.py"
    startup.write_text("raise SystemExit(66)")
    for value in f"{ROOT}/src", f"{ROOT}/src:", f":{ROOT}/src:.":
        code, command, _ = probe(PYTHONPATH=value, PYTHONSTARTUP=str(startup), PYTHONHASHSEED="0")
        assert code == 0, command
        assert repr(str(tmp_path)) not in command[3]


def test_lists_lose_what_depends_on_where_one_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, _, kept = probe(LD_LIBRARY_PATH=":/nowhere:.", PATH=":/bin:x:/usr/bin:")
    assert (kept["LD_LIBRARY_PATH"], kept["PATH"]) == ("/nowhere", "/bin:/usr/bin")


STARTERS = {  # module: what of it starts programs, and where from
    "programs.py": "the one place that knows the interpreter",
    "runtime/process/zygote.py": "the launcher: isolated, from a copy of the interpreter",
}


def test_interpreters_are_started_in_one_way():
    wrong = []
    for path in glob.glob(f"{ROOT}/src/ketch/**/*.py", recursive=True):
        with open(path, encoding="utf-8") as f:
            tree = ast.parse(f.read())
        name = os.path.relpath(path, f"{ROOT}/src/ketch")
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and ast.unparse(node) in ("sys.executable", "shutil.which"):
                wrong += [f"{name}:{node.lineno}"] if name not in STARTERS else []
    assert wrong == []


def test_the_programs_of_a_relative_directory_are_not_found(tmp_path, monkeypatch):
    program = tmp_path / "there"
    program.write_text("")
    program.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    for path in "", ".", ":", "/nowhere:", f"./:{os.path.relpath(tmp_path, '/')}":
        monkeypatch.setenv("PATH", path)
        assert programs.find("there") is None, path
    monkeypatch.setenv("PATH", f".:{tmp_path}")
    assert programs.find("there") == str(program)
    program.chmod(0o644)
    assert programs.find("there") is None
    monkeypatch.delenv("PATH")
    assert programs.find("sh") in ("/bin/sh", "/usr/bin/sh")
