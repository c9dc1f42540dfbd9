"""One stage while its instructions are converted: the files so far, variables, configuration, the names of steps."""

from __future__ import annotations

import copy
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from ketch.build.dockerfile import scopes, words
from ketch.build.dockerfile.convert.places import Places
from ketch.build.llb import ops_pb2 as pb
from ketch.errors import InvalidArgument
from ketch.oci import platform as platforms
from ketch.oci.config import History, ImageConfig, RootFS, RunConfig
from ketch.oci.manifest import Platform

if TYPE_CHECKING:
    from ketch.build.dockerfile.convert.options import ConvertOptions
    from ketch.build.dockerfile.convert.paths import UsedPaths
    from ketch.build.dockerfile.convert.plan import Node
    from ketch.build.dockerfile.instructions.base import Instruction
    from ketch.build.dockerfile.scopes import GlobalScope
    from ketch.build.llb.vertex import Edge

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
COMMENT = "buildkit.dockerfile.v0"


class Build:
    """A conversion, as far as all stages share it; ``epoch``: the time of the build, if one is given."""

    def __init__(self, options: ConvertOptions, scope: GlobalScope, epoch: int | None, paths: UsedPaths) -> None:
        self.options, self.scope, self.epoch, self.paths = options, scope, epoch, paths
        self.places = Places()
        self.context: Edge | None = None


class StageState:
    """A stage; ``edge`` is None while it has no files."""

    def __init__(self, build: Build, node: Node, platform: Platform) -> None:
        self.build, self.node, self.platform = build, node, platform
        self.edge: Edge | None = None
        self.image = empty_image(platform)
        self.variables: dict[str, str] = {}
        self.args: list[tuple[str, str | None]] = []
        self.paths = build.paths.of(node)
        self.has_command = False
        self.in_trigger = False
        self._step = 0

    @property
    def config(self) -> RunConfig:
        """The defaults of containers."""
        if self.image.config is None:
            self.image.config = RunConfig()
        return self.image.config

    @property
    def directory(self) -> str:
        """The working directory."""
        return self.config.working_dir or "/"

    def inherit(self, parent: StageState) -> None:
        """Begin with another stage."""
        self.edge, self.platform = parent.edge, parent.platform
        self.image = copy.deepcopy(parent.image)
        self.config.on_build = None
        self.variables = dict(parent.variables)
        self.args = list(parent.args)
        self.paths = parent.paths

    def begin(self) -> None:
        """Take over variables and the directory of the image."""
        env = self.config.env = list(self.config.env or ())
        if not any(item.partition("=")[0] == "PATH" for item in env):
            env.append(f"PATH={PATH}")
        for item in env:
            name, _, value = item.partition("=")
            self.set(name, value)
        if self.config.working_dir:
            self.config.working_dir = joined("/", self.config.working_dir)

    def set(self, name: str, value: str) -> None:
        """Set a variable, which becomes the last one."""
        self.variables.pop(name, None)
        self.variables[name] = value

    def expand(self, one: Instruction, text: str) -> str:
        """A word expanded (DockerfileError)."""
        return scopes.expanded(text, self.variables, one.statement.escape, one.span).text

    def remember(self, text: str, *, layer: bool, marked: bool = False) -> None:
        """Add a step to the history; ``marked``: as one that the builder has run."""
        history = self.image.history = [*(self.image.history or ())]
        text += " # buildkit" if marked else ""
        history.append(History(created=self.created(), created_by=text, comment=COMMENT, empty_layer=not layer))

    def created(self) -> str | None:
        """The build's time in RFC 3339, if one is given."""
        epoch = self.build.epoch
        return None if epoch is None else rfc3339(epoch)

    def named(self, one: Instruction) -> str:
        """The name of a step: an instruction with its variables' values, its stage and number before it."""
        try:
            text = words.expand(one.statement.line.strip(), self.variables, one.statement.escape)
        except InvalidArgument:
            text = one.statement.line.strip()
        return self.step(text)

    def step(self, text: str, variables: dict[str, str] | None = None) -> str:
        """``[STAGE 2/5] TEXT``, its first word in capitals; each call is the next step."""
        first, space, rest = text.partition(" ")
        text = first.upper() + space + rest
        if not self.node.steps:
            return text
        self._step += 1
        total = str(self.node.steps)
        stage = f"{self.node.shown} " if self.node.shown else ""
        trigger = "ONBUILD " if self.in_trigger else ""
        platform = self._platform_prefix(self.variables if variables is None else variables)
        return f"[{platform}{stage}{self._step:{len(total)}}/{total}] {trigger}{text}"

    def again(self) -> None:
        """Let the next step have the number of the last one."""
        self._step -= 1

    def _platform_prefix(self, variables: dict[str, str]) -> str:
        """The platform before a step's name, and the one that it builds for where the stage knows."""
        if not self.build.options.many_platforms:
            return ""
        own, wanted = platforms.canonical(self.platform), _wanted(variables, self.platform)
        other = ""
        if wanted and wanted.os != own.os:
            other = f"->{platforms.text(wanted)}"
        elif wanted and wanted.architecture != own.architecture:
            other = "->" + "/".join(filter(None, (wanted.architecture, wanted.variant)))
        return f"{platforms.text(own)}{other} "

    def metadata(self, name: str, *, command: str = "") -> pb.OpMetadata:
        """The description of a vertex beside its operation."""
        found = pb.OpMetadata(description={"llb.customname": name})
        if command:
            found.description["com.docker.dockerfile.v1.command"] = command
        return found

    def place(self, edge: Edge, one: Instruction) -> None:
        """Note where in the file a vertex comes from."""
        self.build.places.add(edge.vertex, one.span)


def empty_image(platform: Platform) -> ImageConfig:
    """The configuration of what is built from nothing."""
    config = RunConfig(working_dir="/", env=[f"PATH={PATH}"])
    return ImageConfig(
        architecture=platform.architecture,
        os=platform.os,
        variant=platform.variant,
        config=config,
        rootfs=RootFS(),
    )


def joined(directory: str, path: str, *, keep_slash: bool = False) -> str:
    """A path, from a directory where it is relative, without ``..`` and doubled slashes."""
    whole = path if path.startswith("/") else f"{directory}/{path}"
    parts: list[str] = []
    for part in whole.split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in ("", "."):
            parts.append(part)
    found = "/" + "/".join(parts)
    slash = "" if found == "/" else "/"
    if keep_slash and path.endswith("/"):
        return found + slash
    return f"{found}{slash}." if keep_slash and path.endswith("/.") else found


def rfc3339(seconds: int) -> str:
    """Seconds since 1970, of the years that nanoseconds in 64 bits can tell, as a configuration has them."""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def _wanted(variables: dict[str, str], base: Platform) -> Platform | None:
    """The platform that a stage's variables name as the target's."""
    if text := variables.get("TARGETPLATFORM"):
        try:
            return platforms.canonical(platforms.named(text))
        except InvalidArgument:
            return None
    fields = [variables.get(f"TARGET{part}") for part in ("OS", "ARCH", "VARIANT")]
    if fields == [None, None, None]:
        return None
    system, architecture, variant = fields
    found = Platform(os=system or base.os, architecture=architecture or base.architecture, variant=variant or None)
    return platforms.canonical(found)
