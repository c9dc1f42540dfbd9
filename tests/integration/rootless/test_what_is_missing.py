"""A machine on which something that a user's engine wants is missing: it says what, and does the rest."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from ketch.pidfd import start_time
from tests.support.programs import need
from tests.support.run import unprivileged
from tests.support.waiting import patient, until

pytestmark = pytest.mark.ketch_only


def warnings(engine) -> str:
    return "\n".join(json.loads(engine.docker("info", "--format", "{{json .Warnings}}").out) or [])


def test_no_programs(unstarted_users_engine):
    """Without newuidmap there is one user; without pasta and slirp4netns no way outside."""
    engine = unstarted_users_engine
    engine.settings["PATH"] = "/nonexistent"
    engine.start()
    engine.add_busybox()
    said = warnings(engine)
    assert "one user, root: newuidmap and newgidmap not found (package uidmap)" in said
    assert "reach nothing outside of this machine: slirp4netns is not installed; pasta is not installed" in said
    mapped = engine.docker("run", "--rm", "busybox", "cat", "/proc/self/uid_map").out
    assert mapped.split() == ["0", str(unprivileged.UID), "1"]
    assert engine.docker("run", "--rm", "busybox", "id", "-u").out == "0\n"


# In a user namespace with all ids whose limit of further ones is 0: what is set there is no other program's.
_NO_MORE = """
import os, sys
from ketch.linux import ns
told, tell = os.pipe()
me = os.getpid()
if not (child := os.fork()):
    os.read(told, 1)
    for name in ("uid_map", "gid_map"):
        with open(f"/proc/{me}/{name}", "w") as f:
            f.write("0 0 4294967295")
    os._exit(0)
ns.unshare(ns.CLONE_NEWUSER)
os.write(tell, b"+")
os.waitpid(child, 0)
with open("/proc/sys/user/max_user_namespaces", "w") as f:
    f.write("0")
os.execvp(sys.argv[1], sys.argv[1:])
"""


def said_at_its_end(engine) -> str:
    """What a daemon says that does not start; without a traceback."""
    engine.launch()
    assert engine.process.wait(patient(30)) == 1
    engine.process = None
    said = engine.log()
    assert "Traceback" not in said
    os.unlink(engine.log_path)
    return said


def test_what_forbids_a_start(unstarted_users_engine):
    """One sentence, and what to do."""
    engine = unstarted_users_engine
    engine.prefix = [sys.executable, "-c", _NO_MORE]
    said = said_at_its_end(engine)
    assert "ketchd: make a user namespace: the machine's limit of them is reached\n" in said
    assert "the administrator can allow it: sysctl user.max_user_namespaces=15000" in said
    engine.prefix = ["unshare", "-m", "sh", "-c", 'mount --rbind / /mnt && exec chroot /mnt "$@"', "sh"]
    said = said_at_its_end(engine)
    assert "ketchd: make a user namespace: operation not permitted\n" in said
    assert "user namespaces" in said.splitlines()[-1]
    engine.prefix = []
    before, engine.data_root = engine.data_root, "/nonexistent/data"
    said = said_at_its_end(engine)
    engine.data_root = before
    assert "make directory `/nonexistent/data`: permission denied at `/nonexistent`" in said
    assert "set HOME to a directory of this user" in said


def ids_of_containers(engine) -> list[str]:
    return engine.docker("run", "--rm", "busybox", "cat", "/proc/self/uid_map").out.split()


ALONE = ["0", str(unprivileged.UID), "1"]


def test_programs_that_gain_no_rights(unstarted_users_engine):
    """newuidmap of a file system without set-user-ID, or without the bit, and no device for the way outside."""
    engine = unstarted_users_engine
    place = f"{engine.root}/programs"
    os.mkdir(place)
    copied = f"cp -p {need('newuidmap')} {need('newgidmap')} {place}"
    hidden = f"mount -t tmpfs -o nosuid none {place} && {copied} && mount -t tmpfs none /dev/net"
    engine.prefix = ["unshare", "-m", "sh", "-c", f'{hidden} && exec "$@"', "sh"]
    engine.settings["PATH"] = f"{place}:{os.environ['PATH']}"
    engine.start()
    engine.add_busybox()
    said = warnings(engine)
    assert f"one user, root: {place}/newuidmap gains no rights: its file system is mounted nosuid" in said
    if shutil.which("slirp4netns") or shutil.which("pasta"):
        assert "outside of this machine: " in said
        assert "open /dev/net/tun: no such file or directory (load the module tun" in said
    assert ids_of_containers(engine) == ALONE
    engine.stop()
    engine.prefix = []
    subprocess.run(["sh", "-c", f"{copied} && chmod u-s {place}/*"], check=True)
    engine.start()
    assert f"one user, root: {place}/newuidmap has no rights: `chmod u+s {place}/newuidmap`" in warnings(engine)
    assert ids_of_containers(engine) == ALONE


def test_a_process_that_gains_no_rights(unstarted_users_engine):
    """As in many containers and services; and a runtime directory that is root's, as after ``su``."""
    engine = unstarted_users_engine
    engine.prefix = ["setpriv", "--no-new-privs"]
    engine.settings["XDG_RUNTIME_DIR"] = "/run"
    engine.start()
    engine.add_busybox()
    assert "gains no rights, as no program of this process does (no_new_privs was set" in warnings(engine)
    assert ids_of_containers(engine) == ALONE
    home = unprivileged.user().home
    said = f"XDG_RUNTIME_DIR is /run, which is not this user's alone: sockets are in {home}/.local/share/ketch/run"
    assert said in engine.log()


def test_a_program_that_is_never_ready(unstarted_users_engine):
    """A ketchd that was killed while it waited for the way outside leaves it to the next one, which ends it."""
    engine = unstarted_users_engine
    place = f"{engine.root}/programs"
    os.mkdir(place)
    with open(f"{place}/slirp4netns", "w", encoding="ascii") as f:
        f.write("#!/bin/sh\nexec sleep 1000\n")
    os.chmod(f"{place}/slirp4netns", 0o755)
    before, engine.settings["PATH"] = os.environ["PATH"], f"{place}:{os.environ['PATH']}"
    record = f"{engine.exec_root}/network.json"
    if os.path.exists(record):
        os.unlink(record)
    engine.launch()
    until(lambda: os.path.exists(record), "the program is known")
    engine.stop(signal.SIGKILL)
    with open(record, encoding="utf-8") as f:
        stuck = json.load(f)["pid"]
    assert start_time(stuck)
    engine.settings["PATH"] = before
    engine.start()
    assert not start_time(stuck)


def over(engine, name: str, text: str, mode: int = 0o644) -> str:
    """A command by which a file of this text covers one of /etc."""
    place = f"{engine.root}/{name}"
    with open(place, "w", encoding="ascii") as f:
        f.write(text)
    os.chmod(place, mode)
    return f"mount --bind {place} /etc/{name}"


def test_lines_for_subordinate_ids(unstarted_users_engine):
    """Lines that name ids again, the user's own or root's; files that nobody may read; a directory to read only."""
    engine = unstarted_users_engine
    first = unprivileged.FIRST_ID
    lines = [
        "# none",
        "",
        "ketch-tests:x:1",
        f"{unprivileged.NAME}:{first}:1000",
        f"{unprivileged.UID}:{first + 500}:1000",
    ]
    lines += [f"{unprivileged.NAME}:{unprivileged.UID - 1}:3", f"{unprivileged.NAME}:0:2"]
    covered = " && ".join(over(engine, name, "".join(f"{line}\n" for line in lines)) for name in ("subuid", "subgid"))
    engine.prefix = ["unshare", "-m", "sh", "-c", f'{covered} && exec "$@"', "sh"]
    runtime = f"{engine.root}/runtime"
    os.mkdir(runtime, 0o500)
    os.chown(runtime, unprivileged.UID, unprivileged.UID)
    engine.settings["XDG_RUNTIME_DIR"] = runtime
    engine.start()
    engine.add_busybox()
    ranges = [(0, unprivileged.UID, 1), (1, first, 1500), (1501, unprivileged.UID - 1, 1)]
    ranges += [(1502, unprivileged.UID + 1, 1), (1503, 1, 1)]
    assert ids_of_containers(engine) == [str(number) for one in ranges for number in one]
    assert f"XDG_RUNTIME_DIR is {runtime}, which this user cannot write to" in engine.log()
    engine.stop()
    engine.prefix = ["unshare", "-m", "sh", "-c", f'{over(engine, "subuid", "", 0o600)} && exec "$@"', "sh"]
    engine.start()
    assert "one user, root: this user may not read /etc/subuid" in warnings(engine)
    assert ids_of_containers(engine) == ALONE


# A service that newuidmap asks by a library (libsubid of shadow 4.9 and later).
_SERVICE = """
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
struct range { unsigned long start, count; };
static const unsigned long first = %d, ids = 5000;
int shadow_subid_has_range(const char *owner, unsigned long start, unsigned long count, int kind, bool *result) {
    *result = !strcmp(owner, "%s") && start >= first && start + count <= first + ids;
    return 0;
}
int shadow_subid_list_owner_ranges(const char *owner, int kind, struct range **found, int *count) {
    *count = !strcmp(owner, "%s");
    *found = malloc(sizeof **found);
    **found = (struct range){first, ids};
    return 0;
}
int shadow_subid_find_subid_owners(unsigned long id, int kind, void **owners, int *count) { return *count = 0; }
"""


def test_ids_of_a_service(unstarted_users_engine):
    """Ids of an LDAP are in no file: they are what the library says that newuidmap asks; without them there is one."""
    engine = unstarted_users_engine
    need("getsubids")
    place = f"{engine.root}/lib"
    os.mkdir(place)
    name = unprivileged.NAME
    source = _SERVICE % (unprivileged.FIRST_ID, name, name)
    compiler = [need("gcc"), "-shared", "-fPIC", "-x", "c", "-o", f"{place}/libsubid_kt.so", "-"]
    subprocess.run(compiler, input=source, text=True, check=True)
    libraries = f"mount -t overlay none -o lowerdir={place}:/usr/lib /usr/lib"
    covered = [over(engine, name, "") for name in ("subuid", "subgid")]
    covered.append(over(engine, "nsswitch.conf", "passwd: files\nsubid:  kt\n"))
    engine.prefix = ["unshare", "-m", "sh", "-c", f'{" && ".join(covered)} && {libraries} && exec "$@"', "sh"]
    engine.start()
    engine.add_busybox()
    ranges = [(0, unprivileged.UID, 1), (1, unprivileged.FIRST_ID, 5000)]
    assert ids_of_containers(engine) == [str(number) for one in ranges for number in one]
    engine.stop()
    engine.prefix = ["unshare", "-m", "sh", "-c", f'{" && ".join(covered)} && exec "$@"', "sh"]
    engine.start()
    said = (
        f"one user, root: no subordinate ids are known of user {unprivileged.NAME} (`subid: kt` in /etc/nsswitch.conf)"
    )
    assert said in warnings(engine)
    assert ids_of_containers(engine) == ALONE


# The kernel of Ubuntu 24.04 makes the namespace, where nobody may do anything then.
_REFUSES = "#!/bin/sh\necho newuidmap: write to uid_map failed: Operation not permitted >&2\nexit 1\n"


def test_a_map_that_is_refused(unstarted_users_engine):
    """By a setting of the machine, which is named."""
    engine = unstarted_users_engine
    place = f"{engine.root}/programs"
    os.mkdir(place)
    for name in ("newuidmap", "newgidmap"):
        with open(f"{place}/{name}", "w", encoding="ascii") as f:
            f.write(_REFUSES)
        os.chmod(f"{place}/{name}", 0o4755)
    engine.settings["PATH"] = f"{place}:{os.environ['PATH']}"
    said = said_at_its_end(engine)
    assert (
        "ketchd: map the ids of containers' users: newuidmap: write to uid_map failed: Operation not permitted" in said
    )
    assert "are the lines of /etc/subuid" in said
    setting = "apparmor_restrict_unprivileged_userns"
    forbid = (
        f"mkdir -p {place}/kernel && echo 1 > {place}/kernel/{setting} && mount --bind {place}/kernel /proc/sys/kernel"
    )
    engine.prefix = ["unshare", "-m", "sh", "-c", f'{forbid} && exec "$@"', "sh"]
    assert f"the administrator can allow it: sysctl kernel.{setting}=0" in said_at_its_end(engine)
    engine.prefix = []
    del engine.settings["PATH"]


def test_no_place_for_the_log(unstarted_users_engine):
    """The client that would start ketchd says so."""
    refused = unstarted_users_engine.ketch("daemon", "start", check=False, XDG_STATE_HOME="/nonexistent")
    assert refused.code == 1
    assert refused.err.startswith("ketch: start ketchd: open its log `/nonexistent/ketch/ketchd")
    assert "permission denied\n  set HOME to a directory" in refused.err


def test_full_disks(unstarted_users_engine):
    """The file for which there is no space is named, so that one sees on which disk."""
    engine = unstarted_users_engine
    for root, file in ((engine.data_root, "cgroup-parent"), (engine.exec_root, "namespaces.json")):
        os.makedirs(root, exist_ok=True)
        os.chown(root, unprivileged.UID, unprivileged.UID)
        mine = f"size=8k,mode=700,uid={unprivileged.UID},gid={unprivileged.UID}"
        full = f"mount -t tmpfs -o {mine} tmpfs {root} && head -c 8192 /dev/zero > {root}/rest"
        engine.prefix = ["unshare", "-m", "sh", "-c", f'{full} && exec "$@"', "sh"]
        said = said_at_its_end(engine)
        assert f"ketchd: start ketchd: no space left on device: `{root}/{file}`\n  free some space" in said
    engine.prefix = []
