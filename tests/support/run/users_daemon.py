"""ketchd of a user who is logged in on a small machine that systemd manages."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.engines import NOWHERE
from tests.support.rawapi import Api
from tests.support.source.project import ROOT
from tests.support.waiting import patient, until

if TYPE_CHECKING:
    import subprocess

    from tests.support.run.login import Login


class UsersDaemon:
    """The user's ketchd, with ``busybox``."""

    def __init__(self, login: Login) -> None:
        self.login = login
        self.api = Api(f"{login.home}/s")
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def command(self) -> list[str]:
        roots = ["--data-root", f"{self.login.home}/data", "--exec-root", f"{self.login.home}/exec"]
        return [
            *self.login.user.command("ketchd")[5:],
            *roots,
            "-H",
            f"unix://{self.api.path}",
            "--bridge",
            "none",
            "--pidfile",
            f"{self.login.home}/pid",
        ]

    def start(self, *flags: str) -> None:
        with (self.login.home / "log").open("ab") as log:
            self.process = self.login.start(
                "env", *(f"{k}={v}" for k, v in NOWHERE.items()), *self.command, *flags, stdout=log, stderr=log
            )
        until(self.answers, self.log)
        self.api("POST", "/ketch/images/bootstrap", ref="busybox")

    def answers(self) -> bool:
        assert self.process is None or self.process.poll() is None, self.log()
        return (
            self.login.run("test", "-S", self.api.path, check=False).returncode == 0
            and self.api("GET", "/_ping")[0] == 200
        )

    def log(self) -> str:
        return (self.login.home / "log").read_text()

    def stop(self, number: int = signal.SIGTERM) -> None:
        assert self.process
        self.login.machine.run("kill", f"-{number:d}", (self.login.home / "pid").read_text().strip())
        self.process.wait(patient(20))
        self.process = None

    def run(self, name: str, *command: str, stop_signal: str = "", **host: object) -> str:
        body = {"Image": "busybox", "Cmd": command, "HostConfig": {"NetworkMode": "none", **host}}
        body["StopSignal"] = stop_signal
        found = self.api.must("POST", "/containers/create", body, name=name)["Id"]
        self.api.must("POST", f"/containers/{found}/start")
        return str(found)

    def remove(self, container: str) -> None:
        self.api.must("DELETE", f"/containers/{container}", force=True)

    def install(self) -> None:
        """Have the user's unit run this checkout's ketchd, from now on and after each self.login."""
        units = self.login.home / ".config/systemd/user"
        text = Path(ROOT, "contrib/systemd/user/ketch.service").read_text()
        command = " ".join(f'"{word}"' for word in self.command).replace("%", "%%")
        variables = " ".join(f'"{name}={value}"' for name, value in {**self.login.environment, **NOWHERE}.items())
        text = text.replace("ExecStart=%h/.local/bin/ketchd", f"ExecStart={command}\nEnvironment={variables}")
        assert command in text
        self.login.run("sh", "-c", 'mkdir -p "$1" && printf %s "$2" > "$1/ketch.service"', "sh", str(units), text)
        self.login.systemctl("daemon-reload")
        self.login.systemctl("enable", "--now", "ketch")
        assert self.api("GET", "/_ping")[0] == 200
        self.api("POST", "/ketch/images/bootstrap", ref="busybox")
