"""A login of the user without rights on a small machine that systemd manages: the user's own systemd, and its bus."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ketch.runtime.cgroups import files
from tests.support.programs import need
from tests.support.run import unprivileged
from tests.support.run.session import SESSION
from tests.support.waiting import patient, until

if TYPE_CHECKING:
    from tests.support.boxes.systemd_box import SystemdBox

_UID = unprivileged.UID
_RUNTIME = f"/run/user/{_UID}"
# user@.service without PAM, which a distribution may have set up in any way.
_UNIT = f"""[Unit]
DefaultDependencies=no
[Service]
User=%i
Type=notify
ExecStart=-{{systemd}} --user
Slice=user-%i.slice
KillMode=mixed
Delegate=pids memory cpu
Environment=XDG_RUNTIME_DIR={_RUNTIME} HOME={{home}}
TasksMax=infinity
OOMScoreAdjust=100
"""


# logind and what it starts, without all else that a machine boots.
_LOGIND = {
    "systemd/system/systemd-logind.service": (
        "[Unit]\nDefaultDependencies=no\n[Service]\nBusName=org.freedesktop.login1\nExecStart={logind}\n"
    ),
    "systemd/system/user@.service.d/box.conf": "[Unit]\nDefaultDependencies=no\n",
    "systemd/system/user-runtime-dir@.service.d/box.conf": "[Unit]\nDefaultDependencies=no\n",
    "systemd/logind.conf": "[Login]\nUserStopDelaySec=0\n",
    "pam.d/systemd-user": "account required pam_permit.so\nsession required pam_systemd.so\n",
    "pam.d/su-l": "auth sufficient pam_rootok.so\naccount required pam_permit.so\nsession required pam_systemd.so\n",
}
_PROGRAM = "/lib/systemd/systemd-logind"


class Login:
    """A user who is logged in; ``home`` is the user's alone.  Programs run outside of the user's systemd, as a login's.

    Made after `unprivileged.user`, whose files a box has only if it is booted later.
    """

    cgroup = f"/user.slice/user-{_UID}.slice/user@{_UID}.service"

    def __init__(self, machine: SystemdBox) -> None:
        self.machine = machine
        self.user = unprivileged.user()
        self.home = Path(f"/tmp/{SESSION}login")
        self.home.mkdir(mode=0o700)
        os.chown(self.home, _UID, _UID)
        for name, text in unprivileged.LINES.items():
            line = text.replace(f":{self.user.home}:", f":{self.home}:")
            machine.run("sh", "-c", f'printf %s "$1" >> {name}', "sh", line)
        self._begin()

    def _begin(self) -> None:
        """Start the user's systemd."""
        self._write("systemd/system/user@.service", _UNIT.format(systemd=need("systemd"), home=self.home))
        self.machine.run("install", "-d", "-m", "700", "-o", str(_UID), "-g", str(_UID), _RUNTIME)
        self.machine.systemctl("daemon-reload")
        self.machine.systemctl("start", f"user@{_UID}.service")
        self._await_bus()

    def close(self) -> None:
        """End what is the user's."""
        self.machine.systemctl("stop", f"user@{_UID}.service")
        shutil.rmtree(self.home)

    def command(self, *args: str) -> list[str]:
        """The command line of a program of the user."""
        identity = ["setpriv", f"--reuid={_UID}", f"--regid={_UID}", "--clear-groups", "--inh-caps=-all"]
        return self.machine.command(*identity, *args)

    @property
    def environment(self) -> dict[str, str]:
        """What a login sets."""
        own = {"HOME": str(self.home), "XDG_RUNTIME_DIR": _RUNTIME, "PATH": os.environ["PATH"]}
        return {**self.user.environment(), **own}

    def run(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a program to its end."""
        words = self.command(*args)
        done = subprocess.run(words, capture_output=True, text=True, env=self.environment, timeout=patient(30))
        assert not check or done.returncode == 0, f"{args} → {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def systemctl(self, *args: str, check: bool = True) -> str:
        """What the user's systemctl says."""
        return self.run("systemctl", "--user", *args, check=check).stdout.strip()

    def start(self, *args: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start a program."""
        return subprocess.Popen(self.command(*args), env=self.environment, **options)

    def processes(self, path: str) -> list[str]:
        """The programs in a cgroup of the user's systemd."""
        found = [Path(f"/proc/{pid}/cmdline").read_text() for pid in self.pids(path)]
        return [line.replace("\0", " ").strip() for line in found]

    def pids(self, path: str) -> list[int]:
        """Their numbers, outside of the box."""
        return [int(pid) for pid in files.read(self.machine.cgroup + self.cgroup + path, "cgroup.procs").split()]

    def _await_bus(self) -> None:
        until(lambda: self.systemctl("is-active", "dbus.socket", check=False) == "active", "the user's bus")

    def _write(self, name: str, text: str) -> None:
        """Write a file of the box's /etc."""
        script = 'mkdir -p "$(dirname "$2")" && printf %s "$1" > "$2"'
        self.machine.run("sh", "-c", script, "sh", text, f"/etc/{name}")


class PamLogin(Login):
    """A user who logs in and out, as logind and PAM have it: without a session there is no systemd of the user."""

    def _begin(self) -> None:
        if not os.path.exists(_PROGRAM):
            pytest.skip("needs systemd-logind")
        self.machine.run("mount", "-t", "tmpfs", "tmpfs", "/var/lib/systemd")
        for name, text in _LOGIND.items():
            self._write(name, text.format(logind=_PROGRAM))
        self.machine.systemctl("daemon-reload")
        self.machine.systemctl("start", "systemd-logind.service")
        self.enter()

    def enter(self) -> None:
        """Log in."""
        words = self.machine.command("su", "-l", unprivileged.NAME, "-c", "echo in; read -r _")
        self._session = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._session.stdout
        assert self._session.stdout.readline() == b"in\n"
        self._await_bus()

    def leave(self) -> None:
        """Log out; returns when nothing of the login is left, unless the user lingers."""
        self._session.communicate(b"\n", timeout=patient(20))

    def close(self) -> None:
        if self._session.poll() is None:
            self.leave()
        super().close()
