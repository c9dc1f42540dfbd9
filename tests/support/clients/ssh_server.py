"""An ssh server on loopback, which carries out what those ask who have one key.

usage: ssh_server PORT PUBLIC-KEY HOST-KEY
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys

import asyncssh

# Repositories of tests are not their servers' own.
SAFE = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}


async def _serve(process: asyncssh.SSHServerProcess[bytes]) -> None:
    pipe = asyncio.subprocess.PIPE
    environment = {**os.environ, **SAFE}
    done = await asyncio.create_subprocess_shell(
        process.command or "", stdin=pipe, stdout=pipe, stderr=pipe, env=environment
    )
    assert done.stdin
    assert done.stdout
    assert done.stderr
    taking = asyncio.create_task(_copy(process.stdin, done.stdin))
    await asyncio.gather(_copy(done.stdout, process.stdout), _copy(done.stderr, process.stderr))
    process.exit(await done.wait())
    taking.cancel()


async def _copy(source, target) -> None:
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the program reads no more
        while data := await source.read(65536):
            target.write(data)
            await target.drain()
        if isinstance(source, asyncssh.SSHReader):
            target.close()


async def main() -> None:
    """Serve until the end of the process."""
    _, port, public, host_key = sys.argv
    await asyncssh.create_server(
        asyncssh.SSHServer,
        "127.0.0.1",
        int(port),
        server_host_keys=[host_key],
        authorized_client_keys=public,
        process_factory=_serve,
        encoding=None,
    )
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
