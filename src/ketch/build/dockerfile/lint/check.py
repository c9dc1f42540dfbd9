"""``--check``: a Dockerfile evaluated as a build would, without building anything.

Nothing is fetched: what base images have in their configuration is asked of the caller, who knows some of them.
Stages on an image that nobody knows are checked for all but undefined variables.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ketch.build.dockerfile import directives, parser, stages
from ketch.build.dockerfile.errors import DockerfileError, Span
from ketch.build.dockerfile.instructions.read import instruction
from ketch.build.dockerfile.lint import rules, structure
from ketch.build.dockerfile.lint.evaluation import Evaluation
from ketch.build.dockerfile.lint.report import CheckReport
from ketch.build.dockerfile.lint.request import CheckRequest

if TYPE_CHECKING:
    from ketch.build.dockerfile.lint.outline import Outline


def check(text: str, request: CheckRequest | None = None, options: str = "") -> CheckReport:
    """All warnings of a file, and the error at which a build of it would stop.

    ``options`` stand in the place of those that the file has for itself (``# check=``).
    """
    report = CheckReport(rules.CheckOptions())
    try:
        found = directives.check(text)
        report = CheckReport(rules.read_options(options or (found.value if found else "")))
        _evaluated(text, request or CheckRequest(), report)
    except DockerfileError as e:
        report.error = e
    return report


def outline(text: str, request: CheckRequest) -> Outline:
    """The arguments, secrets and agents that a stage takes (DockerfileError)."""
    evaluation = _evaluated(text, request, CheckReport(rules.CheckOptions(skip=frozenset({"all"}))))
    return evaluation.outline(request.target)


def _evaluated(text: str, request: CheckRequest, report: CheckReport) -> Evaluation:
    if not text:
        raise DockerfileError("the Dockerfile cannot be empty", span=Span(1, 1))
    dockerfile = parser.parse(text)
    structure.check_text(dockerfile, report)
    for statement in dockerfile.statements:
        structure.check_statement(statement, report)
        try:
            structure.check_description(instruction(statement), report)
        except DockerfileError:
            break  # the stages have it, too
    read = stages.read(dockerfile)
    structure.check_names(read.stages, report)
    structure.check_casing(read.stages, report)
    evaluation = Evaluation(dockerfile, read, request, report)
    evaluation.run()
    return evaluation
