"""Seccomp profiles as clients send them: JSON in Docker's own form, or the ``linux.seccomp`` of an OCI bundle.

A profile is read strictly.  One that is misunderstood would still compile, to a filter that lets through what its
author meant to stop; so what has another type or does not fit is refused, with its place in the document.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, cast

import msgspec
from msgspec import Meta, Struct

from ketch.errors import InvalidArgument
from ketch.notation import documents

if TYPE_CHECKING:
    from ketch.runtime.oci_types import DockerSeccomp

_LARGEST = (1 << 64) - 1

_Errno = Annotated[int, Meta(ge=0, le=0xFFFF)]  # all that a filter's result has room for


class _Argument(Struct, rename="camel"):
    index: Annotated[int, Meta(ge=0, le=5)]
    op: str
    value: int = 0
    value_two: int | None = None


class _Condition(Struct, rename="camel"):
    arches: list[str] | None = None
    caps: list[str] | None = None
    min_kernel: str | None = None


class _Rule(Struct, rename="camel"):
    action: str
    name: str | None = None
    names: list[str] | None = None
    errno_ret: _Errno | None = None
    args: list[_Argument] | None = None
    includes: _Condition | None = None
    excludes: _Condition | None = None


class _Architecture(Struct, rename="camel"):
    architecture: str
    sub_architectures: list[str] | None = None


class _Profile(Struct, rename="camel"):
    default_action: str
    default_errno_ret: _Errno | None = None
    architectures: list[str] | None = None
    arch_map: list[_Architecture] | None = None
    syscalls: list[_Rule] | None = None
    flags: list[str] | None = None
    listener_path: str | None = None
    listener_metadata: str | None = None


def read(text: str) -> DockerSeccomp:
    """The document; InvalidArgument says where it is no profile."""
    if documents.is_too_deep(text):
        raise InvalidArgument("Decoding seccomp profile failed: it is nested too deeply")
    try:
        profile = msgspec.json.decode(text, type=_Profile)
        _check(profile)
        document = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError) as e:
        raise InvalidArgument(f"Decoding seccomp profile failed: {e}") from e
    return cast("DockerSeccomp", document)


def _check(profile: _Profile) -> None:
    """Check what types cannot say (ValidationError)."""
    if profile.architectures and profile.arch_map:
        raise msgspec.ValidationError("`architectures` and `archMap` say the same: give one of them")
    for number, rule in enumerate(profile.syscalls or ()):
        if rule.name and rule.names:
            raise msgspec.ValidationError(
                f"`name` and `names` say the same: give one of them - at `$.syscalls[{number}]`"
            )
        for place, argument in enumerate(rule.args or ()):
            if not (0 <= argument.value <= _LARGEST and 0 <= (argument.value_two or 0) <= _LARGEST):
                raise msgspec.ValidationError(
                    f"a value is no number of 64 bits without a sign - at `$.syscalls[{number}].args[{place}]`"
                )
