"""An exec in Docker's JSON, and the bodies of requests about execs."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, ClassVar

import msgspec

from ketch.engine.model.execs import ExecConfig
from ketch.runtime.process.io import detach

if TYPE_CHECKING:
    from ketch.engine.model.execs import Exec
    from ketch.notation.api_objects import ApiObject


class NewExec(msgspec.Struct, rename="pascal", kw_only=True):
    """The body of ``POST /containers/{id}/exec``; ``console_size`` is [rows, columns].  ``adopts`` is ours."""

    GO_NAME: ClassVar[str] = "ExecOptions"

    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    detach_keys: str = ""
    tty: bool = False
    cmd: list[str] | None = None
    env: list[str] | None = None
    user: str = ""
    privileged: bool = False
    working_dir: str = ""
    console_size: list[int] | None = None
    adopts: bool = False

    def config(self) -> ExecConfig:
        """The engine's request of this body."""
        return ExecConfig(
            cmd=self.cmd or [],
            env=self.env or [],
            user=self.user,
            working_dir=self.working_dir,
            privileged=self.privileged,
            tty=self.tty,
            attach_stdin=self.attach_stdin,
            attach_stdout=self.attach_stdout,
            attach_stderr=self.attach_stderr,
            detach_keys=self.detach_keys,
            console_size=self.console_size or [],
            adopts=self.adopts,
        )


class StartBody(msgspec.Struct, rename="pascal", kw_only=True):
    """The body of ``POST /exec/{id}/start``; ``console_size`` is [rows, columns]."""

    GO_NAME: ClassVar[str] = "ExecStartOptions"

    detach: bool = False
    tty: bool = False
    console_size: list[int] | None = None


def inspect(exec_: Exec) -> ApiObject:
    """The body of ``GET /exec/{id}/json``; ``ExitCode`` is null while it has none."""
    config = exec_.config
    command = config.cmd or [""]
    process: ApiObject = {
        "tty": config.tty,
        "entrypoint": command[0],
        "arguments": command[1:],
        "privileged": config.privileged,
    }
    if config.user:
        process["user"] = config.user
    return {
        "ID": exec_.id,
        "Running": exec_.running,
        "ExitCode": exec_.exit_code,
        "ProcessConfig": process,
        "OpenStdin": config.attach_stdin,
        "OpenStderr": config.attach_stderr,
        "OpenStdout": config.attach_stdout,
        "CanRemove": False,  # of dockerd's own bookkeeping
        "ContainerID": exec_.container_id,
        "DetachKeys": base64.b64encode(detach.parse(config.detach_keys)).decode() if config.detach_keys else "",
        "Pid": exec_.pid,
    }
