"""RUN: a command in the stage's files."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

from ketch.build.dockerfile import heredocs, words
from ketch.build.dockerfile.convert import sources
from ketch.build.dockerfile.convert.config import in_shell
from ketch.build.dockerfile.convert.mounts import Mounts
from ketch.build.llb import ops_pb2 as pb
from ketch.build.llb.operations import Action, MountInput, execute, files, output_at

if TYPE_CHECKING:
    from ketch.build.dockerfile.convert.mounts import Sources
    from ketch.build.dockerfile.convert.options import ConvertOptions
    from ketch.build.dockerfile.convert.state import StageState
    from ketch.build.dockerfile.instructions.run import Run

_PIPES = "/dev/pipes/"
_NETWORKS = {"none": pb.NONE, "host": pb.HOST}
_PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy")


def convert_run(state: StageState, one: Run, mounted: Sources) -> None:
    """Add a command (DockerfileError)."""
    options = state.build.options
    state.paths.add("/")  # a command may read anything
    script = _Script(state, one)
    mounts = Mounts(state, one, mounted)
    if options.shm_size:
        size = pb.TmpfsOpt(size=options.shm_size)
        mounts.inputs.append(MountInput(pb.Mount(dest="/dev/shm", mountType=pb.TMPFS, TmpfsOpt=size)))
    meta = pb.Meta(
        args=script.args,
        env=[*(f"{name}={value}" for name, value in state.variables.items()), *mounts.env],
        cwd=state.directory,
        user=state.config.user or "",
        hostname=options.hostname,
        cgroupParent=options.cgroup_parent,
        extraHosts=[pb.HostIP(Host=host, IP=address) for host, address in options.hosts],
        ulimit=[pb.Ulimit(Name=name, Soft=soft, Hard=hard) for name, soft, hard in options.ulimits],
    )
    if proxies := _proxies(options):
        meta.proxy_env.CopyFrom(pb.ProxyEnv(**proxies))
    devices = [*options.devices, *((device.name, not device.required) for device in one.devices)]
    command = pb.ExecOp(
        meta=meta,
        network=_NETWORKS.get(one.network, options.network),
        network_name="" if one.network in _NETWORKS else options.network_name,
        security=pb.INSECURE if one.security == "insecure" else pb.SANDBOX,
        secretenv=mounts.secrets,
        cdiDevices=[pb.CDIDevice(name=name, optional=optional) for name, optional in devices],
    )
    metadata = state.metadata(script.name(mounts), command=one.statement.line)
    metadata.ignore_cache = state.node.ignore_cache
    if options.resources is not None:
        metadata.linux_resources.CopyFrom(options.resources)
    root = MountInput(pb.Mount(dest="/"), state.edge)
    inputs = [*mounts.inputs, *script.inputs, root, *mounts.late]
    state.edge = output_at(execute(command, inputs, sources.message(state.platform), metadata), "/")
    state.place(state.edge, one)
    state.remember(f"RUN {_with_args(state, script.args)}", layer=True, marked=True)


def _proxies(options: ConvertOptions) -> dict[str, str]:
    """The proxies among the build's arguments; of names in several cases the last counts."""
    return {name.lower(): value for name, value in sorted(options.args.items()) if name.lower() in _PROXIES}


def _with_args(state: StageState, args: list[str]) -> str:
    """A command for the history, with the arguments of the build that it saw."""
    values = {name: state.variables.get(name, value or "") for name, value in state.args}
    shown = [f"{name}={value}" for name, value in values.items()]
    return " ".join([*([f"|{len(shown)}", *shown] if shown else []), *args])


class _Script:
    """The words of a command, and a mount for a script with an interpreter of its own."""

    def __init__(self, state: StageState, one: Run) -> None:
        self._state, self._one = state, one
        self.inputs: list[MountInput] = []
        self._summary = ""
        texts = self._texts()
        self.args = in_shell(state, texts) if one.command.shell else texts

    def _texts(self) -> list[str]:
        command = self._one.command
        if not command.heredocs:
            return list(command.words)
        first, text = command.heredocs[0], command.words[0]
        if heredocs.mark(text) is None:  # documents that the shell itself is to read
            return ["\n".join([text, *(f"{document.content}{document.name}" for document in command.heredocs)])]
        self._summary = f" ({_summary(first.content)})"
        script = first.text()
        if not script.startswith("#!"):
            return [script]
        document = pb.FileActionMkFile(
            path=f"/{first.name}", mode=0o755, data=script.encode("utf-8", "surrogateescape"), timestamp=-1
        )
        metadata = self._state.metadata("[internal] preparing inline document")
        made = files(None, [Action(pb.FileAction(mkfile=document))], None, metadata)
        self.inputs.append(MountInput(pb.Mount(dest=_PIPES, selector="/", readonly=True), made))
        return [posixpath.join(_PIPES, first.name)]

    def name(self, mounts: Mounts) -> str:
        """The step's name; what comes from secrets is hidden in it."""
        variables = {**self._state.variables, **dict.fromkeys((secret.name for secret in mounts.secrets), "****")}
        text = self._one.statement.line.strip() + self._summary
        return self._state.step(words.shown(text, variables, self._one.statement.escape))


def _summary(document: str) -> str:
    first, *more = document.strip().replace("\r\n", "\n").split("\n")
    return first + ("..." if more else "")
