"""``pull``, ``push``, ``login``, ``logout`` and ``search``: commands that talk to registries."""

from __future__ import annotations

import sys

from ketch.cli import credentials
from ketch.cli.gotemplate.strings import ellipsis
from ketch.cli.image_names import platform_json, split_tag
from ketch.cli.options import progress_flags
from ketch.cli.options.flags import FORMAT, FlagSet
from ketch.cli.output import progress
from ketch.cli.output.listing import Listing, filters
from ketch.client import docker_config
from ketch.errors import InvalidArgument, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TextIO

    from ketch.cli.context import Context

_SEARCH = [("NAME", "Name"), ("DESCRIPTION", "Description"), ("STARS", "StarCount"), ("OFFICIAL", "IsOfficial")]


def cmd_pull(args: list[str], ctx: Context) -> int:
    """Pull an image from its registry."""
    spec = FlagSet("pull", "ketch pull [OPTIONS] NAME[:TAG|@DIGEST]", "Download an image from a registry")
    progress_flags.add_flags(spec).bool("all-tags", "a", "all tags of the repository")
    spec.string("platform", "", "for which platform").bool("disable-content-trust", "", "no effect", default=True)
    opts, rest = spec.parse(args)
    spec.arguments(rest, 1, 1)
    name, tag = split_tag(rest[0]) if "@" not in rest[0] else (rest[0], "")
    if not name:
        raise InvalidArgument("invalid reference format")
    mode = progress_flags.chosen(opts)
    if opts["all-tags"] and (tag or "@" in name):
        raise InvalidArgument("tag can't be used with --all-tags/-a")
    if not opts["all-tags"] and not tag and "@" not in name:
        tag = "latest"
        if mode not in ("quiet", "json"):
            ctx.print("Using default tag: latest")
    pull(ctx, name, tag, opts["platform"], mode)
    if mode != "json":
        ctx.print(canonical(f"{name}:{tag}" if tag else name))
    return 0


def pull(ctx: Context, name: str, tag: str, platform: str, mode: str, to: TextIO | None = None) -> None:
    """Have the daemon pull an image, and show the progress."""
    query = {"fromImage": name, "tag": tag or None, "platform": platform or None}
    header = credentials.header(credentials.of_image(name))
    response = ctx.client().request("POST", "/images/create", query, stream=True, headers=header)
    progress.Progress(ctx, mode, to).run(response.stream_lines())


def canonical(name: str) -> str:
    """A name in full, as the last line of a pull has it."""
    first, slash, _ = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return name
    return f"docker.io/{name}" if slash else f"docker.io/library/{name}"


def cmd_push(args: list[str], ctx: Context) -> int:
    """Push an image to its registry."""
    spec = FlagSet("push", "ketch push [OPTIONS] NAME[:TAG]", "Upload an image to a registry")
    progress_flags.add_flags(spec).bool("all-tags", "a", "all tags of the repository that are here")
    spec.string("platform", "", "of several, this platform alone")
    spec.bool("disable-content-trust", "", "no effect", default=True)
    opts, rest = spec.parse(args)
    spec.arguments(rest, 1, 1)
    name, tag = split_tag(rest[0])
    if not name:
        raise InvalidArgument("invalid reference format")
    mode = progress_flags.chosen(opts)
    if opts["all-tags"] and tag:
        raise InvalidArgument("tag can't be used with --all-tags/-a")
    if not opts["all-tags"] and not tag:
        tag = "latest"
        if mode not in ("quiet", "json"):
            ctx.print("Using default tag: latest")
    query = {"tag": tag or None, "platform": platform_json(opts["platform"]) if opts["platform"] else None}
    header = credentials.header(credentials.of_image(name))
    response = ctx.client().request("POST", f"/images/{name}/push", query, stream=True, headers=header)
    progress.Progress(ctx, mode).run(response.stream_lines())
    if mode == "quiet":
        ctx.print(canonical(f"{name}:{tag}" if tag else name))
    return 0


def cmd_login(args: list[str], ctx: Context) -> int:
    """Log in to a registry, and store the credentials."""
    spec = FlagSet("login", "ketch login [OPTIONS] [SERVER]", "Authenticate to a registry")
    spec.string("username", "u", "the name to log in with").string(
        "password", "p", "password (seen by all users of this machine)"
    )
    spec.bool("password-stdin", "", "read the password from standard input")
    opts, rest = spec.parse(args)
    spec.arguments(rest, 0, 1)
    server = credentials.key(rest[0] if rest else "")
    username, password = opts["username"], _password(opts, ctx)
    if not username and not password:
        known = credentials.load(server)
        if known.get("username") and known.get("password"):
            ctx.print("Authenticating with existing credentials...")
            return _login(ctx, server, known["username"], known["password"])
    if not username or not password:
        if not sys.stdin.isatty():
            raise InvalidArgument(
                "cannot perform an interactive login from a non TTY device", hint="give -u and --password-stdin"
            )
        import getpass

        username = username or input("Username: ").strip()
        password = password or getpass.getpass("Password: ")
    return _login(ctx, server, username, password)


def _password(opts: Any, ctx: Context) -> str:
    if opts["password"]:
        if opts["password-stdin"]:
            raise InvalidArgument("--password and --password-stdin are mutually exclusive")
        ctx.warn("WARNING! Using --password via the CLI is insecure. Use --password-stdin.")
        return str(opts["password"])
    if not opts["password-stdin"]:
        return ""
    if not opts["username"]:
        raise InvalidArgument("must provide --username with --password-stdin")
    return sys.stdin.read().rstrip("\r\n")


def _login(ctx: Context, server: str, username: str, password: str) -> int:
    body = {"username": username, "password": password, "serveraddress": server}
    answer = ctx.client().request("POST", "/auth", body=body).json() or {}
    where = credentials.store(server, username, password, answer.get("IdentityToken") or "")
    if where == docker_config.path():
        ctx.warn(f"WARNING! Your credentials are stored unencrypted in '{where}'.")
    ctx.print(answer.get("Status") or "Login Succeeded")
    return 0


def cmd_logout(args: list[str], ctx: Context) -> int:
    """Delete the stored credentials for a registry."""
    spec = FlagSet("logout", "ketch logout [SERVER]", "Log out from a registry")
    _, rest = spec.parse(args)
    spec.arguments(rest, 0, 1)
    server = credentials.key(rest[0] if rest else "")
    if not credentials.erase(server):
        ctx.print(f"Not logged in to {server}")
        return 0
    ctx.print(f"Removing login credentials for {server}")
    return 0


def cmd_search(args: list[str], ctx: Context) -> int:
    """Search a registry for images."""
    spec = FlagSet("search", "ketch search [OPTIONS] TERM", "Search Docker Hub (or, with HOST/TERM, a registry)")
    spec.list("filter", "f", "which ones").string("format", "", FORMAT).int("limit", "", "how many", default=0)
    spec.bool("no-trunc", "", "whole descriptions")
    opts, rest = spec.parse(args)
    spec.arguments(rest, 1, 1)
    query = {"term": rest[0], "limit": opts["limit"] or 25, "filters": filters(opts["filter"])}
    header = credentials.header(credentials.of_image(rest[0]))
    found = ctx.client().request("GET", "/images/search", query, headers=header).json()
    if found is None:
        raise NotFound(f"nothing found for {rest[0]}")
    rows = [
        {
            "Name": item["name"],
            "StarCount": str(item["star_count"]),
            "Description": (item["description"] or "").replace("\n", " ")
            if opts["no-trunc"]
            else ellipsis((item["description"] or "").replace("\n", " "), 45),
            "IsOfficial": "[OK]" if item["is_official"] else "",
            "IsAutomated": "[OK]" if item["is_automated"] else "",
        }
        for item in sorted(found, key=lambda item: -item["star_count"])
    ]
    ctx.show(Listing(_SEARCH, {"IsAutomated": "AUTOMATED"}).text(rows, opts["format"]))
    return 0
