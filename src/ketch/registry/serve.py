"""``ketch registry serve``: one process that serves, or several side by side on one port (SO_REUSEPORT)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import ssl
import subprocess
import sys
from typing import IO, TYPE_CHECKING, Any, NoReturn

from aiohttp import web

from ketch import programs
from ketch.errors import InvalidArgument
from ketch.registry import gc, settings
from ketch.registry.auth import Htpasswd, TokenVerifier
from ketch.registry.cache import PullThrough
from ketch.registry.metrics import Metrics
from ketch.registry.objects.bucket import Bucket
from ketch.registry.objects.disk import Disk
from ketch.registry.repositories import Repositories
from ketch.registry.server import RegistryServer
from ketch.remote.client import Remotes
from ketch.remote.credentials import Credentials
from ketch.remote.settings import Settings

if TYPE_CHECKING:
    import argparse

    from ketch.registry.objects.store import Objects

log = logging.getLogger(__name__)
_WORKER = "KETCH_REGISTRY_WORKER"
_DRAIN_S = 30.0


def store(options: argparse.Namespace) -> Objects:
    """The store of these settings."""
    if options.bucket:
        return Bucket(options.bucket, options.bucket_options)
    return Disk(options.root)


def main(options: argparse.Namespace, argv: list[str]) -> int:
    """Serve until SIGTERM or SIGINT."""
    if options.workers > 1 and _WORKER not in os.environ:
        return _supervise(options.workers, argv)
    asyncio.run(_serve(options))
    if options.bucket:
        _end()
    return 0


def _end() -> NoReturn:
    """End without taking the interpreter down: the bucket's client has threads of its own, which may abort that."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _supervise(count: int, argv: list[str]) -> int:
    """Run a number of workers; one that dies is replaced."""
    command = programs.python("ketch.registry", *argv)
    environment = {**programs.environment(), _WORKER: "1"}
    workers = [subprocess.Popen(command, env=environment) for _ in range(count)]
    stopping = False

    def stop(_number: int, _frame: object) -> None:
        nonlocal stopping
        stopping = True
        for worker in workers:
            _terminate(worker)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    while workers:
        pid, status = os.wait()
        ended = next((w for w in workers if w.pid == pid), None)
        if ended is None:
            continue
        ended.returncode = os.waitstatus_to_exitcode(status)
        workers.remove(ended)
        if not stopping and ended.returncode == 0:
            stop(0, None)
        elif not stopping:
            if ended.returncode > 0:  # it says why itself; others would fail in the same way
                stop(0, None)
                for other in workers:
                    other.wait()
                return ended.returncode
            log.error("a worker ended with %s: a new one takes its place", ended.returncode)
            workers.append(subprocess.Popen(command, env=environment))
            if stopping:  # the signal came while it was started: it was not among those that were ended
                _terminate(workers[-1])
    _ignore_signal()
    return 0


def _terminate(worker: subprocess.Popen[bytes]) -> None:
    """Signal a worker without `Popen.poll`, which would take its status from `os.wait`."""
    if worker.returncode is None:
        os.kill(worker.pid, signal.SIGTERM)


def _ignore_signal() -> None:
    """Ignore further signals to end.

    A handler of Python's goes when the interpreter begins to end, and the default would kill it on its way.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


async def _serve(options: argparse.Namespace) -> None:
    async with contextlib.AsyncExitStack() as stack:
        metrics = Metrics()
        objects = store(options)
        stack.push_async_callback(objects.close)
        repositories = Repositories(objects, sparse=options.sparse_indexes)
        cache = await _cache(options, repositories, metrics, stack)

        async def collect() -> gc.Report:
            report = await gc.Collector(repositories, options.gc_grace, untagged=options.delete_untagged).run()
            metrics.values["gc_runs"] += 1
            metrics.values["gc_blobs"] += report.deleted_blobs
            metrics.values["gc_bytes"] += report.deleted_bytes
            return report

        auth = _auth(options)
        server = RegistryServer(
            repositories=repositories,
            auth=auth,
            cache=cache,
            readonly=options.read_only,
            metrics=metrics,
            access_log=_log(options.access_log, stack),
            collect=collect,
            serves_metrics=not options.metrics_addr,
        )
        web_server: Any = web.Server(server.handle, access_log=None, read_bufsize=1 << 20, auto_decompress=False)
        runner = web.ServerRunner(web_server, handle_signals=False, shutdown_timeout=_DRAIN_S)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        if auth is not None:
            stack.callback(auth.close)
        listener = _listen(*settings.address(options.addr))
        await web.SockSite(runner, listener, ssl_context=_tls(options)).start()
        host, port = listener.getsockname()[:2]
        log.info("registry listens on %s:%s", host, port)
        if options.metrics_addr:
            await _serve_metrics(options, server, stack)
        if options.gc_interval:
            task = asyncio.create_task(_collect_periodically(collect, options.gc_interval))
            stack.callback(task.cancel)
        await _until_signalled()


async def _serve_metrics(options: argparse.Namespace, server: RegistryServer, stack: contextlib.AsyncExitStack) -> None:
    metrics_server: Any = web.Server(server.handle_metrics, access_log=None)
    runner = web.ServerRunner(metrics_server, handle_signals=False)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    listener = _listen(*settings.address(options.metrics_addr))
    await web.SockSite(runner, listener).start()
    log.info("metrics at %s:%s", *listener.getsockname()[:2])


async def _collect_periodically(collect: Any, interval_s: float) -> None:
    while True:
        await asyncio.sleep(interval_s)
        try:
            log.info("garbage collection: %s", await collect())
        except Exception:
            log.exception("garbage collection")


async def _until_signalled() -> None:
    loop, signalled = asyncio.get_running_loop(), asyncio.Event()

    def on_signal(_number: int, _frame: object) -> None:
        with contextlib.suppress(RuntimeError):  # it has ended: another signal changes nothing
            loop.call_soon_threadsafe(signalled.set)

    # Not the loop's own handlers: they go with it, and a second signal would end the process before it is done.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    await signalled.wait()
    _ignore_signal()


async def _cache(
    options: argparse.Namespace, repositories: Repositories, metrics: Metrics, stack: contextlib.AsyncExitStack
) -> PullThrough | None:
    if not options.upstream:
        return None
    insecure = (options.upstream.partition("://")[2].rstrip("/"),) if options.upstream.startswith("http://") else ()
    remotes = Remotes(Settings(insecure=insecure, attempts=3))
    stack.push_async_callback(remotes.close)
    user = options.upstream_user
    credentials = Credentials(username=user, password=settings.upstream_password()) if user else None
    return PullThrough(repositories, remotes, options.upstream, credentials, options.upstream_ttl, metrics)


def _auth(options: argparse.Namespace) -> Htpasswd | TokenVerifier | None:
    if options.htpasswd:
        return Htpasswd(options.htpasswd, anonymous_pull=options.anonymous_pull)
    if options.token_realm:
        return TokenVerifier(
            options.token_realm, options.token_service, options.token_issuer, options.token_keys, options.anonymous_pull
        )
    return None


def _log(path: str, stack: contextlib.ExitStack | contextlib.AsyncExitStack) -> IO[str] | None:
    if path == "-":
        return sys.stdout
    return stack.enter_context(open(path, "a", encoding="utf-8")) if path else None


def _tls(options: argparse.Namespace) -> ssl.SSLContext | None:
    if not options.tls_cert:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(options.tls_cert, options.tls_key)
    except (ssl.SSLError, OSError) as e:
        raise InvalidArgument(f"read certificate `{options.tls_cert}`: {e}") from e
    return context


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if _WORKER in os.environ:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind((host, port))
    except OSError as e:
        listener.close()
        raise InvalidArgument(f"listen on {host}:{port}: {e.strerror}", hint="choose another --addr") from e
    listener.listen(1024)
    return listener
