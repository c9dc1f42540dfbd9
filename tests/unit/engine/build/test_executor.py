"""What the executor of builds says when several things fail."""

from __future__ import annotations

import contextlib
from errno import ENOSPC
from types import SimpleNamespace

import pytest

from ketch.build.errors import CommandFailed
from ketch.build.providers import BuildCommand
from ketch.build.tree import EMPTY
from ketch.engine.apparmor.profiles import AppArmorProfiles
from ketch.engine.build import executor
from ketch.engine.build.command.networks import CommandNetwork
from ketch.errors import ResourceExhausted


class Files:
    """Files of a command that cannot be kept."""

    error: Exception
    name, users = "build-one", None

    def __init__(self, *_arguments) -> None:
        pass

    def prepare(self, *_arguments) -> None:
        pass

    def cgroup(self, parent):
        return parent

    def message(self, _parent):
        return {}

    def take(self, _lease, _everything):
        raise self.error

    def forget(self) -> None:
        pass

    def remove(self) -> None:
        pass


@pytest.mark.parametrize("error", [OSError(ENOSPC, "no space"), ResourceExhausted("no space")])
async def test_a_failed_command_whose_files_cannot_be_kept(monkeypatch, caplog, error):
    """Its user is told how it ended, not that the disk is full."""

    async def run(*_arguments):
        return SimpleNamespace(code=7, oom=False)

    async def ready(_mode):
        pass

    monkeypatch.setattr(executor, "CommandFiles", Files)
    monkeypatch.setattr(Files, "error", error, raising=False)
    found = executor.BuildExecutor(
        paths=None,
        cgroups=SimpleNamespace(check_parent=lambda _parent: None, place=lambda _parent, name: name),
        snapshots=None,
        layers=None,
        containers=SimpleNamespace(run=run, networks=SimpleNamespace(find=lambda _command: CommandNetwork())),
        caches=None,
        apparmor=AppArmorProfiles(),
        user_namespaces=SimpleNamespace(ready=ready, of_command=lambda **_facts: contextlib.nullcontext()),
        later=lambda work: work(),
    )
    with pytest.raises(CommandFailed, match="exit code: 7") as raised:
        await found.run(BuildCommand(args=["false"], root=EMPTY), None, lambda _stream, _data: None)
    await found.close()
    assert raised.value.left is None
    assert "no space" in caplog.text
