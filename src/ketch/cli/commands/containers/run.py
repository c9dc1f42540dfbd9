"""``run`` and ``create``: make a container, pulling its image if that is missing, and run it."""

from __future__ import annotations

import os
import sys

from ketch.cli import proxies
from ketch.cli.commands.containers import timing, wait_healthy
from ketch.cli.errors import CombinationError, UsageError
from ketch.cli.options import run_flags, wait_flag
from ketch.cli.session import Session, check_terminal
from ketch.contexts import contextmanager
from ketch.errors import ImageNotFound, InvalidArgument, KetchError, NotFound, PlatformMismatch, Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ketch.cli.context import Context
    from ketch.cli.options.flags import Options
    from ketch.client.http import Client, Response
    from ketch.notation.api_objects import ApiObject


def cmd_create(args: list[str], ctx: Context) -> int:
    """Make a container without starting it."""
    spec = run_flags.flag_set("create", "Create a new container")
    opts, rest = spec.parse(args)
    spec.arguments(rest, 1)
    body = run_flags.body(opts, rest[0], rest[1:])
    body.update(_attached(_wanted(opts), opts["interactive"]))
    ctx.print(_create(ctx, opts, body))
    return 0


def cmd_run(args: list[str], ctx: Context) -> int:
    """Make a container, attach to it, start it, and return its exit code."""
    spec = run_flags.flag_set("run", "Create and run a new container from an image")
    timing.add_flag(spec)
    opts, rest = spec.parse(args)
    spec.arguments(rest, 1)
    body = run_flags.body(opts, rest[0], rest[1:])
    wanted = _wanted(opts)
    if not opts["detach"]:
        check_terminal(opts["tty"], "stdin" in wanted)
    body.update(_attached(wanted, opts["interactive"] and not opts["detach"]))
    timeout_s = wait_flag.timeout_of(opts)
    if timeout_s is not None and not opts["detach"]:
        raise InvalidArgument("conflicting options: --wait-healthy needs -d")
    if timeout_s is not None and opts["timing"]:
        raise InvalidArgument("conflicting options: --wait-healthy and --timing")
    _ensure_daemon(ctx)
    container = _create(ctx, opts, body)
    if opts["detach"]:
        return _start_detached(ctx, opts, container, timeout_s)
    return _run_attached(ctx, opts, container, wanted)


def _start_detached(ctx: Context, opts: Options, container: str, timeout_s: float | None) -> int:
    if timeout_s is None:
        try:
            account = _start(ctx, opts, container)
        finally:
            ctx.print(container)  # one that cannot be started stays, too
        timing.show(ctx, account)
        return 0
    try:
        wait_healthy.start(ctx, container, timeout_s)
    except wait_healthy.NotHealthy as e:
        return wait_healthy.report(ctx, e)
    ctx.print(container)
    return 0


def _start(ctx: Context, opts: Options, container: str) -> ApiObject:
    """Start a container; returns the account of it, empty when nobody asked for one."""
    if opts["timing"]:
        return timing.start(ctx, container)
    ctx.client().request("POST", f"/containers/{container}/start")
    return {}


def _attached(wanted: list[str], interactive: bool) -> dict[str, bool]:
    """The configuration's fields for the attached streams."""
    flags = {f"Attach{name.capitalize()}": name in wanted for name in ("stdin", "stdout", "stderr")}
    return {**flags, "StdinOnce": interactive and "stdin" in wanted}


def _wanted(opts: Options) -> list[str]:
    """The streams to attach: the named ones and, with ``-i``, standard input."""
    detached = "detach" in opts and opts["detach"]
    if opts["attach"]:
        if detached:
            raise CombinationError("conflicting options: cannot specify both --attach and --detach")
        for stream in opts["attach"]:
            if stream.lower() not in ("stdin", "stdout", "stderr"):
                raise UsageError(f"invalid --attach `{stream}`: valid streams are STDIN, STDOUT and STDERR")
        chosen = [stream.lower() for stream in opts["attach"]]
        return [*chosen, *(["stdin"] if opts["interactive"] and "stdin" not in chosen else [])]
    if detached:
        return []
    return ["stdin", "stdout", "stderr"] if opts["interactive"] else ["stdout", "stderr"]


def _ensure_daemon(ctx: Context) -> None:
    """Start a daemon, with a message, if nothing answers on the default socket."""
    if ctx.chosen:
        return
    try:
        ctx.client().request("GET", "/_ping")
    except Unavailable:
        from ketch.cli.ketchd import start

        ctx.warn(
            f"ketch: no daemon was running, started ketchd (pid {start(ctx.host)}); stop it with: ketch daemon stop"
        )


def _create(ctx: Context, opts: Options, body: ApiObject) -> str:
    if opts["tty"] and sys.stdout.isatty():
        from ketch.cli.session import window

        body["HostConfig"]["ConsoleSize"] = list(window())
    if variables := proxies.environment(body.get("Env") or (), ctx.host):
        body["Env"] = variables
    if opts["secret"]:
        ctx.only_ketch("--secret", "would make the container without it")
    if opts["pull"] == "always":
        _pull(ctx, body["Image"], opts)
    with _cid_file(opts["cidfile"]) as write_id:
        container = _request(ctx, opts, body)
        write_id(container)
    return container


def _pull(ctx: Context, image: str, opts: Options) -> None:
    """Pull the image, with progress on standard error."""
    from ketch.cli.commands.images import registries
    from ketch.cli.image_names import split_tag

    name, tag = split_tag(image) if "@" not in image else (image, "")
    mode = "quiet" if opts["quiet"] else "auto"
    registries.pull(ctx, name, tag or ("" if "@" in name else "latest"), opts["platform"], mode, ctx.err)


@contextmanager
def _cid_file(path: str) -> Iterator[Callable[[str], None]]:
    """The file for the id, made before the container, so that it is not used twice; removed if still empty."""
    if not path:
        yield lambda _ident: None
        return
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except FileExistsError as e:
        raise InvalidArgument(
            f"container ID file found, make sure the other container isn't running or delete {path}"
        ) from e
    except OSError as e:
        raise InvalidArgument(
            f"failed to create the container ID file: open {path}: {(e.strerror or '').lower()}"
        ) from e
    with open(fd, "w", encoding="ascii") as f:
        try:
            yield f.write  # type: ignore[misc]
        except BaseException:
            os.unlink(path)
            raise


def _request(ctx: Context, opts: Options, body: ApiObject) -> str:
    query = {"name": opts["name"] or None, "platform": opts["platform"] or None}
    try:
        answer = ctx.client().request("POST", "/containers/create", query, body).json()
    except NotFound as e:
        if e.kind and not isinstance(e, ImageNotFound):
            raise
        image = body["Image"]
        if opts["pull"] == "never":
            if not isinstance(e, ImageNotFound) or isinstance(e, PlatformMismatch):
                raise
            raise ImageNotFound(f"No such image: {image}", hint="--pull never: nothing else is tried") from e
        if not opts["quiet"]:
            whole = image if "@" in image or ":" in image.rpartition("/")[2] else f"{image}:latest"
            ctx.warn(f"Unable to find image '{whole}' locally")
        try:
            _pull(ctx, image, opts)
        except (NotFound, Unavailable) as missing:
            missing.hint = (
                missing.hint or f"make it here with `ketch image bootstrap {image}`, or read it with `ketch load`"
            )
            raise
        answer = ctx.client().request("POST", "/containers/create", query, body).json()
    for warning in answer.get("Warnings") or ():
        ctx.warn(f"WARNING: {warning}")
    return str(answer["Id"])


def _run_attached(ctx: Context, opts: Options, container: str, wanted: list[str]) -> int:
    client = ctx.client()
    query = {"stream": True, **dict.fromkeys(wanted, True)}
    if opts["detach-keys"]:
        query["detachKeys"] = opts["detach-keys"]
    connection = client.hijack("POST", f"/containers/{container}/attach", query) if wanted else None
    waiting = wait_for(client, container, "removed" if opts["rm"] else "next-exit")
    account = _start(ctx, opts, container)
    if connection is not None:
        Session(
            connection,
            tty=opts["tty"],
            stdin="stdin" in wanted,
            resize=lambda rows, cols: client.request("POST", f"/containers/{container}/resize", {"h": rows, "w": cols}),
            forward=(lambda n: client.request("POST", f"/containers/{container}/kill", {"signal": str(n)}))
            if opts["sig-proxy"]
            else None,
        ).run()
        if opts["tty"] and still_runs(client, container):
            return 0  # detached
    code = exit_code(waiting)
    timing.show(ctx, account)
    return code


def wait_for(client: Client, container: str, condition: str) -> Response:
    """Register for the exit; the answer is read later (see `exit_code`)."""
    from ketch.client.http import Client

    return Client(client.host).request("POST", f"/containers/{container}/wait", {"condition": condition}, stream=True)


def exit_code(waiting: Response) -> int:
    """Wait for the container's exit code (KetchError with the daemon's reason)."""
    answer = waiting.json()
    if not answer:
        raise Unavailable(
            "the daemon went away before the container ended", hint="ask again with: ketch wait CONTAINER"
        )
    if error := (answer.get("Error") or {}).get("Message"):
        raise KetchError(error)
    return int(answer["StatusCode"])


def still_runs(client: Client, container: str) -> bool:
    """Whether the connection ended because the user detached."""
    try:
        state = client.request("GET", f"/containers/{container}/json").json()["State"]
    except KetchError:
        return False
    return bool(state["Running"])
