"""A small machine that systemd manages: systemd as the first process of namespaces of its own, with a system bus.

It has the unified hierarchy from a cgroup of its own down, an /etc and a /run of its own, its own network, and the
host's files else.  Nothing but the bus is started at its boot, which so takes a second.  On a machine whose
controllers are on v1 its cgroups have none, so no limits.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ketch.runtime.cgroups import common, files, tree
from tests.support.programs import need
from tests.support.run.session import SESSION
from tests.support.waiting import patient, until

if TYPE_CHECKING:
    from typing import Any

# The bus and systemd wait for nothing else (DefaultDependencies), least of all for the host's other services.
_UNITS = {
    "dbus.socket": "[Unit]\nDefaultDependencies=no\n[Socket]\nListenStream=/run/dbus/system_bus_socket\n",
    "dbus.service": (
        "[Unit]\nDefaultDependencies=no\nRequires=dbus.socket\n[Service]\nType=notify\nExecStart={dbus} --system"
        " --address=systemd: --nofork --nopidfile --systemd-activation --syslog-only\nExecReload=/bin/true\n"
    ),
    # What any way to shut down begins with; those that there are start others of the host's units.
    "over.target": "[Unit]\nDefaultDependencies=no\nRequires=shutdown.target\nAfter=shutdown.target\n",
    "box.target": "[Unit]\nDefaultDependencies=no\nRequires=dbus.service\nAfter=dbus.service\n",
}
# It waits until the process that has made the namespaces is out of the cgroup, whose controllers serve its children
# only when no process is in it itself.
# A root of its own: what is mounted below another mount, as cgroups of v1 may be, would be seen in the mounts' list.
_BOOT = r"""
set -e
echo $$ > {cgroup}/cgroup.procs
exec {unshare} --fork --pid --mount --cgroup --net --uts --ipc sh -ec '
  read -r _
  cd {directory}
  mount --bind / root
  for place in /dev /tmp {places}; do mount --rbind $place root$place; done
  mount -t tmpfs tmpfs etc && mkdir etc/upper etc/work
  mount -t overlay -o lowerdir=/etc,upperdir=etc/upper,workdir=etc/work overlay root/etc
  rm -rf root/etc/systemd/system && cp -r units root/etc/systemd/system
  mount -t tmpfs tmpfs root/run
  mount -t proc proc root/proc
  mount -t sysfs sysfs root/sys
  mount -t cgroup2 cgroup2 root/sys/fs/cgroup
  cd root && mkdir run/old && pivot_root . run/old && umount -l /run/old
  exec env -i container=box PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    {systemd} --unit=box.target --log-target=console --show-status=no < /dev/null
'
"""
_PLACES = {os.getcwd(), sys.prefix, sys.base_prefix}  # file systems of their own, maybe


class SystemdBox:
    """A booted box; `close` ends it with everything in it."""

    def __init__(self, directory: Path, name: str = "systemd") -> None:
        self.directory = directory
        root = common.layout().unified
        assert root, "needs a unified hierarchy"
        _enable_controllers(root)
        self.cgroup = f"{root}/{SESSION}{name}"
        programs = {"systemd": need("systemd"), "unshare": need("unshare"), "dbus": need("dbus-daemon")}
        units = directory / "units"
        units.mkdir()
        for name, text in _UNITS.items():
            (units / name).write_text(text.format(**programs))
        for name in ("etc", "root"):
            (directory / name).mkdir()
        tree.make(f"{self.cgroup}/visitors")
        self._log = directory / "log"
        script = _BOOT.format(directory=directory, cgroup=self.cgroup, places=" ".join(_PLACES), **programs)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen([need("sh"), "-c", script], stdin=subprocess.PIPE, stdout=log, stderr=log)
        try:
            self._first = 0
            until(self._has_namespaces, self._log.read_text)
            files.write(f"{self.cgroup}/visitors", "cgroup.procs", self._process.pid)
            assert self._process.stdin
            self._process.stdin.write(b"\n")
            self._process.stdin.close()
            until(self._is_booted, self._why_not_booted, 30)
        except BaseException:
            self.close()
            raise

    def run(self, *args: str, code: int = 0, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a program in the box to its end."""
        options = {"capture_output": True, "text": True, **options}
        done = subprocess.run(self.command(*args), timeout=patient(30), **options)
        assert done.returncode == code, f"{args} → {done.returncode}\n{done.stdout or ''}{done.stderr or ''}"
        return done

    def command(self, *args: str) -> list[str]:
        """The command line that runs a program in the box, in a cgroup that is not one of a unit."""
        script = f'echo $$ > {self.cgroup}/visitors/cgroup.procs; exec "$@"'
        return [need("sh"), "-c", script, "sh", need("nsenter"), "-t", str(self._first), "-a", "-r", "--", *args]

    def systemctl(self, *args: str) -> str:
        """What systemctl says."""
        return self.run("systemctl", *args).stdout.strip()

    def scopes(self) -> list[str]:
        """The scopes that there are, but systemd's own."""
        lines = self.systemctl("list-units", "--all", "--plain", "--no-legend", "--type=scope").splitlines()
        return sorted(line.split()[0] for line in lines if not line.startswith("init.scope"))

    def property(self, unit: str, name: str) -> str:
        """A property of a unit, as systemctl shows it."""
        return self.systemctl("show", "--value", f"--property={name}", unit)

    def close(self) -> None:
        """End everything in the box, and remove its cgroups."""
        with contextlib.suppress(FileNotFoundError):
            files.write(self.cgroup, "cgroup.kill", "1")
        self._process.kill()
        self._process.wait()
        deadline = time.monotonic() + patient(10)
        while tree.pids(self.cgroup) and time.monotonic() < deadline:
            time.sleep(0.01)
        tree.remove(self.cgroup)

    def _has_namespaces(self) -> bool:
        assert self._process.poll() is None, self._log.read_text()
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        self._first = int(children[0]) if children else 0
        return bool(children)

    def _why_not_booted(self) -> str:
        asked = subprocess.run(self.command("systemctl", "status", "--full", *_UNITS), capture_output=True, text=True)
        return f"systemd does not boot:\n{self._log.read_text()}\n{asked.stdout}\n{asked.stderr}"

    def _is_booted(self) -> bool:
        assert self._process.poll() is None, self._log.read_text()
        if Path(f"/proc/{self._first}/comm").read_text().strip() != "systemd":
            return False
        asked = subprocess.run(self.command("systemctl", "is-active", "box.target"), capture_output=True, text=True)
        return asked.stdout.strip() == "active"


def _enable_controllers(root: str) -> None:
    for name in files.read(root, "cgroup.controllers").split():
        with contextlib.suppress(OSError):  # one that the machine keeps
            files.write(root, "cgroup.subtree_control", f"+{name}")
