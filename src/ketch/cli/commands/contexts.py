"""``context``: names for daemons' addresses, shared with the docker client."""

from __future__ import annotations

import io
import os
import sys

from ketch.cli.each import each
from ketch.cli.options.flags import FORMAT, FlagSet
from ketch.cli.output.listing import Listing, as_json
from ketch.client import contexts
from ketch.errors import InvalidArgument, KetchError
from ketch.notation import documents

TYPE_CHECKING = False
if TYPE_CHECKING:
    import tarfile
    from typing import Any

    from ketch.cli.context import Context
    from ketch.cli.output.listing import Row

_COLUMNS = [
    ("NAME", "Shown"),
    ("DESCRIPTION", "Description"),
    ("DOCKER ENDPOINT", "DockerEndpoint"),
    ("ERROR", "Error"),
]
_DEFAULT_IS = "Current DOCKER_HOST based configuration"
_IN_MEMORY = "<IN MEMORY>"
_ENDPOINT_KEYS = ("host", "ca", "cert", "key", "skip-tls-verify", "from")
_META, _TLS = "meta.json", "tls/docker/"
_MOST = 10 << 20  # bytes of an archive: docker's own limit


def cmd_ls(args: list[str], ctx: Context) -> int:
    """List contexts, the one in use with a star."""
    spec = FlagSet("context ls", "ketch context ls [OPTIONS]", "List contexts")
    spec.string("format", "", FORMAT).bool("quiet", "q", "names only")
    opts, rest = spec.parse(args)
    spec.arguments(rest, 0, 0)
    rows = [_row(name, ctx) for name in sorted([contexts.DEFAULT, *contexts.names()])]
    if opts["quiet"]:
        ctx.show("".join(f"{row['Name']}\n" for row in rows))
        return 0
    if opts["format"] in ("json", "{{json .}}"):
        ctx.show("".join(f"{as_json({k: v for k, v in row.items() if k != 'Shown'})}\n" for row in rows))
        return 0
    ctx.show(Listing(_COLUMNS).text(rows, opts["format"]))
    if ctx.host_is_given:
        _warn_overridden(ctx, "a context")
    return 0


def _row(name: str, ctx: Context) -> Row:
    used = name == ctx.context
    row = {"Name": name, "Current": used, "Error": "", "Shown": f"{name} *" if used else name}
    if name == contexts.DEFAULT:
        return {**row, "Description": _DEFAULT_IS, "DockerEndpoint": str(ctx.default_host())}
    try:
        meta = contexts.read(name)
    except KetchError as e:
        return {**row, "Description": "", "DockerEndpoint": "", "Error": e.message}
    description = str(meta["Metadata"].get("Description") or "")
    return {**row, "Description": description, "DockerEndpoint": str(contexts.endpoint(meta).get("Host") or "")}


def _warn_overridden(ctx: Context, what: str) -> None:
    ctx.warn(
        f"Warning: {ctx.host_is_given} overrides the active context. To use {what}, either set the global --context "
        f"flag, or unset {ctx.host_is_given}."
    )


def cmd_use(args: list[str], ctx: Context) -> int:
    """Make a context the one in use."""
    spec = FlagSet("context use", "ketch context use CONTEXT", "Set the current context, for docker as well")
    rest = spec.parse(args)[1]
    spec.arguments(rest, 1, 1)
    contexts.use(rest[0])
    ctx.print(rest[0])
    ctx.out.flush()
    ctx.warn(f'Current context is now "{rest[0]}"')
    if rest[0] != contexts.DEFAULT and ctx.host_is_given:
        _warn_overridden(ctx, f'"{rest[0]}"')
    return 0


def cmd_show(args: list[str], ctx: Context) -> int:
    """Print the name of the context in use."""
    spec = FlagSet("context show", "ketch context show", "Print the name of the current context")
    spec.arguments(spec.parse(args)[1], 0, 0)
    ctx.print(ctx.context)
    return 0


def cmd_create(args: list[str], ctx: Context) -> int:
    """Create a context."""
    spec = FlagSet("context create", "ketch context create [OPTIONS] CONTEXT", "Create a context")
    spec.string("from", "", "copy another context")
    opts, rest = _with_endpoint(spec).parse(args)
    spec.arguments(rest, 1, 1)
    contexts.check_name(rest[0])
    origin = opts["from"]
    given = _endpoint(opts["docker"])
    if not given:
        origin = origin or contexts.DEFAULT
        given = {"from": origin}
    host, files, skip = _resolved(given, ctx)
    description = opts["description"] or (_description(origin, ctx) if origin else "")
    contexts.write(rest[0], host, description, files, skip=skip, new=True)
    return _told(ctx, rest[0], f'Successfully created context "{rest[0]}"')


def _with_endpoint(spec: FlagSet) -> FlagSet:
    spec.string("description", "", "what it is")
    return spec.string(
        "docker", "", "the daemon: host=URL[,ca=FILE,cert=FILE,key=FILE,skip-tls-verify=true], from=NAME"
    )


def _told(ctx: Context, name: str, text: str) -> int:
    ctx.print(name)
    ctx.out.flush()
    ctx.warn(text)
    return 0


def _endpoint(text: str) -> dict[str, str]:
    given: dict[str, str] = {}
    for part in text.split(",") if text else ():
        key, equals, value = part.partition("=")
        if key not in _ENDPOINT_KEYS or not equals:
            raise InvalidArgument(
                f"--docker: `{part}`: unrecognized config key", hint=f"use {', '.join(_ENDPOINT_KEYS)}"
            )
        given[key] = value
    return given


def _resolved(given: dict[str, str], ctx: Context) -> tuple[str, dict[str, bytes], bool]:
    """The host, the files of TLS, and whether the server's certificate is not verified."""
    if "from" in given:
        if given["from"] == contexts.DEFAULT:
            return str(ctx.default_host()), {}, False
        found = contexts.endpoint(contexts.read(given["from"]))
        return str(found.get("Host") or ""), contexts.files(given["from"]), bool(found.get("SkipTLSVerify"))
    if not given.get("host"):
        raise InvalidArgument(
            "--docker: it names no host", hint="use host=unix://PATH, tcp://ADDRESS or ssh://USER@HOST"
        )
    files = {}
    paths = [os.path.expanduser(given.get(key, "")) for key in ("ca", "cert", "key")]
    for path, name in zip(paths, contexts.FILES, strict=True):
        if path:
            try:
                with open(path, "rb") as f:
                    files[name] = f.read()
            except OSError as e:
                raise InvalidArgument(f"--docker: open `{path}`: {e.strerror}") from e
    if files:
        from ketch.client import addresses, tls_relay

        tls_relay.client_context(addresses.Tls(*paths))  # that they are what they should be is seen here
    return given["host"], files, given.get("skip-tls-verify", "").lower() in ("1", "true")


def _description(name: str, ctx: Context) -> str:
    return str(_row(name, ctx)["Description"])


def cmd_update(args: list[str], ctx: Context) -> int:
    """Change a context."""
    spec = FlagSet("context update", "ketch context update [OPTIONS] CONTEXT", "Update a context")
    opts, rest = _with_endpoint(spec).parse(args)
    spec.arguments(rest, 1, 1)
    name = rest[0]
    old = contexts.endpoint(contexts.read(name))
    host, files, skip = str(old.get("Host") or ""), None, bool(old.get("SkipTLSVerify"))
    if given := _endpoint(opts["docker"]):
        host, files, skip = _resolved(given, ctx)
    description = opts["description"] if "description" in opts.given else _description(name, ctx)
    contexts.write(name, host, description, files, skip=skip, new=False)
    return _told(ctx, name, f'Successfully updated context "{name}"')


def cmd_rm(args: list[str], ctx: Context) -> int:
    """Remove contexts."""
    spec = FlagSet("context rm", "ketch context rm [OPTIONS] CONTEXT [CONTEXT...]", "Remove one or more contexts")
    opts, rest = spec.bool("force", "f", "also the one in use").parse(args)
    spec.arguments(rest, 1)
    return each(ctx, rest, lambda name: contexts.remove(name, force=opts["force"]))


def cmd_inspect(args: list[str], ctx: Context) -> int:
    """Show all that is known of contexts; without a name, of the one in use."""
    from ketch.cli.inspection import show

    spec = FlagSet("context inspect", "ketch context inspect [OPTIONS] [CONTEXT...]", "Show all of contexts")
    opts, rest = spec.string("format", "f", FORMAT).parse(args)
    return show(ctx, rest or [ctx.context], lambda name: _inspected(name, ctx), opts["format"])


def _inspected(name: str, ctx: Context) -> dict[str, Any]:
    if name == contexts.DEFAULT:
        meta: dict[str, Any] = {"Name": name, "Metadata": {}}
        meta["Endpoints"] = {"docker": {"Host": str(ctx.default_host()), "SkipTLSVerify": False}}
        places = {"MetadataPath": _IN_MEMORY, "TLSPath": _IN_MEMORY}
        return {**meta, "TLSMaterial": {}, "Storage": places}
    meta = contexts.read(name)
    files = list(contexts.files(name))
    places = {"MetadataPath": contexts.meta_directory(name), "TLSPath": contexts.tls_directory(name)}
    return {**meta, "TLSMaterial": {"docker": files} if files else {}, "Storage": places}


def cmd_export(args: list[str], ctx: Context) -> int:
    """Write a context as a tar archive, with its certificates and keys."""
    import tarfile

    usage = "ketch context export CONTEXT [FILE|-]"
    spec = FlagSet("context export", usage, "Write a context, with its keys, to a tar archive or standard output")
    rest = spec.parse(args)[1]
    spec.arguments(rest, 1, 2)
    name = rest[0]
    path = rest[1] if len(rest) > 1 else f"{name}.dockercontext"
    members = {_META: documents.dumps(contexts.read(name), spaces=False).encode()}
    members.update({_TLS + file: data for file, data in contexts.files(name).items()})
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for member, data in members.items():
            info = tarfile.TarInfo(member)
            info.size, info.mode = len(data), 0o600
            tar.addfile(info, io.BytesIO(data))
    if path == "-":
        if sys.stdout.isatty():
            raise InvalidArgument("cowardly refusing to export to a terminal, specify a file path")
        sys.stdout.buffer.write(packed.getvalue())
        return 0
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as f:
            f.write(packed.getvalue())
    except OSError as e:
        raise InvalidArgument(f"write `{path}`: {e.strerror}") from e
    ctx.warn(f'Written file "{path}"')
    return 0


def cmd_import(args: list[str], ctx: Context) -> int:
    """Make a context of an archive that ``export`` wrote."""
    import tarfile

    spec = FlagSet("context import", "ketch context import CONTEXT FILE|-", "Import a context from a tar archive")
    rest = spec.parse(args)[1]
    spec.arguments(rest, 2, 2)
    contexts.check_name(rest[0])
    from ketch.cli.files import chunks

    data = b""
    for chunk in chunks(rest[1]):
        data += chunk
        if len(data) > _MOST:
            raise InvalidArgument(f"import `{rest[1]}`: more than {_MOST >> 20} MiB are no context")
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:  # not compressed: then it is as large as `data`
            members = _members(tar)
        meta = contexts.parsed(members.pop(_META))
        host, skip = contexts.endpoint(meta).get("Host"), contexts.endpoint(meta).get("SkipTLSVerify")
        description = str(meta["Metadata"].get("Description") or "")
    except (tarfile.TarError, ValueError, KeyError) as e:
        raise InvalidArgument(f"import `{rest[1]}`: not the archive of a context") from e
    if not isinstance(host, str):
        raise InvalidArgument(f"import `{rest[1]}`: its context names no daemon")
    contexts.write(rest[0], host, description, members, skip=bool(skip), new=True)
    return _told(ctx, rest[0], f'Successfully imported context "{rest[0]}"')


def _members(tar: tarfile.TarFile) -> dict[str, bytes]:
    """The members that a context has, by their names without directories; others do not count."""
    found = {}
    for info in tar:
        name = info.name.removeprefix("./")
        kept = name if name == _META else name.removeprefix(_TLS)
        if info.isfile() and (kept == _META or (name.startswith(_TLS) and kept in contexts.FILES)):
            content = tar.extractfile(info)
            found[kept] = content.read() if content else b""
    return found
