"""The flags of ``build``: those of docker's client with BuildKit, and Ketch's own."""

from __future__ import annotations

import os

from ketch.cli.options.flags import FlagSet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.cli.options.flags import Options

# Flag, short, kind, help.
_FLAGS = [
    ("add-host", "", "list", "a name and its address in the steps' hosts file (NAME:ADDRESS)"),
    ("allow", "", "list", "what steps may ask for: network.host, security.insecure, device"),
    ("annotation", "", "list", "an annotation of the image (KEY=VALUE, TYPE:KEY=VALUE)"),
    ("attest", "", "list", "what is to be said of the result (type=provenance|sbom[,NAME=VALUE…])"),
    ("build-arg", "", "list", "a build argument (NAME=VALUE; NAME alone: from the environment)"),
    ("build-context", "", "list", "a further context (NAME=DIRECTORY, docker-image://, oci-layout://, https://, git)"),
    ("builder", "", "string", "no effect: the daemon is the builder"),
    ("cache-from", "", "list", "take cached steps from there (an image, or type=registry|local|inline,…)"),
    ("cache-to", "", "list", "keep steps there, too (type=registry|local|inline,…)"),
    ("cgroup-parent", "", "string", "the cgroup in which steps run"),
    ("cpu-period", "", "int", "of the steps: the period of the CPU quota, in µs"),
    ("cpu-quota", "", "int", "of the steps: CPU time in each period, in µs"),
    ("cpu-shares", "c", "int", "of the steps: their share of the CPUs"),
    ("cpuset-cpus", "", "string", "of the steps: on which CPUs they run"),
    ("cpuset-mems", "", "string", "of the steps: on which memory nodes they run"),
    ("debug", "D", "bool", "warnings with the lines that they are about"),
    ("explain", "", "bool", "tell of each step that was not cached why not"),
    ("file", "f", "string", "the Dockerfile (default: PATH/Dockerfile; - from standard input)"),
    ("iidfile", "", "string", "write the image's ID to this file"),
    ("label", "", "list", "a label of the image (KEY=VALUE)"),
    ("load", "", "bool", "the same as --output=type=docker"),
    ("memory", "m", "string", "of the steps: most memory"),
    ("memory-swap", "", "string", "of the steps: most memory and swap together, -1 for any"),
    ("metadata-file", "", "string", "write what is known of the result to this file, as JSON"),
    ("no-cache", "", "bool", "use nothing that was made before"),
    ("no-cache-filter", "", "list", "use nothing that was made before for these stages"),
    ("output", "o", "list", "where the result goes (type=image|docker|oci|local|tar[,dest=PATH]; DIRECTORY; -)"),
    ("platform", "", "list", "for which platforms"),
    ("provenance", "", "string", "the same as --attest=type=provenance,… (false, mode=min|max, version=v1|v0.2)"),
    ("pull", "", "bool", "ask the registries for newer base images"),
    ("push", "", "bool", "the same as --output=type=registry"),
    ("quiet", "q", "bool", "print the image's ID alone"),
    ("sbom", "", "string", "the same as --attest=type=sbom,… (true, generator=IMAGE)"),
    ("secret", "", "list", "a secret for RUN --mount=type=secret (id=NAME[,src=FILE|,env=VARIABLE])"),
    ("shm-size", "", "string", "the size of the steps' /dev/shm"),
    ("shell-on-failure", "", "bool", "where a step fails, open a shell in what it left"),
    ("ssh", "", "list", "an SSH agent for RUN --mount=type=ssh (default, ID, ID=SOCKET)"),
    ("tag", "t", "list", "a name for the image (NAME[:TAG])"),
    ("target", "", "string", "the stage to build"),
    ("ulimit", "", "list", "a limit of the steps' processes (NAME=SOFT[:HARD])"),
]
# Flags of the builder that docker had before BuildKit; what they ask for is so anyway.
_WITHOUT_EFFECT = (
    ("compress", "bool"),
    ("force-rm", "bool"),
    ("isolation", "string"),
    ("rm", "bool"),
)


def flag_set(command: str = "build") -> FlagSet:
    """All of them."""
    spec = FlagSet(command, f"ketch {command} [OPTIONS] PATH | URL | -", "Build an image from a Dockerfile")
    for name, short, kind, text in _FLAGS:
        spec.add(name, short, kind, text)
    for name, kind in _WITHOUT_EFFECT:
        spec.add(name, "", kind, "no effect")
    spec.string("call", "", "evaluate the Dockerfile only: check, outline, targets [,format=json]", default="build")
    spec.bool("check", "", "the same as --call=check")
    spec.string("network", "", "the steps' network: default, host, none", default="default")
    return spec.string("progress", "", "auto, plain, tty, rawjson or quiet", default="auto")


def mode(opts: Options) -> str:
    """The display that the flags ask for (UsageError)."""
    from ketch.cli.errors import UsageError
    from ketch.cli.output.build_display import MODES

    chosen = str(opts["progress"])
    if "progress" not in opts.given:
        chosen = os.environ.get("BUILDKIT_PROGRESS") or chosen
    if chosen not in MODES:
        raise UsageError(f"invalid --progress `{chosen}`", hint=f"use {', '.join(MODES[:-1])}")
    if not opts["quiet"]:
        return chosen
    if "progress" in opts.given and chosen not in ("auto", "quiet"):
        raise UsageError(f"--progress {chosen} and --quiet cannot be used together")
    return "quiet"
