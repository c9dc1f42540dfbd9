"""Rules for which a file's instructions need not be evaluated: casing, names, descriptions, old forms."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ketch.build.dockerfile.arguments import quoted
from ketch.build.dockerfile.instructions.stages import Arg, From
from ketch.build.dockerfile.lint import rules

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.build.dockerfile.instructions.base import Instruction
    from ketch.build.dockerfile.lint.report import CheckReport
    from ketch.build.dockerfile.parser import Dockerfile, Statement
    from ketch.build.dockerfile.stages import Stage

_RESERVED = ("context", "scratch")


def check_text(dockerfile: Dockerfile, report: CheckReport) -> None:
    """The rules about how a file is written."""
    for span in dockerfile.empty_continuations:
        report.add(rules.NO_EMPTY_CONTINUATION, "Empty continuation line", span._replace(start=span.end))


def check_statement(statement: Statement, report: CheckReport) -> None:
    """The rules about one statement, before it is read as an instruction."""
    if statement.keyword == "MAINTAINER":
        message = "Maintainer instruction is deprecated in favor of using label"
        report.add(rules.MAINTAINER_DEPRECATED, message, statement.span)
    words = statement.arguments
    if statement.keyword == "FROM" and len(words) == 3 and words[1].lower() == "as":
        if words[2] != words[2].lower():
            report.add(rules.STAGE_NAME_CASING, f"Stage name '{words[2]}' should be lowercase", statement.span)
        if not _same_casing(statement.name, words[1]):
            message = f"'{words[1]}' and '{statement.name}' keywords' casing do not match"
            report.add(rules.FROM_AS_CASING, message, statement.span)


def check_description(one: Instruction, report: CheckReport) -> None:
    """Whether the comment above a stage or an argument describes it."""
    if isinstance(one, From):
        names = [one.name] if one.name else []
    else:
        names = [arg.name for arg in one.args] if isinstance(one, Arg) else []
    comments = one.statement.comments
    if names and comments and comments[-1].split(" ", 1)[0] not in names:
        name = names[0] if len(names) == 1 else "<arg_key>"
        message = f"Comment for {one.keyword} should follow the format: `# {name} <description>`"
        report.add(rules.INVALID_DEFINITION_DESCRIPTION, message, one.span)


def check_names(stages: Sequence[Stage], report: CheckReport) -> None:
    """Names of stages that mean something else, or two stages."""
    seen: set[str] = set()
    for stage in stages:
        if stage.name in _RESERVED:
            message = f"Stage name should not use the same name as reserved stage {quoted(stage.name)}"
            report.add(rules.RESERVED_STAGE_NAME, message, stage.start.span)
        if stage.name in seen:
            message = f"Duplicate stage name {quoted(stage.name)}, stage names should be unique"
            report.add(rules.DUPLICATE_STAGE_NAME, message, stage.start.span)
        seen |= {stage.name} - {""}


def check_casing(stages: Sequence[Stage], report: CheckReport) -> None:
    """Instructions that are not spelt as most of the file's are."""
    statements = [one.statement for stage in stages for one in (stage.start, *stage.instructions)]
    lower = sum(one.name == one.name.lower() for one in statements)
    upper = sum(one.name == one.name.upper() for one in statements)
    wanted = "lowercase" if lower > upper else "uppercase"
    for one in statements:
        if one.name != (one.name.lower() if lower > upper else one.name.upper()):
            message = f"Command '{one.name}' should match the case of the command majority ({wanted})"
            report.add(rules.CONSISTENT_INSTRUCTION_CASING, message, one.span)


def _same_casing(keyword: str, word: str) -> bool:
    """Whether both are in small letters or in capitals; a keyword in neither is another rule's."""
    if keyword == keyword.lower():
        return word == word.lower()
    return keyword != keyword.upper() or word == word.upper()
