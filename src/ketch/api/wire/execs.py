"""An exec in Docker's JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ketch.engine.model.records import Exec


def inspect(exec_: Exec) -> dict[str, Any]:
    """The body of ``GET /exec/{id}/json``; ``ExitCode`` is null while it has none."""
    config = exec_.config
    command = config.cmd or [""]
    return {
        "ID": exec_.id,
        "Running": exec_.running,
        "ExitCode": exec_.exit_code,
        "ProcessConfig": {
            "tty": config.tty,
            "entrypoint": command[0],
            "arguments": command[1:],
            "privileged": config.privileged,
            "user": config.user,
        },
        "OpenStdin": config.attach_stdin,
        "OpenStderr": config.attach_stderr,
        "OpenStdout": config.attach_stdout,
        "CanRemove": not exec_.running and exec_.started,
        "ContainerID": exec_.container_id,
        "DetachKeys": config.detach_keys,
        "Pid": exec_.pid,
    }
