"""One stage evaluated: its variables from instruction to instruction, and the rules about them."""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING, Any

from ketch.build.dockerfile import ports, scopes, suggest
from ketch.build.dockerfile.arguments import quoted
from ketch.build.dockerfile.errors import DockerfileError
from ketch.build.dockerfile.instructions.commands import Cmd, Entrypoint, Healthcheck, Shell
from ketch.build.dockerfile.instructions.files import Add, Copy
from ketch.build.dockerfile.instructions.read import instruction
from ketch.build.dockerfile.instructions.run import Run
from ketch.build.dockerfile.instructions.settings import (
    Env,
    Expose,
    Label,
    Onbuild,
    StopSignal,
    UserInstruction,
    VolumeInstruction,
    Workdir,
)
from ketch.build.dockerfile.instructions.stages import Arg
from ketch.build.dockerfile.lint import rules
from ketch.build.dockerfile.lint.outline import OutlineMount
from ketch.build.dockerfile.parser import parse
from ketch.notation import digits, signals

if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.build.dockerfile.errors import Span
    from ketch.build.dockerfile.instructions.base import Instruction
    from ketch.build.dockerfile.lint.report import CheckReport
    from ketch.build.dockerfile.lint.request import BaseImage, CheckRequest
    from ketch.build.dockerfile.scopes import Declared, GlobalScope
    from ketch.build.dockerfile.stages import Stage

_PLACED = ("bind", "cache", "tmpfs")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SECRET = re.compile(
    r"(?:_|\A)(?:apikey|auth|credentials?|key|password|pword|passwd|secret|token)(?:_|\Z)", re.IGNORECASE
)
_PUBLIC = re.compile(r"(?:_|\A)public(?:_|\Z)", re.IGNORECASE)


class StageCheck:
    """The state of one stage."""

    def __init__(self, request: CheckRequest, report: CheckReport, scope: GlobalScope, escape: str) -> None:
        self._request, self._report, self._scope, self._escape = request, report, scope, escape
        self._parent: StageCheck | None = None
        self._image: BaseImage | None = None
        self._known = True
        self.variables: dict[str, str] = {}
        self.build_args: set[str] = set()
        self.used_args: set[str] = set()
        self.declared: dict[str, Declared] = {}
        self.secrets: dict[str, OutlineMount] = {}
        self.agents: dict[str, OutlineMount] = {}
        self.triggers: list[str] = []
        self._has_shell = False
        self._has_workdir = False
        self._directory = "/"
        self._once: dict[str, Span] = {}

    def inherit(self, parent: StageCheck | None, image: BaseImage | None, *, known: bool) -> None:
        """Begin with another stage, or an image; ``known``: its variables are."""
        self._parent, self._image, self._known = parent, image, known
        if parent:
            self.used_args |= parent.used_args

    def run(self, stage: Stage) -> None:
        """Evaluate the instructions (DockerfileError)."""
        triggers = self._begin()
        for text in triggers:
            trigger = parse(text).statements[0]
            trigger.span = stage.start.span
            self._step(instruction(trigger))
        for one in stage.instructions:
            try:
                self._step(one)
            except DockerfileError as e:
                e.span = e.span or one.span
                raise

    def _begin(self) -> list[str]:
        """Take over what the base leaves; the instructions that it wants done first."""
        triggers: list[str] = []
        if parent := self._parent:
            self._known = parent._known
            self.variables = dict(parent.variables)
            self.build_args |= parent.build_args
            self._has_shell, self._has_workdir = parent._has_shell, parent._has_workdir
            self._directory = parent._directory
            triggers = parent.triggers
        elif self._image:
            config = self._image.config
            self.variables = {name: value for name, _, value in (item.partition("=") for item in config.env or ())}
            self._has_shell = bool(config.shell)
            self._directory = config.working_dir or "/"
            triggers = config.on_build or []
        self.variables.setdefault("PATH", _PATH)
        return triggers

    def _step(self, one: Instruction) -> None:
        step = _STEPS.get(type(one))
        if step:
            step(self, one)

    def expand(self, one: Instruction, text: str) -> str:
        """A word expanded; variables that nobody has set are reported."""
        return self._expanded(one, text, one.statement.escape)

    def _expanded(self, one: Instruction, text: str, escape: str) -> str:
        def report(unset: set[str]) -> None:
            for name in sorted(unset - self.build_args) if self._known else ():
                meant = suggest.nearest(name, self.variables)
                message = f"Usage of undefined variable '${name}'{f' (did you mean ${meant}?)' if meant else ''}"
                self._report.add(rules.UNDEFINED_VAR, message, one.span)

        return scopes.expanded(text, self.variables, escape, one.span, report).text

    def _texts(self, one: Instruction, *texts: str) -> list[str]:
        return [self.expand(one, text) for text in texts]

    def _used_once(self, one: Instruction) -> None:
        if before := self._once.get(one.keyword):
            message = f"Multiple {one.statement.name} instructions should not be used in the same stage because only "
            message += "the last one will be used"
            self._report.add(rules.MULTIPLE_INSTRUCTIONS_DISALLOWED, message, before)
        self._once[one.keyword] = one.span

    def _command(self, one: Cmd | Entrypoint) -> None:
        self._used_once(one)
        if one.command.shell and not self._has_shell:
            message = f"JSON arguments recommended for {one.statement.name} to prevent unintended behavior "
            message += "related to OS signals"
            self._report.add(rules.JSON_ARGS_RECOMMENDED, message, one.span)

    def _healthcheck(self, one: Healthcheck) -> None:
        self._used_once(one)

    def _shell(self, _one: Shell) -> None:
        self._has_shell = True

    def _secret(self, one: Instruction, name: str) -> None:
        if _SECRET.search(name) and not _PUBLIC.search(name):
            message = f"Do not use ARG or ENV instructions for sensitive data ({one.keyword} {quoted(name)})"
            self._report.add(rules.SECRETS_USED_IN_ARG_OR_ENV, message, one.span)

    def _pairs(self, one: Env | Label) -> dict[str, str]:
        found = [(self.expand(one, pair.key), self.expand(one, pair.value)) for pair in one.pairs]
        if one.statement.old_pairs:
            name = one.statement.name
            message = f'"{name} key=value" should be used instead of legacy "{name} key value" format'
            self._report.add(rules.LEGACY_KEY_VALUE_FORMAT, message, one.span)
        return dict(found)

    def _env(self, one: Env) -> None:
        found = self._pairs(one)
        for name in found:
            self._secret(one, name)
        self.variables |= found

    def _label(self, one: Label) -> None:
        self._pairs(one)

    def _arg(self, one: Arg) -> None:
        for arg in one.args:
            self._secret(one, arg.name)
            value = self._request.args.get(arg.name)
            inherited = value is None and arg.value is None and arg.name in self._scope.values
            if inherited:
                value = self._scope.values[arg.name]
            elif value is None and arg.value is not None:
                value = self.expand(one, arg.value)
            if value is not None:
                self.variables[arg.name] = value
            if not inherited:
                self.declared[arg.name] = scopes.Declared(
                    name=arg.name, value=value or "", description=arg.description, span=one.span
                )
            self.used_args.add(arg.name)
            self.build_args.add(arg.name)

    def _files(self, one: Copy | Add) -> None:
        self._texts(one, one.chown, one.chmod)
        if isinstance(one, Add):
            self._texts(one, one.checksum)
        sources = self._texts(one, *one.sources)
        self.expand(one, one.destination)
        for file in one.inline:
            if file.expand:
                self._inline(one, file.content)
        if not (isinstance(one, Copy) and one.source_stage):
            for source in sources:
                self._context(one, source)

    def _inline(self, one: Instruction, content: str) -> None:
        """The text of a here-document, in which quotes are like any other character."""
        text = re.sub(r"(?=['\"])", r"\\", content)
        self._expanded(one, text, "\\")

    def _context(self, one: Copy | Add, source: str) -> None:
        ignore = self._request.ignore
        if not ignore or ignore.has_exceptions or re.match(r"https?://|git@", source):
            return
        path = posixpath.normpath(source or ".")
        if path not in (".", "/") and ignore.ignored(path.lstrip("/")):
            verb = "Copy" if isinstance(one, Copy) else "Add"
            message = f"Attempting to {verb} file {quoted(path)} that is excluded by .dockerignore"
            self._report.add(rules.COPY_IGNORED_FILE, message, one.span)

    def _run(self, one: Run) -> None:
        for mount in one.mounts(lambda text: self.expand(one, text)):
            if mount.type in _PLACED and posixpath.join(self._directory, mount.target).rstrip("/") in ("", "/."):
                raise DockerfileError('invalid mount target "/"', hint="name a directory with target=")
            name = mount.id or mount.source
            if mount.type == "secret":
                name = name or posixpath.basename(mount.target)
                self.secrets.setdefault(name, OutlineMount(name=name, required=mount.required, span=one.span))
            elif mount.type == "ssh":
                name = name or "default"
                self.agents.setdefault(name, OutlineMount(name=name, required=mount.required, span=one.span))

    def _workdir(self, one: Workdir) -> None:
        path = self.expand(one, one.path)
        if not self._has_workdir and not path.startswith("/"):
            message = f"Relative workdir {quoted(path)} can have unexpected results if the base image changes"
            self._report.add(rules.WORKDIR_RELATIVE_PATH, message, one.span)
        self._has_workdir = True
        self._directory = posixpath.normpath(posixpath.join(self._directory, path))

    def _expose(self, one: Expose) -> None:
        for written in one.ports:
            for spec in scopes.expanded(written, self.variables, one.statement.escape, one.span).words:
                self._port(one, spec)

    def _port(self, one: Expose, spec: str) -> None:
        protocol = spec.partition("/")[2]
        if protocol != protocol.lower():
            message = f"Defined protocol '{spec}' in EXPOSE instruction should be lowercase"
            self._report.add(rules.EXPOSE_PROTO_CASING, message, one.span)
        if ":" in spec:
            message = f"EXPOSE instruction should not define an IP address or host-port mapping, found '{spec}'"
            self._report.add(rules.EXPOSE_INVALID_FORMAT, message, one.span)
        ports.exposed_in_file(spec)

    def _user(self, one: UserInstruction) -> None:
        self.expand(one, one.user)

    def _volume(self, one: VolumeInstruction) -> None:
        if not all(self._texts(one, *one.paths)):
            raise DockerfileError("VOLUME specified can not be an empty string")

    def _stop_signal(self, one: StopSignal) -> None:
        name = self.expand(one, one.signal)
        if signals.parse(name) is None and not digits.whole(name):
            raise DockerfileError(f"invalid signal: {name}", word=name)

    def _onbuild(self, one: Onbuild) -> None:
        self.triggers = [*self.triggers, one.expression]


_STEPS: dict[type[Instruction], Callable[[StageCheck, Any], None]] = {
    Add: StageCheck._files,
    Arg: StageCheck._arg,
    Cmd: StageCheck._command,
    Copy: StageCheck._files,
    Entrypoint: StageCheck._command,
    Env: StageCheck._env,
    Expose: StageCheck._expose,
    Healthcheck: StageCheck._healthcheck,
    Label: StageCheck._label,
    Onbuild: StageCheck._onbuild,
    Run: StageCheck._run,
    Shell: StageCheck._shell,
    StopSignal: StageCheck._stop_signal,
    UserInstruction: StageCheck._user,
    VolumeInstruction: StageCheck._volume,
    Workdir: StageCheck._workdir,
}
