"""A git server behind ssh, on loopback, which lets in who has one key.

usage: git_server PORT PUBLIC-KEY HOST-KEY
"""

from __future__ import annotations

import asyncio
import os
import shlex
import sys

import asyncssh

SAFE = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}


async def _serve(process: asyncssh.SSHServerProcess[bytes]) -> None:
    command, directory = shlex.split(process.command or "")
    if command != "git-upload-pack":
        process.exit(128)
        return
    pipe = asyncio.subprocess.PIPE
    environment = {**os.environ, **SAFE}
    git = await asyncio.create_subprocess_exec(
        command, directory, stdin=pipe, stdout=pipe, stderr=pipe, env=environment
    )
    await process.redirect(stdin=git.stdin, stdout=git.stdout, stderr=git.stderr)
    process.exit(await git.wait())


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
