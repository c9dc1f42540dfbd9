"""``--call``: what a Dockerfile offers and what is wrong with it, told without building anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ketch import dockerignore
from ketch.build.dockerfile import parser, stages
from ketch.build.dockerfile.lint import outline as outlines
from ketch.build.dockerfile.lint.check import check, outline
from ketch.build.dockerfile.lint.request import CheckRequest
from ketch.engine.model.building.builds import BuildResult
from ketch.errors import InvalidArgument
from ketch.oci import platform as platforms

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ketch.build.dockerfile.errors import Span
    from ketch.build.dockerfile.lint.outline import Outline, OutlineMount
    from ketch.engine.build.dockerfiles import FoundDockerfile
    from ketch.engine.model.building.builds import ImageBuild
    from ketch.notation.api_objects import ApiObject


def answer(request: ImageBuild, dockerfile: FoundDockerfile) -> BuildResult:
    """The answer of a call (InvalidArgument: it is not known; DockerfileError)."""
    call = _CALLS.get(request.call)
    if call is None:
        raise InvalidArgument(f'invalid call "{request.call}"', hint=f"known: {', '.join(_CALLS)}")
    value, text, status = call(request, dockerfile)
    return BuildResult(
        metadata={"result.json": msgspec.json.encode(value).decode(), "result.txt": text, "result.statuscode": status}
    )


def _request(request: ImageBuild, dockerfile: FoundDockerfile) -> CheckRequest:
    given = {name: value for name, value in request.args.items() if value is not None}
    machine = platforms.host()
    target = platforms.canonical(platforms.named(request.platforms[0].split(",")[0])) if request.platforms else machine
    return CheckRequest(
        target=request.target,
        args=given,
        build_platform=machine,
        target_platform=target,
        ignore=dockerignore.IgnoreRules(dockerfile.ignore),
    )


def _check(request: ImageBuild, dockerfile: FoundDockerfile) -> tuple[ApiObject, str, int]:
    report = check(dockerfile.text, _request(request, dockerfile))
    warnings = [
        {
            "ruleName": one.rule.name,
            "description": one.rule.description,
            "url": one.rule.url,
            "detail": one.message,
            "location": _location(one.span),
        }
        for one in report.findings
    ]
    value: ApiObject = {"warnings": warnings or None, "sources": [_source(dockerfile)]}
    error = report.failure()
    if error is not None:
        value["buildError"] = {"message": error.message, "location": _location(error.span) if error.span else None}
    status = 1 if error is not None or warnings else 0
    return value, report.text(dockerfile.text, dockerfile.name) + "\n", status


def _outline(request: ImageBuild, dockerfile: FoundDockerfile) -> tuple[ApiObject, str, int]:
    wanted = _request(request, dockerfile)
    name = wanted.target or stages.read(parser.parse(dockerfile.text)).stages[-1].name
    found = outline(dockerfile.text, wanted)
    value: ApiObject = {
        "name": found.name or name,
        "description": found.description,
        "args": [
            _told(
                {"name": one.name, "description": one.description, "value": one.value, "location": _location(one.span)}
            )
            for one in found.args
        ],
        "secrets": [_mount(one) for one in found.secrets],
        "ssh": [_mount(one) for one in found.agents],
        "sources": [_data(dockerfile)],
    }
    return _told(value), _outline_text(found), 0


def _outline_text(found: Outline) -> str:
    parts = []
    if found.name or found.description:
        lines = [f"TARGET:      {found.name}"] if found.name else []
        parts.append("\n".join([*lines, *([f"DESCRIPTION: {found.description}"] if found.description else [])]))
    if found.args:
        rows = [(one.name, one.value, one.description) for one in found.args]
        parts.append(_table(("BUILD ARG", "VALUE", "DESCRIPTION"), rows))
    for title, mounts in (("SECRET", found.secrets), ("SSH", found.agents)):
        if mounts:
            needed = [(one.name, "true" if one.required else "") for one in mounts]
            parts.append(_table((title, "REQUIRED"), needed))
    return "\n\n".join(parts) + "\n" if parts else ""


def _targets(_request: ImageBuild, dockerfile: FoundDockerfile) -> tuple[ApiObject, str, int]:
    found = outlines.targets(dockerfile.text)
    value: ApiObject = {
        "targets": [
            _told(
                {
                    "name": one.name,
                    "default": one.default,
                    "description": one.description,
                    "base": one.base,
                    "platform": one.platform,
                    "location": _location(one.span),
                }
            )
            for one in found
        ],
        "sources": [_data(dockerfile)],
    }
    rows = [(f"{one.name or ''}{' (default)' if one.default else ''}".strip(), one.description) for one in found]
    return value, _table(("TARGET", "DESCRIPTION"), rows) + "\n", 0


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    lines = ("    ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (head, *rows))
    return "\n".join(line.rstrip() for line in lines)


def _location(span: Span) -> ApiObject:
    return {
        "ranges": [{"start": {"line": number}, "end": {"line": number}} for number in range(span.start, span.end + 1)]
    }


def _mount(one: OutlineMount) -> ApiObject:
    return _told({"name": one.name, "required": one.required, "location": _location(one.span)})


def _told(value: ApiObject) -> ApiObject:
    """An object without what is empty, as BuildKit's answers are."""
    return {name: found for name, found in value.items() if found}


def _source(dockerfile: FoundDockerfile) -> ApiObject:
    return {"filename": dockerfile.name, "language": "Dockerfile", "data": _data(dockerfile)}


def _data(dockerfile: FoundDockerfile) -> str:
    return _base64(dockerfile.text.encode("utf-8", "surrogateescape"))


def _base64(data: bytes) -> str:
    return str(msgspec.to_builtins(data))


_CALLS: dict[str, Callable[[ImageBuild, FoundDockerfile], tuple[ApiObject, str, int]]] = {
    "check": _check,
    "lint": _check,
    "outline": _outline,
    "subrequests.outline": _outline,
    "targets": _targets,
    "subrequests.targets": _targets,
}
