"""``--output``, ``--load``, ``--push``: where a result goes, and what of it comes to this machine."""

from __future__ import annotations

import os
import sys
import threading

from ketch.cli.building import values
from ketch.cli.errors import UsageError
from ketch.cli.files import partial_name
from ketch.errors import InvalidArgument, KetchError
from ketch.notation import booleans

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import ExitStack

    from ketch.cli.options.flags import Options

_KINDS = ("image", "docker", "oci", "local", "tar", "cacheonly")
_CHUNK = 1 << 18
_END_S = 5.0  # for the daemon to let go of what it writes to


class BuildOutput:
    """One output: its kind, BuildKit's attributes, and the path here that it goes to, ``-`` for standard output."""

    def __init__(self, kind: str, attributes: dict[str, str], dest: str) -> None:
        self.kind, self.attributes, self.dest = kind, attributes, dest
        self.is_directory = kind == "local"
        if kind in ("docker", "oci") and booleans.parse(attributes.get("tar", "true")) is False:
            del attributes["tar"]
            self.is_directory = True

    @property
    def comes_here(self) -> bool:
        """Whether the client gets it."""
        return self.kind in ("oci", "local", "tar") or (self.kind == "docker" and bool(self.dest))


def parse(opts: Options) -> list[BuildOutput]:
    """The outputs that the flags ask for (UsageError)."""
    found = [_one(text) for text in opts["output"]]
    if opts["push"]:
        images = [output for output in found if output.kind == "image"]
        for output in images:
            output.attributes["push"] = "true"
        if not images:
            found.append(BuildOutput("image", {"push": "true"}, ""))
    if opts["load"] and not any(output.kind == "docker" for output in found):
        found.append(BuildOutput("docker", {}, ""))
    pushed = [output for output in found if output.attributes.get("push") == "true"]
    if not opts["tag"] and not all(output.attributes.get("name") for output in pushed):
        raise UsageError("tag is needed when pushing to registry", hint="give the image a name with -t")
    named = values.annotation_attributes(opts["annotation"])
    if named and not found:
        found = [BuildOutput("image", {}, "")]
    for output in found:
        output.attributes.update(named)
    if sum(output.dest == "-" for output in found) > 1:
        raise UsageError("only one output can go to standard output")
    return found


def _one(text: str) -> BuildOutput:
    if "=" not in text:
        return _checked(text, BuildOutput("tar", {}, "-") if text == "-" else BuildOutput("local", {}, text))
    attributes = values.fields(text, "output")
    kind, dest = attributes.pop("type", ""), attributes.pop("dest", "")
    if kind == "registry":
        kind = "image"
        attributes["push"] = "true"
    if kind not in _KINDS:
        raise UsageError(
            f"invalid --output `{text}`: type `{kind}`" if kind else f"invalid --output `{text}`: type is required",
            hint=f"use type={'|'.join(_KINDS)}",
        )
    return _checked(text, BuildOutput(kind, attributes, dest))


def _checked(text: str, output: BuildOutput) -> BuildOutput:
    if output.is_directory and output.dest in ("", "-"):
        raise UsageError(
            f"invalid --output `{text}`: dest is required for {output.kind} output", hint="name a directory"
        )
    if output.kind in ("oci", "tar") and not output.dest:
        output.dest = "-"
    if output.dest == "-" and sys.stdout.isatty():
        raise UsageError(
            f"dest file is required for {output.kind} exporter. refusing to write to console",
            hint="add dest=FILE, or redirect standard output",
        )
    if not output.is_directory and output.dest not in ("", "-") and os.path.isdir(output.dest):
        raise UsageError(f"destination directory `{output.dest}`: {output.kind} output needs a file")
    return output


class Sink:
    """The end here of one output: ``fd`` takes its bytes; a local one's archive is unpacked by a thread."""

    def __init__(self, output: BuildOutput, stack: ExitStack) -> None:
        self._output = output
        self._thread: threading.Thread | None = None
        self._error: KetchError | None = None
        self._partial = ""
        if output.is_directory:
            self._open_directory(stack)
        elif output.dest == "-":
            self.fd = 1
        else:
            try:
                os.makedirs(os.path.dirname(os.path.abspath(output.dest)), exist_ok=True)
                partial = partial_name(output.dest)
                self.fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
            except OSError as e:
                raise InvalidArgument(f"write `{output.dest}`: {e.strerror}") from e
            self._partial = partial if partial != output.dest else ""
        stack.callback(self._abandon)

    def _open_directory(self, stack: ExitStack) -> None:
        try:
            os.makedirs(self._output.dest, exist_ok=True)
        except OSError as e:
            raise InvalidArgument(f"write `{self._output.dest}`: {e.strerror}") from e
        reader, self.fd = os.pipe2(os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._unpack, args=(reader,), name="unpack", daemon=True)
        self._thread.start()

    def write(self, data: bytes) -> None:
        """Take bytes that came with the answer."""
        view = memoryview(data)
        while view:
            view = view[os.write(self.fd, view) :]

    def finish(self) -> None:
        """Wait until all is where it belongs; KetchError if it could not be written."""
        self._close()
        if self._thread is not None:
            self._thread.join()
        if self._error is not None:
            raise self._error
        if self._partial:
            os.rename(self._partial, self._output.dest)
            self._partial = ""

    def _unpack(self, reader: int) -> None:
        from ketch.client import tar  # here: few builds have such an output, and each start would pay for it

        with open(reader, "rb", buffering=0) as f:
            try:
                tar.unpack(tar.Incoming(_chunks(f.fileno()), _nothing), self._output.dest, str, owners=False)
            except KetchError as e:
                self._error = e
            for _ in _chunks(f.fileno()):  # else whoever writes would wait, or be killed
                pass

    def _close(self) -> None:
        if self.fd > 2:
            os.close(self.fd)
        self.fd = -1

    def _abandon(self) -> None:
        """Leave nothing that is half written."""
        self._close()
        if self._thread is not None:
            self._thread.join(_END_S)
        if self._partial:
            os.unlink(self._partial)


def _chunks(fd: int) -> Iterator[bytes]:
    while data := os.read(fd, _CHUNK):
        yield data


def _nothing(_count: int) -> None:
    """Report no progress."""
