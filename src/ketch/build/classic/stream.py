"""The stream of the old API (``POST /build``): what docker without BuildKit, docker-py and docker-compose 1 read.

    Step 2/3 : RUN make
     ---> Running in 8d1c8b3f4a55
    …the command's output
     ---> Removed intermediate container 8d1c8b3f4a55
     ---> 2f0e9c1b7a31

Steps are told in the file's order, although several are at work at once: what a later one writes is kept until its
turn.  The ids behind the arrows name the results of steps and are no images; the last one is the image's.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING

from ketch.build.classic import steps as steps_of
from ketch.build.dockerfile.errors import DockerfileError
from ketch.build.errors import CommandFailed

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from ketch.build.classic.steps import ClassicStep
    from ketch.build.dockerfile.convert.places import Places
    from ketch.build.progress import LogLine, SolveStatus, VertexState
    from ketch.errors import KetchError
    from ketch.notation.api_objects import ApiObject

_MOST_KEPT = 4 << 20  # bytes of output that wait for their step's turn
_CUT = b"[output that came before this step's turn is cut here]\n"
_ERRORS = 2
_SHORT = 12
_MISSING = re.compile(r'(?:lstat |")/?([^"]*?)(?:": not found|: no such file or directory)')
_WILDCARD = re.compile(r"[*?\[]")
_FROM = re.compile(r"\s--from=")


class ClassicStream:
    """The items of one build's stream, each an object of a line."""

    def __init__(self, text: str, target: str = "", labels: Mapping[str, str] | None = None) -> None:
        """DockerfileError: the file cannot be read."""
        self._steps = steps_of.read(text, target, labels or {})
        self._bases: Mapping[int, str] = {}
        self._states: dict[str, VertexState] = {}
        self._kept: dict[str, list[LogLine]] = {}
        self._size = 0
        self._number = 0
        self._begun = self._told = self._running = False
        self._id = ""

    def first_line(self) -> list[ApiObject]:
        """The headline of the first stage, if it has not been told, and of what stands before it."""
        items = []
        while not self._told:
            self._told = self._steps[self._number].begins
            items.append(self._headline())
            self._number += not self._told
        return items

    def begin(
        self,
        places: Places,
        needed: Collection[int],
        bases: Mapping[int, str],
        triggers: Mapping[int, int] | None = None,
    ) -> list[ApiObject]:
        """Begin with the steps of the stages that are built.

        ``bases``: the ids of their images; ``triggers``: how many instructions these want done first.
        """
        told, self._begun = self._steps[self._number], True
        self._steps, self._bases = steps_of.located(self._steps, places, needed), bases
        self._told = self._told and self._steps[self._number] is told
        for step in self._steps:
            if step.begins and step.stage is not None and triggers:
                step.triggers = triggers.get(step.stage, 0)
        return list(self._advance())

    def status(self, status: SolveStatus) -> list[ApiObject]:
        """The items of a change."""
        for state in status.vertexes:
            self._states[state.digest] = state
        for line in status.logs:
            self._keep(line)
        return list(self._advance())

    def finish(
        self, image: str, names: Sequence[str], unused: Sequence[str], warnings: Sequence[str] = ()
    ) -> list[ApiObject]:
        """The end of a build that made an image; ``unused`` are arguments that nothing has declared."""
        items = list(self._advance(image))
        items.append({"aux": {"ID": image}})
        if unused:
            items.append(_text(f"[Warning] One or more build-args [{' '.join(sorted(unused))}] were not consumed\n"))
        items += [_text(f"[Warning] {warning}\n") for warning in warnings]
        items.append(_text(f"Successfully built {_short(image)}\n"))
        items += [_text(f"Successfully tagged {name}\n") for name in names]
        return items

    def fail(self, error: KetchError) -> list[ApiObject]:
        """The end of a build that failed: what the failed step wrote, then the error."""
        items: list[ApiObject] = []
        if not self._told and self._number < len(self._steps):
            items.append(self._headline())
        items += self._of_refused(error)
        failed = {state.digest for state in self._states.values() if state.error}
        message, code = error.message, 0
        for step in self._steps[self._number :]:
            if failed & step.digests:
                items += self._output(step)
                message = _in_dockers_words(message, step.text)
        if isinstance(error, CommandFailed):
            message = f"The command '{_unquoted(error.command)}' returned a non-zero code: {error.exit_code}"
            code = error.exit_code
        elif error.hint:
            message = f"{message} ({error.hint})"
        detail: ApiObject = {"code": code, "message": message} if code else {"message": message}
        return [*items, {"errorDetail": detail, "error": message}]

    def _of_refused(self, error: KetchError) -> list[ApiObject]:
        """The headline of the instruction for which no build began; nothing where it is the one that was told."""
        if self._begun or not isinstance(error, DockerfileError) or error.span is None:
            return []
        found = [number for number, step in enumerate(self._steps) if step.span == error.span]
        if not found or found[0] <= self._number:
            return []
        self._number = found[0]
        return [self._headline()]

    def _keep(self, line: LogLine) -> None:
        kept = self._kept.setdefault(line.vertex, [])
        if self._size < _MOST_KEPT:
            self._size += len(line.data)
            kept.append(line)
            if self._size >= _MOST_KEPT:
                line.data += _CUT

    def _advance(self, image: str = "") -> Iterator[ApiObject]:
        """Tell what is known, as far as steps have ended; with an ``image`` all of them have."""
        while self._begun and self._number < len(self._steps):
            step = self._steps[self._number]
            if not self._told:
                self._told = True
                yield self._headline()
            if step.triggers:
                yield _text(f"# Executing {step.triggers} build trigger{'s' * (step.triggers > 1)}\n")
                step.triggers = 0
            yield from self._output(step)
            last = self._number + 1 == len(self._steps)
            if not image and (last or not self._ended(step)):
                return
            yield from self._end(step, image if last else "")
            self._number += 1
            self._told = self._running = False

    def _headline(self) -> ApiObject:
        return _text(f"Step {self._number + 1}/{len(self._steps)} : {self._steps[self._number].text}\n")

    def _ended(self, step: ClassicStep) -> bool:
        states = (self._states.get(digest) for digest in step.digests)
        return all(state is not None and state.completed and not state.error for state in states)

    def _output(self, step: ClassicStep) -> Iterator[ApiObject]:
        """The output of a step that has its turn."""
        states = [state for digest in step.digests if (state := self._states.get(digest))]
        began = any(state.started and not state.cached for state in states)
        if step.runs and began and not self._running:
            self._running = True
            yield _text(f" ---> Running in {self._container(step)}\n")
        for digest in step.digests:
            for line in self._kept.pop(digest, ()):
                self._size = max(0, self._size - len(line.data))
                text = line.data.decode("utf-8", "replace")
                yield _text(f"\x1b[91m{text}\x1b[0m" if line.stream == _ERRORS else text)

    def _end(self, step: ClassicStep, image: str) -> Iterator[ApiObject]:
        if self._running:
            yield _text(f" ---> Removed intermediate container {self._container(step)}\n")
        elif not step.begins and step.stage is not None and self._cached(step):
            yield _text(" ---> Using cache\n")
        if step.stage is None:
            return
        self._id = image or self._result(step)
        yield _text(f" ---> {_short(self._id)}\n")

    def _cached(self, step: ClassicStep) -> bool:
        """Whether nothing of a step was made: also of one that the build did not even ask for."""
        states = [self._states.get(digest) for digest in step.digests]
        return bool(states) and all(state is None or state.cached for state in states)

    def _result(self, step: ClassicStep) -> str:
        base = self._bases.get(step.stage if step.stage is not None else -1, "")
        if step.begins and (base or step.empty):
            return base
        named = "\n".join((self._id, step.text, *sorted(step.digests)))
        return "sha256:" + hashlib.sha256(named.encode("utf-8", "surrogateescape")).hexdigest()

    @staticmethod
    def _container(step: ClassicStep) -> str:
        return _short(min(step.digests, default=""))


def _text(text: str) -> ApiObject:
    return {"stream": text}


def _in_dockers_words(message: str, instruction: str) -> str:
    """The message of a step that failed; of a file that is not there dockerd says more than BuildKit."""
    missing = _MISSING.fullmatch(message)
    keyword = instruction.partition(" ")[0].upper()
    if missing is None or keyword not in ("COPY", "ADD"):
        return message
    if _WILDCARD.search(missing[1]):
        return f"{keyword} failed: no source files were specified"
    where = "" if _FROM.search(instruction) else "file not found in build context or excluded by .dockerignore: "
    return f"{keyword} failed: {where}stat {missing[1]}: file does not exist"


def _unquoted(command: str) -> str:
    """The words of a command that stands in quotes."""
    try:
        return str(json.loads(command))
    except ValueError:
        return command


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:_SHORT]
