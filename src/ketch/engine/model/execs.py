"""Records of execs, in memory only: dropped some minutes after the end, and with the daemon."""

from __future__ import annotations

import asyncio

import msgspec


class ExecConfig(msgspec.Struct, kw_only=True, frozen=True):
    """The command of an exec and its streams; ``console_size`` is [rows, columns], empty: not known.

    ``adopts``: orphans among its descendants become its children, so that it can be ended with all that it has started.
    """

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
    adopts: bool = False


class Exec(msgspec.Struct, kw_only=True):
    """One exec; ``exit_code`` is None until it has ended, ``ended_at`` is of time.monotonic().

    ``run``: when the container was started in which it may begin; ``begun``: the start time of its process;
    ``settled``: it runs, or could not be started.
    """

    id: str
    container_id: str
    config: ExecConfig
    run: int = 0
    running: bool = False
    pid: int = 0
    begun: int = 0
    exit_code: int | None = None
    started: bool = False
    settled: asyncio.Event = msgspec.field(default_factory=asyncio.Event)
    ended_at: float = 0.0
