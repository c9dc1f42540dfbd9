"""Exit codes, and which stream says why: the same from both clients, and from the docker client with either engine."""

from __future__ import annotations

# Commands, the exit code, and what the two streams have.  Spaces part arguments, `~` is one, and '' is empty.
TABLE = (
    ("run --rm busybox nope", 127, "", "executable file not found in $PATH"),
    ("run --rm busybox /nope", 127, "", "no such file or directory"),
    ("run --rm busybox /etc", 126, "", "permission denied"),
    ("run --rm busybox /etc/passwd", 126, "", "permission denied"),
    ("run --rm --device /dev/nope busybox true", 127, "", "no such file or directory"),
    ("run --rm --device /etc/passwd busybox true", 125, "", "not a device node"),
    ("run --rm --pull never nope", 125, "", "No such image: nope"),
    ("run --rm -u nope busybox true", 125, "", "unable to find user nope"),
    ("run --rm --network nope busybox true", 125, "", "network nope not found"),
    ("run --rm --name up busybox true", 125, "", "is already in use by container"),
    ("run --rm busybox sh -c exit~7", 7, "", ""),
    ("run --rm busybox sh -c echo~out;echo~err>&2", 0, "out\n", "err\n"),
    ("exec up nope", 127, "executable file not found in $PATH", ""),
    ("exec up /etc", 126, "permission denied", ""),
    ("exec -d up nope", 1, "", "executable file not found in $PATH"),
    ("exec -w /nope up true", 127, 'chdir to cwd ("/nope") set in config.json failed', ""),
    ("exec up sh -c exit~9", 9, "", ""),
    ("exec up sh -c kill~-9~$$", 137, "", ""),
    ("exec -u nope up true", 1, "", "unable to find user nope"),
    ("exec nope true", 1, "", "No such container: nope"),
    ("exec ended true", 1, "", "is not running"),
    ("start -a ended", 3, "", ""),
    ("start nope", 1, "", "No such container: nope"),
    ("start up", 0, "up\n", ""),
    ("stop nope", 1, "", "No such container: nope"),
    ("stop ended", 0, "ended\n", ""),
    ("kill ended", 1, "", "cannot kill container: ended: container "),
    ("kill -s SIGFOO up", 1, "", "cannot kill container: up: invalid signal: SIGFOO"),
    ("wait ended", 0, "3\n", ""),
    ("wait ended nope", 1, "3\n", "No such container: nope"),
    ("rm nope", 1, "", "No such container: nope"),
    ("rm -f nope", 0, "", "No such container: nope"),
    ("rm up", 1, "", 'cannot remove container "up": container is running'),
    ("rmi nope", 1, "", "No such image: nope:latest"),
    ("rmi -f nope", 0, "", "No such image: nope:latest"),
    ("cp up:/nope -", 1, "", "Could not find the file /nope in container up"),
    ("inspect up nope", 1, None, "nope"),
    ("push nope", 1, None, "An image does not exist locally with the tag: nope"),
    ("volume rm nope", 1, "", "get nope: no such volume"),
    ("volume rm -f nope", 0, "nope\n", ""),
    ("network rm nope", 1, "", "network nope not found"),
    ("network rm -f nope", 0, "", ""),
    ("run --device /dev/null:relative busybox", 125, "", "relative is not an absolute path"),
    ("network rm bridge", 1, "", "bridge is a pre-defined network and cannot be removed"),
    ("ps -f nope=1", 1, "", "invalid filter 'nope'"),
    ("events -f nope=1 --until 1", 0, "", ""),
    *((f"{command} ''", 1, "", "value is empty") for command in ("start", "stop", "kill", "restart", "pause", "wait")),
    *((f"{command} ''", 1, "", "value is empty") for command in ("logs", "top", "port", "diff", "attach")),
    ("exec '' true", 1, "", "value is empty"),
    ("rename '' x", 1, "", "empty"),
    ("network connect '' up", 1, "", "value is empty"),
    *((f"{kind} inspect ''", 1, None, None) for kind in ("container", "image", "volume", "network")),
    *((f"{command} ''", 1, None, None) for command in ("inspect", "rm", "rm -f", "rmi", "history", "volume rm")),
    *((f"{command} ''", 1, "", "invalid reference format") for command in ("pull", "push")),
    ("commit up a:b:c", 1, "", "invalid reference format"),
    ("update up", 1, "", "flag"),
    ("update --restart always up", 0, "up\n", ""),
    ("update --restart '' up", 0, "up\n", ""),
    ("inspect -f {{.HostConfig.RestartPolicy.Name}} up", 0, "always\n", ""),
    ("start up/", 0, "up/\n", ""),
    *((f"update --{flag} x up", 125, "", "invalid") for flag in ("memory", "cpus", "memory-swap")),
    *((f"run --{flag} '' busybox", 125, "", None) for flag in ("memory", "cpus", "shm-size", "network", "gpus")),
    ("run -d -a stdout busybox true", 1, "", "cannot specify both --attach and --detach"),
    ("run -it busybox true", 1, "", "the input device is not a TTY"),
    ("run -t -a stdin busybox true", 1, "", "the input device is not a TTY"),
    ("exec -it up true", 1, "", "the input device is not a TTY"),
    ("run", 1, "", "at least 1 argument"),
    ("volume", 0, None, None),
    ("volume nope", 1, "", "volume nope"),
    *((f"{command} --format {{{{", 64, "", "unclosed action") for command in ("version", "info", "events")),
    *((f"{command} --format {{{{", 1, "", "unclosed action") for command in ("ps", "images", "volume ls")),
    ("exec --env-file /nope up true", 1, "", "/nope"),
    ("run --env-file /nope busybox true", 125, "", "/nope"),
)


def test_exit_codes_and_streams(client):
    api = client.engine
    api.client("run", "-d", "--name", "up", "busybox", "sleep", "1000")
    api.client("run", "--name", "ended", "busybox", "sh", "-c", "exit 3", check=False)
    wrong = []
    for command, code, out, err in TABLE:
        done = client(*(word.replace("~", " ").replace("''", "") for word in command.split()), check=False)
        streams = ((out, done.out), (err, done.err))
        if done.code != code or not all(
            wanted is None or (wanted in text if wanted else not text) for wanted, text in streams
        ):
            wrong.append(f"{command} → {done.code}, not {code}; out {done.out!r}; err {done.err!r}")
    assert wrong == [], "\n".join(wrong)
