"""The result of a check: warnings with their lines, and the error that ended it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ketch.build.dockerfile.errors import DockerfileError, excerpt

if TYPE_CHECKING:
    from ketch.build.dockerfile.errors import Span
    from ketch.build.dockerfile.lint.rules import CheckOptions, Rule


class CheckWarning(msgspec.Struct, frozen=True):
    """One warning."""

    rule: Rule
    message: str
    span: Span


class CheckReport:
    """Collects the warnings of one file."""

    def __init__(self, options: CheckOptions) -> None:
        self._options = options
        self._found: list[CheckWarning] = []
        self.error: DockerfileError | None = None

    def add(self, rule: Rule, message: str, span: Span) -> None:
        """Take note of a warning, if its rule is wanted."""
        if self._options.wants(rule):
            self._found.append(CheckWarning(rule, message, span))

    @property
    def findings(self) -> list[CheckWarning]:
        """The warnings by line."""
        return sorted(self._found, key=lambda one: one.span.start)

    @property
    def severity(self) -> str:
        """The weight of a warning for the build: ``warning`` or ``error``."""
        return "error" if self._options.error else "warning"

    def failure(self) -> DockerfileError | None:
        """The error that ends a build: that of the file, or the warnings where the file says that they are errors."""
        if self.error or not (self._options.error and self._found):
            return self.error
        names = ", ".join(sorted({one.rule.name for one in self._found}))
        return DockerfileError(f"lint violation found for rules: {names}")

    def text(self, source: str, name: str = "Dockerfile") -> str:
        """All for a person, in the form of ``docker build --check``."""
        parts = [_headline(len(self._found))]
        for one in self.findings:
            where = f" - {one.rule.url}" if one.rule.url else ""
            shown = excerpt(source, name, one.span)
            parts.append(f"WARNING: {one.rule.name}{where}\n{one.message}\n{shown}")
        if error := self.failure():
            shown = f"\n{excerpt(source, name, error.span, error.word)}" if error.span else ""
            parts.append(f"ERROR: {error.message}{shown}")
        return "\n\n".join(parts)


def _headline(number: int) -> str:
    if number == 0:
        return "Check complete, no warnings found."
    return f"Check complete, {number} warning{'s have' if number > 1 else ' has'} been found!"
