"""``ketchd``: parse the settings, build the engine, serve the API until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import resource
import signal
import sys
from typing import TYPE_CHECKING

from ketch import failpoints, printable, stdio
from ketch.errors import FailedPrecondition, KetchError
from ketch.failpoints import failpoint
from ketch.undo import AsyncUndo

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ketch.daemon.settings.config import Config
    from ketch.rootless.namespaces import OwnNamespaces

log = logging.getLogger("ketchd")
# Threads that unpack, compare and archive take turns with the event loop, which has to have several for one answer:
# with the interpreter's own 5 ms each, a client would wait for dozens of milliseconds.
_SLICE_S = 0.001
_LEAST_FILES = 64  # 30 without a container, and what a few requests open
_LEVELS = {"warn": "WARNING", "fatal": "CRITICAL"}


def main() -> None:
    """The console script; exits 1 with one sentence on stderr when the daemon cannot start."""
    gc.disable()  # what is imported and made from now until `serve` stays
    from ketch.daemon.settings.load import load
    from ketch.runtime import heaps

    heaps.share_heaps()
    _forget_parent()
    sys.setswitchinterval(_SLICE_S)
    try:
        soft_files = _open_as_many_as_permitted()
        with stdio.Collected():
            config = load(sys.argv[1:])
        level = _LEVELS.get(config.log_level, config.log_level.upper())
        handler = logging.StreamHandler()
        handler.setFormatter(_Formatter("%(asctime)s %(levelname)s %(message)s"))
        logging.basicConfig(level=level, handlers=[handler])
        with contextlib.ExitStack() as stack:
            own = _own_namespaces(config, stack)
            if config.repair or config.prune_lost:
                from ketch.daemon.recovery import repair

                (repair.repair if config.repair else repair.prune_lost)(config)
                return
            with contextlib.suppress(KeyboardInterrupt):
                asyncio.run(serve(config, soft_files, own))
    except stdio.OutputError as e:
        sys.stderr.write(f"ketchd: {e}\n")
        raise SystemExit(1) from None
    except (KetchError, OSError) as e:
        from ketch.engine.os_errors import explained

        error = explained(e, "start ketchd") if isinstance(e, OSError) else e
        sys.stderr.write(f"ketchd: {error.message}\n" + (f"  {error.hint}\n" if error.hint else ""))
        raise SystemExit(1) from None


def _own_namespaces(config: Config, stack: contextlib.ExitStack) -> OwnNamespaces | None:
    """The namespaces of a daemon that is not root's, which it is in now; None for root's."""
    if os.geteuid() == 0:
        return None
    from ketch.daemon import rootless

    return rootless.enter(config, stack)


def _forget_parent() -> None:
    """Reset what the parent left: umask, signal mask, disposition of SIGCHLD."""
    os.umask(0o022)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def _open_as_many_as_permitted() -> int:
    """Raise the limit of open files to its maximum; returns what it was (FailedPrecondition: not enough to start)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard != resource.RLIM_INFINITY and hard < _LEAST_FILES:
        raise FailedPrecondition(
            f"start ketchd: it may have {hard} open files and needs {_LEAST_FILES}, and more for each running "
            "container, published port and client",
            hint="raise the hard limit of who starts it: `ulimit -Hn 65536`, LimitNOFILE= in a systemd unit",
        )
    return soft


@contextlib.contextmanager
def _no_certificates() -> Iterator[None]:
    """A time in which OpenSSL finds none of the machine's certificates.

    aiohttp reads all of them twice when it is imported, an eighth of the daemon's start, for contexts that nothing here
    uses: ``ketch.remote.certificates`` makes our own.
    """
    name = "SSL_CERT_FILE"
    before = os.environ.get(name)
    os.environ[name] = os.devnull
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


class _Formatter(logging.Formatter):
    """Formatter of log lines: control characters in untrusted text are escaped."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = printable.cell(record.message)
        return super().formatMessage(record)

    def format(self, record: logging.LogRecord) -> str:
        return printable.lines(super().format(record))


async def serve(config: Config, soft_files: int, own: OwnNamespaces | None = None) -> None:
    """Run the daemon until SIGTERM or SIGINT; containers are left running.

    ``soft_files`` is the soft limit of open files that they start with.  ``own``: where a daemon is that is not root's.
    """
    from ketch.daemon import listen, notify, parent_cgroup, roots
    from ketch.engine.monitors.launcher import Launcher
    from ketch.runtime.cgroups import monitors

    for path, mode in ((config.data_root, 0o710), (config.exec_root, 0o711)):
        roots.check_not_inside(path, (config.data_root, config.exec_root))
        if own is None:
            roots.make(path, mode)
    failpoints.follow_by_task()
    if failpoints.armed():
        log.warning("a fault is armed at %s: this is a test", failpoints.armed())
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with AsyncUndo() as stack:
        stack.enter_context(listen.data_lock(config.data_root))
        stack.enter_context(listen.exec_lock(config.exec_root))
        bound = stack.enter_context(listen.addresses([*config.hosts, *config.builder_addrs]))
        stack.enter_context(listen.pid_file(config.pidfile))  # gone only when everything else is
        # The launcher needs as long to start as our own imports: they go on side by side.
        ours = parent_cgroup.made_here(config.data_root, config.cgroup_parent)
        launcher = await Launcher.start(config.cgroup_parent, soft_files)
        stack.callback(monitors.remove, config.cgroup_parent, with_parent=ours)
        stack.push_async_callback(launcher.close)
        with _no_certificates():
            from ketch.daemon import wiring

        await launcher.ready()  # nothing is begun without it
        engine = await wiring.build(config, launcher, stack, own)
        failpoint("daemon.restored")
        await wiring.listen_and_serve(config, engine, bound, stack)
        gc.enable()
        gc.freeze()  # what is there now stays: each full collection would hold up every answer for 20 ms to see it
        log.info("API listen on %s", ", ".join(config.hosts))
        if config.builder_addrs:
            log.info("builder listens on %s", ", ".join(config.builder_addrs))
        notify.send("READY=1")
        await stop.wait()
        notify.send("STOPPING=1")
        failpoint("daemon.stopping")
        log.info("stopping; running containers stay up")
