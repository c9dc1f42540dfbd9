"""A demonstration, end to end: a private ketchd, a real Debian image, a web server, a terminal; it leaves nothing.

Every step is a command that a person would type; its time stands beside it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from typing import TYPE_CHECKING

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

from tests.support.leaks import Census  # noqa: E402
from tests.support.run.session import MARK  # noqa: E402
from tests.support.terminal import Terminal  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KETCH, KETCHD = (os.path.join(ROOT, ".venv", "bin", name) for name in ("ketch", "ketchd"))
SESSION = f"kd{os.getpid()}"
PAGE = "served by a container\n"


class Demo:
    """A daemon on roots of its own, the clients that talk to it, and the clock."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.socket = f"{root}/s.sock"
        self.environment = {**os.environ, "DOCKER_HOST": f"unix://{self.socket}", "DOCKER_CONFIG": root}
        self.begin = time.monotonic()

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Say what is done, do it, say how long it took."""
        print(f"\n\033[1m▸ {title}\033[0m" if sys.stdout.isatty() else f"\n▸ {title}", flush=True)
        begin = time.monotonic()
        yield
        print(f"  ({(time.monotonic() - begin) * 1000:.0f} ms)", flush=True)

    def run(self, *command: str, show: bool = True, lines: int = 12) -> str:
        """Run a client; show its output."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
        if show:
            text = done.stdout.splitlines()
            for line in text[:lines]:
                print("  │ " + line[:150])
            if len(text) > lines:
                print(f"  │ … {len(text) - lines} more lines")
        return done.stdout

    def type(self, title: str, *command: str, show: bool = True, lines: int = 12) -> str:
        """One step that is one command."""
        with self.step(title or " ".join(("ketch", *command[1:])).replace(KETCH, "ketch")):
            return self.run(*command, show=show, lines=lines)

    def daemon(self) -> subprocess.Popen[bytes]:
        """Start ketchd; returns when it answers."""
        command = [
            KETCHD,
            "--data-root",
            f"{self.root}/data",
            "--exec-root",
            f"{self.root}/exec",
            "--pidfile",
            f"{self.root}/pid",
            "-H",
            f"unix://{self.socket}",
            "--bridge",
            SESSION,
            "--cgroup-parent",
            f"/{SESSION}",
        ]
        with open(f"{self.root}/log", "wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, MARK: SESSION})
        while (
            subprocess.run([KETCH, "version"], env=self.environment, capture_output=True, check=False).returncode != 0
        ):
            if process.poll() is not None or time.monotonic() > self.begin + 20:
                with open(f"{self.root}/log", encoding="utf-8") as log_text:
                    raise SystemExit(f"ketchd does not answer:\n{log_text.read()}")
            time.sleep(0.01)
        return process

    def bootstrap(self, ref: str) -> bool:
        """Make a base image out of the distribution's packages, with its progress shown; False when that failed."""
        with self.step(f"ketch image bootstrap {ref}"):
            command = [KETCH, "image", "bootstrap", ref]
            return subprocess.run(command, env=self.environment, timeout=300, check=False).returncode == 0


def until(what: str, check: Callable[[], bool]) -> None:
    """Wait for a program in a container to be ready."""
    deadline = time.monotonic() + 15
    while not check():
        if time.monotonic() > deadline:
            raise SystemExit(f"{what} does not happen")
        time.sleep(0.02)


def fetch(port: str) -> str:
    """A page of the web server, empty while it does not answer."""
    with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=2) as answer:
        return str(answer.read(), "utf-8")
    return ""


def web_server(demo: Demo) -> None:
    """A detached container with a published port, and what one asks about it."""
    serve = f"mkdir /www && printf '{PAGE[:-1]}\\n' > /www/index.html; echo ready; exec httpd -f -v -v -p 80 -h /www"
    command = (KETCH, "run", "-d", "--name", "web", "-m", "64m", "-p", "127.0.0.1:0:80", "busybox", "sh", "-c", serve)
    demo.type("ketch run -d --name web -m 64m -p 127.0.0.1:0:80 busybox … httpd", *command)
    port = demo.run(KETCH, "port", "web", "80/tcp", show=False).strip().rpartition(":")[2]
    with demo.step(f"curl http://127.0.0.1:{port}/"):
        until("the web server's answer", lambda: fetch(port) == PAGE)
        print("  │ " + PAGE, end="")
    demo.type("", KETCH, "ps")
    demo.type("", KETCH, "logs", "web")
    demo.type("", KETCH, "exec", "web", "ps")
    demo.type("", KETCH, "inspect", "-f", "{{.Name}} {{.State.Status}} {{json .NetworkSettings.Ports}}", "web")
    demo.type("", KETCH, "stats", "--no-stream")
    docker = shutil.which("docker")
    if docker:
        demo.type("docker ps (the same daemon, Docker's own client)", docker, "ps")


def interactive(demo: Demo) -> None:
    """A shell on a terminal, typed into as a person would."""
    with demo.step("ketch run -it --rm debian:bookworm bash"):
        command = [
            KETCH,
            "run",
            "-it",
            "--rm",
            "--hostname",
            "debian",
            "-e",
            "TERM=dumb",
            "debian:bookworm",
            "bash",
            "--norc",
        ]
        with Terminal(command, demo.environment) as terminal:
            terminal.expect(r"bash-[\d.]+# ")
            for line in ("head -1 /etc/os-release; hostname; tty", "apt-get --version | head -1", "exit 3"):
                terminal.send(line + "\n")
                if line == "exit 3":
                    break
                terminal.expect(r"\r\n")
                for answer in terminal.expect(r"(?s)(.*?)bash-[\d.]+# ").group(1).splitlines():
                    print("  │ " + answer)
            print(f"  │ exit status {terminal.wait()}")


def main() -> int:
    """Run the demo; 1 when something was left behind."""
    if os.geteuid() != 0:
        raise SystemExit("make demo: containers need root here (try sudo make demo)")
    before = Census.take(SESSION)
    root = tempfile.mkdtemp(prefix="kd-", dir="/tmp")
    demo = Demo(root)
    try:
        with contextlib.ExitStack() as undo:
            undo.callback(shutil.rmtree, root, ignore_errors=True)
            with demo.step("ketchd"):
                process = demo.daemon()
            undo.callback(process.wait, 30)
            undo.callback(process.send_signal, signal.SIGTERM)
            undo.callback(
                subprocess.run,
                f"{KETCH} rm -fv $({KETCH} ps -aq)",
                shell=True,
                env=demo.environment,
                capture_output=True,
                check=False,
            )
            if not demo.bootstrap("busybox"):
                raise SystemExit("the demo needs busybox (Debian: apt-get install busybox-static)")
            debian = demo.bootstrap("debian:bookworm")
            if not debian:
                print("  skipped: what is shown with a Debian image, for it cannot be made here (see above)")
            demo.type("", KETCH, "images")
            web_server(demo)
            if debian:
                interactive(demo)
            demo.type("", KETCH, "stop", "-t", "1", "web")
            demo.type("", KETCH, "rm", "web")
            demo.type("", KETCH, "rmi", *["debian:bookworm"] * debian, "busybox", lines=4)
    finally:
        left = before.leaks()
    print(f"\nAll of it: {time.monotonic() - demo.begin:.1f} s.", end=" ")
    if left:
        print("Left behind:\n  " + "\n  ".join(left))
        return 1
    print("Nothing was left behind: no mount, link, cgroup, firewall table or process.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
