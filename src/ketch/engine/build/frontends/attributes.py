"""Attributes of the front end `dockerfile.v0`, as BuildKit's clients give them: texts by name."""

from __future__ import annotations

import csv
import ipaddress
import re
from typing import TYPE_CHECKING

import msgspec

from ketch.build.llb import ops_pb2 as pb
from ketch.engine.model.building.builds import CachePlace
from ketch.errors import InvalidArgument
from ketch.notation import booleans, digits
from ketch.oci import platform as platforms

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ketch.oci.manifest import Platform

_ARGUMENT, _LABEL, _CONTEXT = "build-arg:", "label:", "context:"
_NETWORKS = {"": pb.UNSET, "none": pb.NONE, "host": pb.HOST, "sandbox": pb.UNSET}
_MODES = {"": "", "default": "default", "pull": "pull", "local": "local"}
_ULIMIT = re.compile(r"(?P<name>[a-z]+)=(?P<soft>-?[0-9]{1,18})(?::(?P<hard>-?[0-9]{1,18}))?", re.ASCII)
_REMOVED = {
    "override-copy-image": 'support for "override-copy-image" was removed in BuildKit 0.11',
    "build-arg:BUILDKIT_DISABLE_FILEOP": (
        'support for "BUILDKIT_DISABLE_FILEOP" build-arg was removed in BuildKit 0.11'
    ),
}


class _CacheEntry(msgspec.Struct):
    """An entry of ``cache-imports``; Go writes the names as its structs have them."""

    type: str = msgspec.field(name="Type", default="")
    attrs: dict[str, str] = msgspec.field(name="Attrs", default_factory=dict)


class FrontendAttributes:
    """The attributes of one build; what they mean is read when it is asked for (InvalidArgument)."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self._texts = texts

    def text(self, name: str, default: str = "") -> str:
        """An attribute as it is."""
        return self._texts.get(name) or default

    def given(self, name: str) -> str | None:
        """An attribute as it is; None: it is not there."""
        return self._texts.get(name)

    def flag(self, name: str, *, default: bool = False) -> bool:
        """A truth value; what is none counts as the default."""
        try:
            return booleans.strict(self._texts.get(name, ""))
        except booleans.NotABooleanError:
            return default

    def refuse_removed(self) -> None:
        """Refuse what no front end of today has any more."""
        for name, message in _REMOVED.items():
            if self.text(name) and (not name.startswith(_ARGUMENT) or self.flag(name)):
                raise InvalidArgument(message)

    # -- what a Dockerfile sees --------------------------------------------------------------------

    def args(self) -> dict[str, str]:
        """The build arguments."""
        return self._behind(_ARGUMENT)

    def labels(self) -> dict[str, str]:
        """The labels of the image."""
        return self._behind(_LABEL)

    def contexts(self) -> dict[str, str]:
        """The named contexts, each as its source is written."""
        return self._behind(_CONTEXT)

    def _behind(self, prefix: str) -> dict[str, str]:
        return {name.removeprefix(prefix): text for name, text in self._texts.items() if name.startswith(prefix)}

    def platforms(self) -> list[Platform]:
        """The platforms that are built for, each once; none: the machine's."""
        found: list[Platform] = []
        for text in self.text("platform").split(",") if self.text("platform") else ():
            try:
                one = platforms.canonical(platforms.named(text.strip()))
            except InvalidArgument as e:
                raise InvalidArgument(f"failed to parse target platform {text}: {e.message}", hint=e.hint) from e
            if one not in found:
                found.append(one)
        return found

    def many_platforms(self, count: int) -> bool:
        """Whether the result is one of several platforms, for which ``count`` are asked."""
        text = self.text("build-arg:BUILDKIT_MULTI_PLATFORM") or self.text("multi-platform")
        if not text:
            return count > 1
        try:
            found = booleans.strict(text)
        except booleans.NotABooleanError as e:
            raise InvalidArgument(f"invalid boolean value for multi-platform: {text}") from e
        if not found and count > 1:
            raise InvalidArgument("conflicting config: returning multiple target platforms is not allowed")
        return found

    def no_cache(self) -> list[str] | None:
        """The stages that are made anew: nothing for all of them, None for none."""
        text = self.given("no-cache")
        return None if text is None else text.split(",") if text else []

    def resolve_mode(self) -> str:
        """The place where images are looked for: ``local``, ``pull``, or nothing for the solver's choice."""
        text = self.text("image-resolve-mode")
        if text not in _MODES:
            raise InvalidArgument(f"invalid image-resolve-mode: {text}", hint="there are default, local and pull")
        return _MODES[text]

    # -- what commands see -------------------------------------------------------------------------

    def network(self) -> pb.NetMode:
        """The network of RUN."""
        text = self.text("force-network-mode")
        if text not in _NETWORKS:
            raise InvalidArgument(f"invalid netmode {text}", hint="use default, host or none")
        return _NETWORKS[text]

    def hosts(self) -> list[tuple[str, str]]:
        """Further names with their addresses; ``host-gateway`` stands for the host."""
        found = []
        for field in _fields(self.text("add-hosts"), "failed to parse additional hosts"):
            name, equals, address = field.partition("=")
            if not equals:
                raise InvalidArgument(f"failed to parse additional hosts: invalid key-value pair {field}")
            if address == "host-gateway":
                found.append((name, address))
                continue
            try:
                ipaddress.ip_address(address.removeprefix("[").removesuffix("]"))
            except ValueError as e:
                raise InvalidArgument(f"failed to parse additional hosts: failed to parse IP {address}") from e
            found.append((name, address.removeprefix("[").removesuffix("]")))
        return found

    def shm_size(self) -> int:
        """The size of /dev/shm in bytes, 0 for the usual one."""
        text = self.text("shm-size")
        if text and digits.whole(text) is None:
            raise InvalidArgument(f'failed to parse shm size: strconv.ParseInt: parsing "{text}": invalid syntax')
        return int(text) if text else 0

    def ulimits(self) -> list[tuple[str, int, int]]:
        """Limits as (name, soft, hard)."""
        found = []
        for field in _fields(self.text("ulimit"), "failed to parse ulimit"):
            match = _ULIMIT.fullmatch(field)
            if match is None:
                raise InvalidArgument(f"failed to parse ulimit: invalid ulimit argument: {field}")
            soft = int(match["soft"])
            hard = soft if match["hard"] is None else int(match["hard"])
            if hard != -1 and (soft == -1 or soft > hard):
                raise InvalidArgument(
                    "failed to parse ulimit: ulimit soft limit must be less than or equal to hard limit: "
                    f"{soft} > {hard}"
                )
            found.append((match["name"], soft, hard))
        return found

    # -- caches ------------------------------------------------------------------------------------

    def cache_imports(self) -> list[CachePlace]:
        """The caches that are looked up in."""
        found = []
        if text := self.text("cache-imports"):
            try:
                entries = msgspec.json.decode(text.encode(), type=list[_CacheEntry])
            except (msgspec.DecodeError, UnicodeError) as e:
                raise InvalidArgument(f'failed to unmarshal cache-imports ("{text[:200]}"): {e}') from e
            found = [CachePlace(kind=one.type, attrs=one.attrs) for one in entries]
        names = self.text("cache-from").split(",")
        return found + [CachePlace(kind="registry", attrs={"ref": name}) for name in names if name]


def _fields(text: str, what: str) -> list[str]:
    """The fields of one line of comma-separated values."""
    if not text:
        return []
    try:
        return next(csv.reader([text], strict=True))
    except csv.Error as e:
        raise InvalidArgument(f"{what}: {e}") from e
