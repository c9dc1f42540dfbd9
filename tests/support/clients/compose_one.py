"""docker-compose 1.29, the one in Python, as a client of one engine."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.waiting import patient

if TYPE_CHECKING:
    from tests.support.engines import Engine

_SERVER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "compose_server.py")


class Compose:
    """docker-compose in a process that forks for each command."""

    def __init__(self, engine: Engine, place: str) -> None:
        self.engine = engine
        self.program = os.path.join(place, "bin/docker-compose")
        self.environment = {
            **engine.environment(),
            "COMPOSE_HTTP_TIMEOUT": str(int(patient(30))),
            "COMPOSE_DOCKER_CLI_BUILD": "0",  # it builds itself, through the classic API
        }
        self._server = subprocess.Popen(
            [os.path.join(place, "bin/python"), _SERVER],
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, directory: Path, args: list[str], stdin: str) -> tuple[int, str, str]:
        """One command: its status, and what it printed."""
        files = {name: os.path.join(self.engine.root, f"compose-{name}") for name in ("stdin", "out", "err")}
        Path(files["stdin"]).write_text(stdin, encoding="utf-8")
        asked = {"args": ["--ansi", "never", *args], "cwd": str(directory), "env": self.environment, **files}
        self._server.stdin.write(json.dumps(asked) + "\n")
        self._server.stdin.flush()
        code = int(self._server.stdout.readline())
        out, err = (Path(files[name]).read_text(encoding="utf-8") for name in ("out", "err"))
        return code, out, err

    def close(self) -> None:
        """End it."""
        self._server.stdin.close()
        self._server.wait(patient(10))
        self._server.stdout.close()


class Project:
    """A directory with a file, and docker-compose there."""

    def __init__(self, compose: Compose, directory: Path, text: str) -> None:
        self.compose = compose
        self.engine = compose.engine
        self.directory = directory
        self.write(text)

    def write(self, text: str) -> None:
        """Have another file."""
        (self.directory / "docker-compose.yml").write_text(text, encoding="utf-8")

    def __call__(self, *args: str, code: int = 0, stdin: str = "") -> str:
        """What a command printed."""
        status, out, err = self.compose.run(self.directory, list(args), stdin)
        assert status == code, out + err
        return out + (err if code else "")

    def inspect(self, name: str) -> dict[str, Any]:
        """A container of it."""
        return self.engine.inspect(f"{self.directory.name}_{name}")
