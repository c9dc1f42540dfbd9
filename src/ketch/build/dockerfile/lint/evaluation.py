"""The stages of a file evaluated: variables, platforms, dependencies; with what rules have to say of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ketch.build.dockerfile import scopes, stages, suggest, words
from ketch.build.dockerfile.arguments import quoted
from ketch.build.dockerfile.errors import DockerfileError
from ketch.build.dockerfile.instructions.files import Copy
from ketch.build.dockerfile.instructions.run import Run
from ketch.build.dockerfile.lint import rules
from ketch.build.dockerfile.lint.outline import Outline, OutlineArg
from ketch.build.dockerfile.lint.stage import StageCheck
from ketch.errors import InvalidArgument
from ketch.oci import platform as platforms
from ketch.oci import reference

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ketch.build.dockerfile.instructions.base import Instruction
    from ketch.build.dockerfile.lint.report import CheckReport
    from ketch.build.dockerfile.lint.request import BaseImage, CheckRequest
    from ketch.build.dockerfile.parser import Dockerfile
    from ketch.build.dockerfile.stages import Stage, Stages
    from ketch.build.dockerfile.words import Expansion
    from ketch.oci.manifest import Platform

SCRATCH = "scratch"


class Evaluation:
    """One pass over all stages, in the order in which a build would complain."""

    def __init__(self, dockerfile: Dockerfile, found: Stages, request: CheckRequest, report: CheckReport) -> None:
        self._found, self._request, self._report = found, request, report
        self._escape = dockerfile.escape
        predefined = scopes.platform_args(
            request.build_platform, request.target_platform, request.target or found.stages[-1].name, request.args
        )
        self._defaults = predefined
        self.scope = scopes.GlobalScope(predefined, {})
        self._checks: list[StageCheck] = []
        self._bases: list[str] = []
        self._platforms: list[Platform] = []
        self._edges: list[dict[int, Instruction]] = []

    def run(self) -> None:
        """Evaluate all (DockerfileError)."""
        self._check_defaults()
        self.scope = scopes.global_scope(self._found.args, self._defaults, self._request.args, self._escape)
        for stage in self._found.stages:
            self._begin(stage)
        target = self._found.target(self._request.target).index
        self._edges = [self._needs(stage) for stage in self._found.stages]
        stages.check_cycles(self._edges, self._found)
        wanted = self._reachable(target) if self._request.target else set(range(len(self._found.stages)))
        for stage in self._found.stages:
            if stage.index in wanted:
                self._refuse_later(stage)
                self._checks[stage.index].run(self._found.stages[stage.index])

    def _check_defaults(self) -> None:
        """Whether base images have a name even where no argument is given."""
        try:
            scope = scopes.global_scope(self._found.args, self._defaults, {}, self._escape)
            for stage in self._found.stages:
                name = words.expand(stage.start.base, scope.values, self._escape)
                if not _is_reference(name):
                    message = f"Default value for ARG {stage.start.base} results in empty or invalid base image name"
                    self._report.add(rules.INVALID_DEFAULT_ARG_IN_FROM, message, stage.start.span)
        except InvalidArgument:
            return  # the build fails with it

    def _begin(self, stage: Stage) -> None:
        """Begin a stage: its base, its platform, the arguments that they take."""
        start = stage.start
        base = self._of_from(stage, start.base)
        if not base.text:
            raise DockerfileError(f"base name ({start.base}) should not be blank", span=start.span, word=start.base)
        platform, used = self._platform(stage)
        parent = self._found.named(base.text, stage.index) if base.text == base.text.lower() else None
        image: BaseImage | None = None
        if parent is None and base.text != SCRATCH:
            image = self._image(stage, base.text, platform)
        check = StageCheck(self._request, self._report, self.scope, self._escape)
        check.inherit(self._checks[parent.index] if parent else None, image, known=bool(image) or base.text == SCRATCH)
        check.used_args |= base.used | used
        self._checks.append(check)
        self._bases.append(base.text)
        self._platforms.append(self._platforms[parent.index] if parent else platform)

    def _of_from(self, stage: Stage, text: str) -> Expansion:
        """A word of FROM expanded; what it uses must be declared before the first stage."""
        found = scopes.expanded(text, self.scope.values, self._escape, stage.start.span)
        known = [*self.scope.declared, *self.scope.values]
        for name in sorted(found.unset.difference(known)):
            message = f"FROM argument '{name}' is not declared{suggest.hint(name, known)}"
            self._report.add(rules.UNDEFINED_ARG_IN_FROM, message, stage.start.span)
        return found

    def _platform(self, stage: Stage) -> tuple[Platform, set[str]]:
        """The platform of a stage, and the arguments that it is made of."""
        written, span = stage.start.platform, stage.start.span
        if not written:
            return self._request.target_platform, set()
        found = self._of_from(stage, written)
        if found.used == {"TARGETPLATFORM"} and not found.unset and found.text == self.scope.values["TARGETPLATFORM"]:
            message = f"Setting platform to predefined {written} in FROM is redundant as this is the default behavior"
            self._report.add(rules.REDUNDANT_TARGET_PLATFORM, message, span)
        if not found.text:
            hints = (suggest.hint(name, self.scope.values) for name in sorted(found.unset))
            why = next(filter(None, hints), "")
            raise DockerfileError(f"empty platform value from expression {written}{why}", span=span, word=written)
        try:
            platform = platforms.parse(found.text)
        except InvalidArgument as e:
            message = f"failed to parse platform {written}: {e.message}"
            raise DockerfileError(message, span=span, word=written, hint=e.hint) from e
        if not (found.used or found.unset or platform.os in stage.name or platform.architecture in stage.name):
            message = f"FROM --platform flag should not use constant value {quoted(found.text)}"
            self._report.add(rules.FROM_PLATFORM_FLAG_CONST_DISALLOWED, message, span)
        return platform, found.used

    def _image(self, stage: Stage, name: str, platform: Platform) -> BaseImage | None:
        """The image that a stage begins with, as far as it is known."""
        try:
            reference.parse(name)
        except InvalidArgument as e:
            message = f"failed to parse stage name {quoted(name)}: {e.message}"
            raise DockerfileError(message, span=stage.start.span, word=stage.start.base) from e
        image = self._request.base(name, platform)
        if image and (image.platform.os, image.platform.architecture) != (platform.os, platform.architecture):
            actual, wanted = (quoted(platforms.text(platforms.normalize(one))) for one in (image.platform, platform))
            message = f"Base image {name} was pulled with platform {actual}, expected {wanted} for current build"
            self._report.add(rules.INVALID_BASE_IMAGE_PLATFORM, message, stage.start.span)
        return image

    def _needs(self, stage: Stage) -> dict[int, Instruction]:
        """The stages that a stage copies from or mounts, with the first instruction that does."""
        needed: dict[int, Instruction] = {}
        for one in stage.instructions:
            if isinstance(one, Copy) and one.source_stage:
                source = self._copied(one)
                needed = {source.index: one, **needed} if source else needed
            elif isinstance(one, Run):
                sources = (self._found.named(name) for name in one.sources())
                needed = {**{source.index: one for source in sources if source}, **needed}
        return needed

    def _copied(self, one: Copy) -> Stage | None:
        name = one.source_stage
        if words.expand(name, {}, self._escape) != name:
            message = (
                "variable expansion is not supported for --from, define a new stage with FROM using ARG from global "
            )
            raise DockerfileError(f"{message}scope as a workaround", span=one.span, word=name)
        if name.isascii() and name.isdecimal():
            found = self._found.find(name)
            if found is None:
                raise DockerfileError(f"invalid stage index {name}", span=one.span, word=name)
            return found
        return self._found.named(name)

    def _parent(self, index: int) -> set[int]:
        base = self._bases[index]
        found = self._found.named(base, index) if base == base.lower() else None
        return {found.index} if found else set()

    def _refuse_later(self, stage: Stage) -> None:
        """Refuse to take something from a stage that comes only after this one."""
        for index, one in self._edges[stage.index].items():
            if index > stage.index:
                other, own = (each.name or f"stage-{each.index}" for each in (self._found.stages[index], stage))
                if isinstance(one, Copy):
                    message = (
                        f"copy from stage {quoted(one.source_stage)}, it needs to be defined before current stage "
                    )
                    raise DockerfileError(f"cannot {message}{quoted(own)}", span=one.span, word=one.source_stage)
                message = f"cannot mount from stage {quoted(other)} to {quoted(own)}, "
                raise DockerfileError(
                    f"{message}stage needs to be defined before current command", span=one.span, word=other
                )

    def _reachable(self, target: int) -> set[int]:
        found: set[int] = set()
        todo = {target}
        while todo:
            index = todo.pop()
            found.add(index)
            todo |= (self._edges[index].keys() | self._parent(index)) - found
        return found

    def outline(self, target: str) -> Outline:
        """The inputs of one stage and of those that it needs."""
        stage = self._found.target(target)
        checks = [self._checks[index] for index in sorted(self._reachable(stage.index))]
        args: dict[str, OutlineArg] = {}
        for check in checks:
            for name in self._with_needs(check.used_args):
                one = check.declared.get(name) or self.scope.declared.get(name)
                if one and name not in args:
                    args[name] = OutlineArg(name=name, description=one.description, value=one.value, span=one.span)
        secrets = {one.name: one for check in reversed(checks) for one in check.secrets.values()}
        agents = {one.name: one for check in reversed(checks) for one in check.agents.values()}
        return Outline(
            name=stage.name,
            description=stage.start.description,
            args=sorted(args.values(), key=lambda one: one.span),
            secrets=sorted(secrets.values(), key=lambda one: one.span),
            agents=sorted(agents.values(), key=lambda one: one.span),
        )

    def _with_needs(self, names: Iterable[str]) -> set[str]:
        found: set[str] = set()
        todo = set(names)
        while todo:
            name = todo.pop()
            found.add(name)
            one = self.scope.declared.get(name)
            todo |= (one.needs if one else frozenset()) - found
        return found


def _is_reference(name: str) -> bool:
    try:
        reference.parse(name)
    except InvalidArgument:
        return False
    return True
