"""COPY and ADD: files of the build context, of other stages, of the Dockerfile itself, of the web and of git."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ketch.build.dockerfile import words
from ketch.build.dockerfile.convert import sources
from ketch.build.dockerfile.convert.owners import chown, set_mode
from ketch.build.dockerfile.convert.state import joined
from ketch.build.dockerfile.errors import DockerfileError
from ketch.build.dockerfile.instructions.files import Add, Copy
from ketch.build.llb import ops_pb2 as pb
from ketch.build.llb.operations import Action, files, merge
from ketch.errors import InvalidArgument

if TYPE_CHECKING:
    from ketch.build.dockerfile.convert.sources import GitLocation
    from ketch.build.dockerfile.convert.state import StageState
    from ketch.build.dockerfile.instructions.files import InlineFile
    from ketch.build.llb.vertex import Edge


def convert_copy(state: StageState, one: Copy | Add, source: StageState | None) -> None:
    """Add copied files (DockerfileError); ``source``: the stage that they are of, None for the build context."""
    found = _Copying(state, one, source)
    found.check()
    for text in found.sources:
        found.add(text)
    for file in one.inline:
        found.add_inline(file)
    found.finish()


class _Copying:
    """One instruction while its sources are added."""

    def __init__(self, state: StageState, one: Copy | Add, source: StageState | None) -> None:
        self._state, self._one = state, one
        self._from = source.edge if source else state.build.context
        self._paths = source.paths if source else state.build.paths.context
        self.sources = [state.expand(one, text) for text in one.sources]
        self._written = state.expand(one, one.destination)
        self._destination = joined(state.directory, _with_slash(self._written), keep_slash=True)
        self._owner, self._mode = state.expand(one, one.chown), state.expand(one, one.chmod)
        self._checksum = state.expand(one, one.checksum) if isinstance(one, Add) else ""
        self._unpack = one.unpack if isinstance(one, Add) else False
        self._actions: list[Action] = []
        self._name = ""

    def check(self) -> None:
        """Refuse a mode that is none, and a checksum where it cannot be checked; begin the step."""
        set_mode(pb.FileActionCopy(), self._mode)
        if self._checksum:
            if len(self.sources) != 1:
                raise DockerfileError("checksum can't be specified for multiple sources")
            if not sources.is_web(self.sources[0]) and sources.git(self.sources[0]) is None:
                raise DockerfileError("checksum requires HTTP(S) or Git sources", word=self.sources[0])
        self._name = self._state.named(self._one)

    def add(self, text: str) -> None:
        """Add a source: a repository, a web address, or a path."""
        repository = sources.git(text)
        if repository:
            self._add_repository(repository, text)
        elif sources.is_web(text):
            if not isinstance(self._one, Add):
                raise DockerfileError("source can't be a URL for COPY", word=text, hint="ADD takes URLs")
            edge, name = sources.web(text, self._checksum, self._metadata())
            self._copy(edge, f"/{name}", attemptUnpackDockerCompatibility=bool(self._unpack))
        else:
            self._add_path(text)

    def _add_repository(self, repository: GitLocation, text: str) -> None:
        if not isinstance(self._one, Add):
            raise DockerfileError("source can't be a git ref for COPY", word=text, hint="ADD takes repositories")
        keep = bool(self._one.keep_git_dir)
        edge = repository.edge(keep_git_dir=keep, checksum=self._checksum, metadata=self._metadata())
        self._copy(edge, "/")

    def _add_path(self, text: str) -> None:
        self._paths.add(joined("/", text))
        flags = dict.fromkeys(
            ("followSymlink", "dirCopyContents", "allowWildcard", "allowEmptyWildcard"),
            True,
        )
        unpack = isinstance(self._one, Add) if self._unpack is None else self._unpack
        patterns: list[str] = []
        required: list[str] = []
        if isinstance(self._one, Copy) and self._one.parents:
            directory, pivot, below = text.partition("/./")
            text, pattern = (directory, below) if pivot else ("/", text)
            pattern = joined("/", pattern)
            patterns = [pattern.lstrip("/")]
            if not _has_wildcards(text) and not _has_wildcards(pattern):
                required = [joined(joined("/", text), pattern.lstrip("/"))]
        self._copy(
            self._from,
            joined("/", text),
            include_patterns=patterns,
            required_paths=required,
            attemptUnpackDockerCompatibility=unpack,
            **flags,
        )

    def add_inline(self, file: InlineFile) -> None:
        """Add a file that the Dockerfile has."""
        text = file.content
        if file.expand:
            try:
                text = words.expand_document(text, self._state.variables)
            except InvalidArgument as e:
                raise DockerfileError(e.message, word=file.path) from e
        data = text.encode("utf-8", "surrogateescape")
        made = pb.FileActionMkFile(path=f"/{file.path}", mode=0o644, data=data, timestamp=-1)
        metadata = self._state.metadata("[internal] preparing inline document")
        edge = files(None, [Action(pb.FileAction(mkfile=made))], None, metadata)
        self._copy(edge, f"/{file.path}")

    def _copy(self, source: Edge | None, path: str, **flags: bool | list[str]) -> None:
        action = pb.FileActionCopy(
            src=path,
            dest=self._destination,
            createDestPath=True,
            timestamp=-1,
            exclude_patterns=self._one.exclude,
            **flags,  # type: ignore[arg-type]
        )
        set_mode(action, self._mode)
        if self._owner:
            action.owner.CopyFrom(chown(self._owner))
        self._actions.append(Action(pb.FileAction(copy=action), source))

    def _metadata(self) -> pb.OpMetadata:
        return self._state.metadata(self._name)

    def finish(self) -> None:
        """Put the files into the stage, as a layer of their own where that is asked for and possible."""
        state, metadata = self._state, self._metadata()
        metadata.ignore_cache = state.node.ignore_cache
        if self._one.link and not self._mode and state.build.options.merges:
            group = pb.ProgressGroup(id=self._name, name=self._name)
            metadata.progress_group.CopyFrom(group)
            metadata.progress_group.weak = True
            layer = files(None, self._actions, None, metadata)
            state.place(layer, self._one)
            state.again()
            name = state.step(f"LINK {self._name.partition('] ')[2] or self._name}")
            both = state.metadata(name)
            both.ignore_cache = state.node.ignore_cache
            both.progress_group.CopyFrom(group)
            state.edge = merge([state.edge, layer], None, both) or layer
        else:
            state.edge = files(state.edge, self._actions, None, metadata)
        state.place(state.edge, self._one)
        state.remember(self._history(), layer=True, marked=True)

    def _history(self) -> str:
        parts = [self._one.keyword]
        if isinstance(self._one, Copy) and self._one.parents:
            parts.append("--parents")
        parts += [f"--chown={self._owner}"] if self._owner else []
        parts += [f"--chmod={self._mode}"] if self._mode else []
        parts += [*self.sources, *(f"<<{file.path}" for file in self._one.inline), self._written]
        return " ".join(parts)


def _with_slash(path: str) -> str:
    """A destination that is the working directory as such."""
    return "./" if path in ("", ".") else path


def _has_wildcards(path: str) -> bool:
    escaped = False
    for char in path:
        if not escaped and char in "*?[":
            return True
        escaped = char == "\\" and not escaped
    return False
