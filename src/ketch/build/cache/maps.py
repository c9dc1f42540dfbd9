"""Cache maps of operations, equal to BuildKit's, so that caches can be exchanged with it.

The digests are of BuildKit's own structures as JSON (solver/llbsolver/ops, source/…): each function gives that of one
kind of operation.  Of inputs whose content counts, the content's digest is computed when the solver asks for it.
"""

from __future__ import annotations

import functools
import posixpath
from typing import TYPE_CHECKING, Any, NamedTuple

from ketch.build.cache import gojson
from ketch.build.cache.selections import Selection, nested_dropped
from ketch.build.llb import ops_pb2 as pb
from ketch.build.operation import CacheMap, InputKey
from ketch.errors import InvalidArgument
from ketch.notation import gopaths
from ketch.oci import digest
from ketch.oci import platform as platforms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.build.cache.contents import ContentDigests
    from ketch.build.operation import Contents

_NOTHING = -1
_UNMOUNTED = (pb.SECRET, pb.SSH, pb.TMPFS)


# -- commands ------------------------------------------------------------------------------------


def exec_map(op: pb.Op, contents: ContentDigests) -> CacheMap:
    """The map of a command; a mount that it cannot change counts by its content (InvalidArgument)."""
    platform = op.platform if op.HasField("platform") else _machines()
    value = {"Type": "buildkit.exec.v0", "Exec": _command(op.exec), "OS": platform.OS, "Arch": platform.Architecture}
    optional = {"Variant": platform.Variant, "OSVersion": platform.OSVersion, "OSFeatures": list(platform.OSFeatures)}
    value |= {name: one for name, one in optional.items() if one}
    return CacheMap(_of(value), _mount_keys(op, contents))


def _machines() -> pb.Platform:
    """The platform of this machine, which an operation has that names none."""
    own = platforms.canonical(platforms.host())
    return pb.Platform(OS=own.os, Architecture=own.architecture, Variant=own.variant or "")


def _command(written: pb.ExecOp) -> pb.ExecOp:
    """A command without what its result does not depend on."""
    command = pb.ExecOp()
    command.CopyFrom(written)
    command.meta.ClearField("proxy_env")
    command.ClearField("network_name")  # as with Docker's old builder: it is found in the cache from any network
    for host in command.meta.extraHosts:
        host.IP = ""
    for mount in command.mounts:
        mount.selector = ""
        if mount.HasField("cacheOpt") and not _is_default_cache(mount):
            mount.cacheOpt.Clear()
    if len(command.mounts) == 1 and _is_plain_root(command.mounts[0]):
        del command.mounts[:]  # so older versions of BuildKit had it of all commands
    return command


def _is_default_cache(mount: pb.Mount) -> bool:
    """Whether a cache is the one that a Dockerfile names by the place alone, perhaps behind a namespace."""
    cache = mount.cacheOpt
    _, slash, behind = cache.ID.partition("/")
    return cache.sharing == pb.SHARED and (mount.dest == cache.ID or bool(slash and behind == mount.dest))


def _is_plain_root(mount: pb.Mount) -> bool:
    options = ("cacheOpt", "SSHOpt", "secretOpt")
    return (
        mount.dest == "/"
        and not mount.readonly
        and mount.mountType == pb.BIND
        and not mount.resultID
        and not any(mount.HasField(option) for option in options)
    )


def _mount_keys(op: pb.Op, contents: ContentDigests) -> list[InputKey]:
    paths: list[list[str]] = [[] for _ in op.inputs]
    by_content = [False] * len(op.inputs)
    for mount in op.exec.mounts:
        if mount.mountType in _UNMOUNTED or mount.input == _NOTHING:
            continue
        path = _absolute(mount.selector)
        paths[mount.input].append(path)
        by_content[mount.input] = _counts_by_content(mount, path)
    return [
        InputKey(_selector(chosen), _contents(contents, _followed(chosen)) if content else None)
        for chosen, content in zip(paths, by_content, strict=True)
    ]


def _counts_by_content(mount: pb.Mount, path: str) -> bool:
    """Whether a mount's input may be another one with the same content.

    It may not when only a part is mounted and changed: the result has the rest of the input, too, which was not
    compared.
    """
    safe = mount.output == _NOTHING or mount.readonly or path == "/"
    match mount.contentCache:
        case pb.OFF:
            return False
        case pb.ON:
            if not safe:
                raise InvalidArgument(f"invalid mount cache content of {mount.dest}: what it leaves is kept")
            return True
        case _:
            return safe and mount.dest != "/"


def _followed(paths: Sequence[str]) -> list[Selection]:
    """The parts that a command sees of one input; none of them: all."""
    if "/" in paths:
        return []
    return [Selection(path, follow=True) for path in nested_dropped(paths)]


# -- files ---------------------------------------------------------------------------------------


def file_map(op: pb.Op, contents: ContentDigests) -> CacheMap:
    """The map of file actions: what is copied counts by its content, what is written to by its own key."""
    written: set[int] = set()
    selections: dict[int, list[Selection]] = {}
    actions = []
    for one in op.file.actions:
        written.add(one.input)
        actions.append(gojson.encoded(_action(one, len(op.inputs), selections)))
    value: dict[str, Any] = {"Type": "buildkit.file.v0", "Actions": actions}
    indexes = [[one.input, one.secondaryInput, one.output] for one in op.file.actions]
    if not _are_default(indexes):
        value["indexes"] = indexes
    keys = [InputKey() for _ in op.inputs]
    for number, chosen in selections.items():
        if not 0 <= number < len(keys):
            raise InvalidArgument(f"invalid input index {number} in file op with {len(keys)} inputs")
        if number not in written:
            selector = _selector(sorted((one.path for one in chosen), reverse=True))
            keys[number] = InputKey(selector, _contents(contents, without_nested(chosen)))
    return CacheMap(_of(value), keys)


def _action(written: pb.FileAction, inputs: int, selections: dict[int, list[Selection]]) -> Any:
    """An action without where its files come from, which is added to the selections of that input."""
    kind = written.WhichOneof("action")
    if kind is None:
        raise InvalidArgument("invalid nil action of file op")
    if kind != "copy":
        action = getattr(written, kind)
        if kind in ("mkdir", "mkfile"):
            _select_names(action.owner, selections)
        return action
    copy = pb.FileActionCopy()
    copy.CopyFrom(written.copy)
    _select_names(copy.owner, selections)
    if 0 <= written.secondaryInput < inputs:
        chosen = Selection(
            copy.src,
            wildcard=copy.allowWildcard and gopaths.has_wildcards(copy.src),
            follow=copy.followSymlink,
            include=tuple(copy.include_patterns),
            exclude=tuple(copy.exclude_patterns),
        )
        selections.setdefault(written.secondaryInput, []).append(chosen)
        copy.src = _base(copy.src)
    return copy


def _select_names(owner: pb.ChownOpt, selections: dict[int, list[Selection]]) -> None:
    """An owner's names are looked up in the files of an input, which count, then."""
    for user, path in ((owner.user, "/etc/passwd"), (owner.group, "/etc/group")):
        if user.WhichOneof("user") == "byName" and user.byName.input >= 0:
            selections.setdefault(user.byName.input, []).append(Selection(path, follow=True))


def _are_default(indexes: Sequence[Sequence[int]]) -> bool:
    """Whether actions follow each other as most do; then older versions of BuildKit did not count their inputs."""
    last = len(indexes) - 1
    return bool(indexes) and all(
        first == (0 if number == 0 else len(indexes) + number - 1)
        and second in (_NOTHING, 1)
        and output == (0 if number == last else _NOTHING)
        for number, (first, second, output) in enumerate(indexes)
    )


def without_nested(selections: Sequence[Selection]) -> list[Selection]:
    """Selections without those within others, in order of their paths."""
    plain = [one for one in selections if not one.filtered]
    found = [Selection(path) for path in nested_dropped([one.path for one in plain if not one.follow])]
    found += [Selection(path, follow=True) for path in nested_dropped([one.path for one in plain if one.follow])]
    found += [one for one in selections if one.filtered]
    return sorted(found, key=lambda one: one.path.encode())


# -- merges, differences, builds -----------------------------------------------------------------


def merge_map(op: pb.Op) -> CacheMap:
    """The map of a merge."""
    return CacheMap(_of({"Type": "buildkit.merge.v0", "Merge": op.merge}), [InputKey() for _ in op.merge.inputs])


def diff_map(op: pb.Op) -> CacheMap:
    """The map of a difference."""
    sides = [one for one in (op.diff.lower.input, op.diff.upper.input) if one != _NOTHING]
    return CacheMap(_of({"Type": "buildkit.diff.v0", "Diff": op.diff}), [InputKey() for _ in sides])


def build_map(op: pb.Op) -> CacheMap:
    """The map of a build within a build."""
    return CacheMap(_of({"Type": "buildkit.build.v0", "Exec": op.build}), [InputKey() for _ in op.inputs])


# -- sources -------------------------------------------------------------------------------------


def image_maps(manifest: str, platform: pb.Platform, diff_ids: Sequence[str], layer_limit: int = 0) -> list[CacheMap]:
    """The maps of an image: by its manifest, and by its layers, which other images may have, too."""
    value: dict[str, Any] = {"Digest": manifest, "OS": platform.OS, "Arch": platform.Architecture}
    optional = {"Variant": platform.Variant, "OSVersion": platform.OSVersion, "OSFeatures": list(platform.OSFeatures)}
    value |= {name: one for name, one in {**optional, "Limit": layer_limit}.items() if one}
    maps = [_source(_of(value))]
    if diff_ids:
        maps.append(_source(digest.chain_ids(list(diff_ids[: layer_limit or None]))[-1]))
    return maps


class LocalPatterns(NamedTuple):
    """Patterns of what is taken of a client's directory; None where the source does not say it at all."""

    include: Sequence[str] | None = None
    exclude: Sequence[str] | None = None
    follow: Sequence[str] | None = None


def local_map(name: str, session: str, patterns: LocalPatterns) -> CacheMap:
    """The map of a client's directory, which nothing of another session is equal to: its digest is ``random:…``."""
    value = {
        "SessionID": session,
        "IncludePatterns": patterns.include,
        "ExcludePatterns": patterns.exclude,
        "FollowPaths": patterns.follow,
    }
    found = _source(f"session:{name}:{_of(value)}")
    return found._replace(digest=f"random:{found.digest.partition(':')[2]}")


class Checkout(NamedTuple):
    """A commit of a repository, or a directory of it; with ``keep`` the repository is a part of it, by its ``ref``."""

    commit: str
    subdirectory: str = ""
    keep: bool = False
    ref: str = ""
    submodules: bool = True


def git_map(checkout: Checkout) -> CacheMap:
    """The map of a commit."""
    key = checkout.commit
    if checkout.keep:
        key += f".git#{checkout.ref}" if checkout.ref else ".git"
    if checkout.subdirectory:
        key += f":{checkout.subdirectory}"
    return _source(key if checkout.submodules else f"{key}(skip-submodules)")


class Download(NamedTuple):
    """A file from a URL: its name, the digest of its content, its mode and owner as the source asks for them.

    ``modified`` is the time that its server says, as HTTP writes it; empty where the source names the digest itself.
    """

    filename: str
    checksum: str
    perm: int = 0
    uid: int = 0
    gid: int = 0
    modified: str = ""
    auth_header_secret: str = ""


def http_map(file: Download) -> CacheMap:
    """The map of a file from a URL."""
    value = {
        "Filename": file.filename,
        "Perm": file.perm,
        "UID": file.uid,
        "GID": file.gid,
        "Checksum": file.checksum,
    }
    if file.modified:
        value["LastModTime"] = file.modified
    if file.auth_header_secret:
        value["AuthHeaderSecret"] = file.auth_header_secret
    return _source(_of(value))


def _source(key: str) -> CacheMap:
    return CacheMap(digest.of(f"buildkit.source.v0:{key}".encode()))


# -- what they share -----------------------------------------------------------------------------


def _of(value: Any) -> str:
    return digest.of(gojson.encoded(value))


def _selector(paths: Sequence[str]) -> str:
    return digest.of(b"\0".join(path.encode() for path in paths)) if paths else ""


def _contents(contents: ContentDigests, selections: Sequence[Selection]) -> Contents:
    return functools.partial(contents.digest, selections=tuple(selections))


def _absolute(path: str) -> str:
    cleaned = posixpath.normpath(f"/{path}")
    return cleaned[1:] if cleaned.startswith("//") else cleaned


def _base(path: str) -> str:
    """The last element of a path, as Go's path.Base."""
    if not path:
        return "."
    return path.rstrip("/").rpartition("/")[2] or "/"
