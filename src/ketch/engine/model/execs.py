"""Records of execs, in memory only: dropped some minutes after the end, and with the daemon."""

from __future__ import annotations

import msgspec


class ExecConfig(msgspec.Struct, kw_only=True, frozen=True):
    """The command of an exec and its streams; ``console_size`` is [rows, columns], empty: not known."""

    cmd: list[str]
    env: list[str] = []
    user: str = ""
    working_dir: str = ""
    privileged: bool = False
    tty: bool = False
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    detach_keys: str = ""
    console_size: list[int] = []


class Exec(msgspec.Struct, kw_only=True):
    """One exec; ``exit_code`` is None until it has ended, ``ended_at`` is of time.monotonic().

    ``run``: when the container was started in which it may begin.
    """

    id: str
    container_id: str
    config: ExecConfig
    run: int = 0
    running: bool = False
    pid: int = 0
    exit_code: int | None = None
    started: bool = False
    ended_at: float = 0.0
