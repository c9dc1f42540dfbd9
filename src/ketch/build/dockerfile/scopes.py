"""Variables of a build: the platform's, the arguments before the first stage, and those of a stage."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ketch.build.dockerfile import words
from ketch.build.dockerfile.errors import DockerfileError
from ketch.oci import platform as platforms

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ketch.build.dockerfile.errors import Span
    from ketch.build.dockerfile.instructions.stages import Arg
    from ketch.build.dockerfile.words import Expansion
    from ketch.oci.manifest import Platform


class Declared(msgspec.Struct, frozen=True, kw_only=True):
    """An argument as it was declared: its value, what is said of it, and which others its default is made of."""

    name: str
    value: str
    description: str
    span: Span
    needs: frozenset[str] = frozenset()


class GlobalScope(msgspec.Struct, frozen=True):
    """The variables of FROM, which a stage's ARG without a value gets, too: values, and declarations by name."""

    values: dict[str, str]
    declared: dict[str, Declared]


def platform_args(build: Platform, target: Platform, stage: str, given: Mapping[str, str]) -> dict[str, str]:
    """The arguments that exist without a declaration, overridden by what is given."""
    found = {"TARGETSTAGE": stage or "default"}
    for prefix, one in (("BUILD", build), ("TARGET", target)):
        found |= {
            f"{prefix}PLATFORM": platforms.text(one),
            f"{prefix}OS": one.os,
            f"{prefix}OSVERSION": one.os_version or "",
            f"{prefix}ARCH": one.architecture,
            f"{prefix}VARIANT": one.variant or "",
        }
    return {name: given.get(name, value) for name, value in found.items()}


def global_scope(
    args: Sequence[Arg], predefined: Mapping[str, str], given: Mapping[str, str], escape: str
) -> GlobalScope:
    """The arguments before the first stage, with the values that are given or else their defaults (DockerfileError)."""
    values, declared = dict(predefined), dict[str, Declared]()
    for instruction in args:
        for one in instruction.args:
            value, needs = given.get(one.name), frozenset[str]()
            if value is None and one.value is not None:
                found = expanded(one.value, values, escape, instruction.span)
                value, needs = found.text, frozenset(found.used)
                if one.name in needs and one.name in declared:
                    needs |= declared[one.name].needs
                needs -= {one.name}
            if value is not None:
                values[one.name] = value
            declared[one.name] = Declared(
                name=one.name, value=value or "", description=one.description, span=instruction.span, needs=needs
            )
    return GlobalScope(values, declared)


def expanded(
    text: str, variables: Mapping[str, str], escape: str, span: Span, report: Callable[[set[str]], None] | None = None
) -> Expansion:
    """A word expanded (DockerfileError, with the lines it stands in); ``report`` gets variables that are not set."""
    report = report or (lambda _names: None)
    try:
        found = words.expansion(text, variables, escape)
    except words.ExpansionError as e:
        report(e.unset)
        raise DockerfileError(e.message, span=span, word=text) from e
    report(found.unset)
    return found
