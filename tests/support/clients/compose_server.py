"""docker-compose 1.29, loaded once and forked for each command: loading it takes longer than most commands.

Runs in the environment of that client: a line of JSON from stdin says what to run where, one on stdout how it ended.
"""

import json
import os
import sys
import traceback

from compose.cli import main as compose


def child(asked: dict) -> int:
    """Be that command; returns its status."""
    for fd, (path, flags) in enumerate(
        (
            (asked["stdin"], os.O_RDONLY),
            (asked["out"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
            (asked["err"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
        )
    ):
        opened = os.open(path, flags, 0o600)
        os.dup2(opened, fd)
        os.close(opened)
    os.environ.clear()
    os.environ.update(asked["env"])
    os.chdir(asked["cwd"])
    sys.argv = ["docker-compose", *asked["args"]]
    try:
        compose.main()
    except SystemExit as e:
        return e.code if isinstance(e.code, int) else int(e.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def serve() -> None:
    """Until there are no more lines."""
    for line in iter(sys.stdin.readline, ""):
        pid = os.fork()
        if pid == 0:
            status = child(json.loads(line))
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    serve()
