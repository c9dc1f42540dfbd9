"""``ketchd``: parse the settings, build the engine, serve the API until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import gc
import logging
import os
import resource
import signal
import sys
from typing import TYPE_CHECKING

from ketch import failpoints, module_cache, stdio
from ketch.errors import FailedPrecondition, KetchError
from ketch.failpoints import failpoint
from ketch.undo import AsyncUndo

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ketch.daemon.settings.config import Config
    from ketch.engine.engine import Engine
    from ketch.rootless.namespaces import OwnNamespaces

log = logging.getLogger("ketchd")
# Threads that unpack, compare and archive take turns with the event loop, which has to have several for one answer:
# with the interpreter's own 5 ms each, a client would wait for dozens of milliseconds.
_SLICE_S = 0.001
_LEAST_FILES = 64  # 30 without a container, and what a few requests open
_FIRST_SESSION_S = 30.0  # who starts a private daemon uses it at once
_ALONE_S = 30.0  # nobody waits for the end of such a one


def main() -> None:
    """The console script; exits 1 with one sentence on stderr when the daemon cannot start."""
    gc.disable()  # what is imported and made from now until `serve` stays
    from ketch.daemon import activation, libraries
    from ketch.daemon.own_log import file, formats
    from ketch.runtime import heaps

    heaps.share_heaps()
    _forget_parent()
    sys.setswitchinterval(_SLICE_S)
    try:
        soft_files = _open_as_many_as_permitted()
        libraries.check(networks=False)
        from ketch.daemon.settings.load import load  # it loads one of them

        with stdio.Collected():
            config = load(sys.argv[1:])
        if config.validate:
            sys.stderr.write("configuration OK\n")
            return
        handler = file.handler()
        handler.setFormatter(formats.formatter(config.log_format))
        logging.basicConfig(level=config.level, handlers=[handler])
        for note in config.notes:
            log.warning("%s", note)
        for name, value in config.proxies.items():
            os.environ[name.replace("-", "_").upper()] = os.environ[name.replace("-", "_")] = value
        libraries.check(networks=config.bridge != "none")
        if not config.repair and not config.prune_lost:
            config.hosts = activation.expanded(config.hosts)  # before there are children, which must have none of it
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
    except ImportError as e:
        hint = (
            "a package that Ketch needs is missing or broken, or this Python has no ssl or sqlite3: install Ketch anew"
        )
        sys.stderr.write(f"ketchd: start ketchd: {e}\n  {hint}\n")
        raise SystemExit(1) from None
    except (KetchError, OSError) as e:
        from ketch.engine.os_errors import explained

        error = explained(e, "start ketchd") if isinstance(e, OSError) else e
        sys.stderr.write(f"ketchd: {error.message}\n" + (f"  {error.hint}\n" if error.hint else ""))
        raise SystemExit(1) from None


def _own_namespaces(config: Config, stack: contextlib.ExitStack) -> OwnNamespaces | None:
    """The namespaces of a daemon that is not root's, which it is in now; None for root's.

    Root of a container is no more than a user there, unless the container was given the rights.
    """
    from ketch.rootless import permission

    if permission.suffices():
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


def _listen_to_signals(config: Config, stop: asyncio.Event) -> asyncio.AbstractEventLoop:
    """Handle signals from now on, in the running event loop, which is returned."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, log.info, "not ready yet: the settings are not read again")
    faulthandler.register(signal.SIGUSR1)
    loop.add_signal_handler(signal.SIGUSR2, setattr, config, "live_restore", False)  # `ketch daemon stop --containers`
    return loop


@contextlib.contextmanager
def _ended_by_last_session(engine: Engine, stop: asyncio.Event) -> Iterator[None]:
    """A time in which the end of the last session ends a private daemon."""
    over = asyncio.ensure_future(engine.sessions.over(_FIRST_SESSION_S))
    over.add_done_callback(lambda _over: stop.set())
    try:
        yield
    finally:
        over.cancel()


async def serve(config: Config, soft_files: int, own: OwnNamespaces | None = None) -> None:
    """Run the daemon until SIGTERM or SIGINT; containers go on, unless the settings or SIGUSR2 say that they end.

    At SIGHUP the settings are read again, at SIGUSR1 the stacks of all threads are written to the log.

    ``soft_files`` is the soft limit of open files that they start with.  ``own``: where a daemon is that is not root's.
    """
    from ketch.daemon import docker_socket, listen, notify, parent_cgroup, roots
    from ketch.engine.monitors.launcher import Launcher
    from ketch.runtime.cgroups import monitors

    for path, mode in ((config.data_root, 0o710), (config.exec_root, 0o711)):
        roots.check_not_inside(path, (config.data_root, config.exec_root))
        if own is None:
            roots.make(path, mode)
    failpoints.follow_by_task()
    if failpoints.armed():
        log.warning("a fault is armed at %s: this is a test", failpoints.armed())
    ready, stop = asyncio.Event(), asyncio.Event()
    loop = _listen_to_signals(config, stop)
    async with AsyncUndo() as stack:
        stack.enter_context(listen.data_lock(config.data_root))
        stack.enter_context(listen.exec_lock(config.exec_root))
        bound = stack.enter_context(
            listen.addresses(
                [*config.hosts, *config.builder_addrs, *filter(None, [config.metrics_url(), config.ui_url()])],
                secured=config.tls or config.tlsverify or config.insecure_tcp,
                any_length=bool(config.private),
            )
        )
        stack.enter_context(docker_socket.link(config.docker_socket, config.hosts, bound))
        stack.enter_context(listen.pid_file(config.pidfile))  # gone only when everything else is
        # The launcher needs as long to start as our own imports: they go on side by side.
        parent_cgroup.vacate(config)
        ours = parent_cgroup.made_here(config.data_root, config.cgroup_parent)
        launcher = await Launcher.start(config.cgroup_parent, soft_files)
        patience_s = _ALONE_S if config.private else monitors.EMPTY_S
        stack.callback(monitors.remove, config.cgroup_parent, with_parent=ours, patience_s=patience_s)
        stack.push_async_callback(launcher.close)
        with _no_certificates(), module_cache.ModuleCache("ketchd"):
            from ketch.daemon import wiring
            from ketch.daemon.reload.settings import Reload

        await launcher.ready()  # nothing is begun without it
        engine = await wiring.build(config, launcher, stack, ready, own)
        failpoint("daemon.restored")
        await wiring.listen_and_serve(config, engine, bound, stack)
        ready.set()
        gc.enable()
        gc.freeze()  # what is there now stays: each full collection would hold up every answer for 20 ms to see it
        log.info("API listen on %s", ", ".join(config.hosts))
        if config.builder_addrs:
            log.info("builder listens on %s", ", ".join(config.builder_addrs))
        notify.send("READY=1")
        loop.add_signal_handler(signal.SIGHUP, Reload(config, engine, sys.argv[1:]))
        if config.private:
            stack.enter_context(_ended_by_last_session(engine, stop))
        await stop.wait()
        notify.send("STOPPING=1")
        failpoint("daemon.stopping")
        log.info("stopping")
