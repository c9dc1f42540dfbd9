"""Credentials as ``docker login`` keeps them: ``~/.docker/config.json`` and the helpers that it names.

    auths       {"HOST": {"auth": base64 of user:password, "identitytoken": …}}
    credsStore  a helper for everything: docker-credential-NAME get|store|erase, JSON on its standard streams
    credHelpers {"HOST": NAME}

What Docker has written Ketch reads, and the other way round; what is not understood in the file is kept.
"""

from __future__ import annotations

import base64

from ketch import programs
from ketch.client import docker_config
from ketch.errors import FailedPrecondition, InvalidArgument
from ketch.notation import documents

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.client.docker_config import DockerConfig

HUB = "https://index.docker.io/v1/"
_MISSING = "credentials not found in native keychain"
_TOKEN_USER = "<token>"  # a helper's word for: the secret is an identity token


def key(server: str) -> str:
    """The key of a server: its host, or for Docker Hub the address that Docker has always used."""
    host = server.partition("://")[2] if "://" in server else server
    host = host.partition("/")[0]
    return HUB if host in ("", "docker.io", "index.docker.io", "registry-1.docker.io") else host


def of_image(name: str) -> str:
    """The key of an image name's registry."""
    first, slash, _ = name.partition("/")
    named = slash and ("." in first or ":" in first or first == "localhost" or first.lower() != first)
    return key(first if named else "")


def load(server: str) -> dict[str, str]:
    """The credentials for a server (a key), as members of ``X-Registry-Auth``; empty without any."""
    config = docker_config.read()
    if helper := _helper(config, server):
        found = _call(helper, "get", server)
        if not found:
            return {}
        if found.get("Username") == _TOKEN_USER:
            return {"identitytoken": found.get("Secret", ""), "serveraddress": server}
        return {"username": found.get("Username", ""), "password": found.get("Secret", ""), "serveraddress": server}
    entry = _entry(config, server)
    result = {"serveraddress": server} if entry else {}
    if auth := entry.get("auth"):
        try:
            user, _, password = base64.b64decode(auth).decode().partition(":")
        except ValueError as e:
            raise InvalidArgument(f"read `{docker_config.path()}`: the credentials for {server} are damaged") from e
        result |= {"username": user, "password": password.rstrip("\0")}
    for name in ("username", "password", "identitytoken", "registrytoken"):
        if entry.get(name):
            result[name] = entry[name]
    return result


def header(server: str) -> dict[str, str]:
    """``X-Registry-Auth`` for a server (a key); always one, because old daemons want it."""
    text = documents.dumps(load(server)).encode()
    return {"X-Registry-Auth": base64.urlsafe_b64encode(text).decode("ascii")}


def known() -> dict[str, dict[str, str]]:
    """All credentials, by server (its key): for a build, whose images may be in any of them."""
    config = docker_config.read()
    servers = dict.fromkeys(map(key, [*(config.get("auths") or {}), *(config.get("credHelpers") or {})]))
    return {server: found for server in servers if (found := load(server))}


def store(server: str, username: str, password: str, identity: str = "") -> str:
    """Store credentials for a server (a key); returns the file's path or the helper's name."""
    config = docker_config.read()
    if helper := _helper(config, server):
        secret = {
            "ServerURL": server,
            "Username": _TOKEN_USER if identity else username,
            "Secret": identity or password,
        }
        _call(helper, "store", documents.dumps(secret))
        config.setdefault("auths", {})[server] = {}
        docker_config.write(config)
        return f"docker-credential-{helper}"
    entry = {"auth": base64.b64encode(f"{username}:{'' if identity else password}".encode()).decode("ascii")}
    if identity:
        entry["identitytoken"] = identity
    config.setdefault("auths", {})[server] = entry
    docker_config.write(config)
    return docker_config.path()


def erase(server: str) -> bool:
    """Delete a server's credentials (a key); False when there are none."""
    config = docker_config.read()
    known = config.get("auths", {}).pop(server, None) is not None
    if helper := _helper(config, server):
        known = bool(_call(helper, "get", server)) or known
        _call(helper, "erase", server)
    if known:
        docker_config.write(config)
    return known


def _helper(config: DockerConfig, server: str) -> str:
    return str((config.get("credHelpers") or {}).get(server) or config.get("credsStore") or "")


def _entry(config: DockerConfig, server: str) -> dict[str, str]:
    """The entry of a server, under any of the names that Docker uses."""
    for name, entry in (config.get("auths") or {}).items():
        if (name == server or key(name) == server) and isinstance(entry, dict):
            return entry
    return {}


def _call(helper: str, action: str, text: str) -> dict[str, str]:
    """Run a helper (FailedPrecondition); empty when it has no credentials for the server."""
    import subprocess

    name = f"docker-credential-{helper}"
    program = programs.find(name)
    if program is None:
        raise FailedPrecondition(
            f"run `{name} {action}`: no such program in an absolute directory of $PATH",
            hint=f"it is named in {docker_config.path()}",
        )
    try:
        done = subprocess.run([program, action], input=text.encode(), capture_output=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as e:
        raise FailedPrecondition(f"run `{program} {action}`: {e}", hint=f"it is named in {docker_config.path()}") from e
    output = (done.stdout or done.stderr).decode(errors="replace").strip()
    if done.returncode:
        if _MISSING in output or action == "erase":
            return {}
        raise FailedPrecondition(f"error getting credentials - err: exit status {done.returncode}, out: `{output}`")
    if action != "get":
        return {}
    try:
        found = documents.loads(done.stdout)
    except ValueError as e:
        raise FailedPrecondition(f"run `{program} get`: its answer is not JSON") from e
    return found if isinstance(found, dict) else {}
