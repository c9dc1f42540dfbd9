"""RUN."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ketch.build.dockerfile.arguments import quoted
from ketch.build.dockerfile.errors import DockerfileError
from ketch.build.dockerfile.instructions import flags, mounts
from ketch.build.dockerfile.instructions.base import Instruction
from ketch.build.dockerfile.instructions.commands import command_line
from ketch.build.dockerfile.instructions.flags import FlagKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.build.dockerfile.instructions.commands import CommandLine
    from ketch.build.dockerfile.instructions.mounts import RunDevice, RunMount
    from ketch.build.dockerfile.parser import Statement

NETWORKS = ("default", "host", "none")
SECURITY = ("insecure", "sandbox")

_FLAGS = {"device": FlagKind.VALUES, "mount": FlagKind.VALUES, "network": FlagKind.VALUE, "security": FlagKind.VALUE}


class Run(Instruction, kw_only=True):
    """``RUN [FLAGS] COMMAND``, with here-documents as its script or its input.

    ``mount_options`` are texts until variables are known.
    """

    command: CommandLine
    mount_options: list[str]
    network: str
    security: str
    devices: list[RunDevice]

    def sources(self) -> list[str]:
        """The stages or images that mounts are of: their names have no variables."""
        return [name for text in self.mount_options if (name := mounts.source_stage(text))]

    def mounts(self, expand: Callable[[str], str] = lambda text: text) -> list[RunMount]:
        """The mounts, with their values expanded (DockerfileError)."""
        return [mounts.read_mount(text, expand) for text in self.mount_options]


def read_run(statement: Statement) -> Run:
    """RUN (DockerfileError)."""
    given = flags.read(statement, _FLAGS)
    options = given.texts("mount")
    for text in options:
        mounts.check_mount(text)
    network, security = given.text("network", "default"), given.text("security", "sandbox")
    if network not in NETWORKS:
        raise DockerfileError(f"invalid network mode {quoted(network)}", word=network)
    if security not in SECURITY:
        raise DockerfileError(f"security {quoted(security)} is not valid", word=security)
    return Run(
        statement=statement,
        command=command_line(statement),
        mount_options=options,
        network=network,
        security=security,
        devices=[mounts.read_device(text) for text in given.texts("device")],
    )
