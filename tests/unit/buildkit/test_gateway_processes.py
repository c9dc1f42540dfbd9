"""Processes of front ends: what a client is told when the engine itself fails."""

from __future__ import annotations

import asyncio
from errno import ENOSPC
from types import SimpleNamespace

from ketch.build.llb import ops_pb2 as llb
from ketch.buildkit.gateway import processes
from ketch.buildkit.wire.gateway import gateway_pb2 as pb
from tests.support.waiting import patient


class Call:
    """A call of a client that begins a process, and tells the size of its terminal at once."""

    def __init__(self) -> None:
        self.told: list[pb.ExecMessage] = []

    async def __aiter__(self):
        meta = llb.Meta(args=["true"])
        yield pb.ExecMessage(ProcessID="p", Init=pb.InitMessage(ContainerID="c", Meta=meta, Fds=[0, 1, 2], Tty=True))
        yield pb.ExecMessage(ProcessID="p", Resize=pb.ResizeMessage(Rows=10, Cols=10))
        yield pb.ExecMessage(ProcessID="p", Signal=pb.SignalMessage(Name="TERM"))

    async def send(self, message):
        self.told.append(message)


def build(error):
    async def start(_options):
        await asyncio.sleep(0)  # so that the size comes before the failure
        raise error

    return SimpleNamespace(containers=SimpleNamespace(find=lambda _id: SimpleNamespace(start=start)))


async def test_a_machine_without_room():
    call = Call()
    await asyncio.wait_for(processes.serve(build(OSError(ENOSPC, "", "/run/x")), call), patient(20))
    assert [one.WhichOneof("Input") for one in call.told] == ["Started", "Exit", "File", "File", "Done"]
    exit = call.told[1].Exit
    assert exit.Code == 255
    assert exit.Error.message.startswith("start a process in a build's container: no space left on device: `/run/x`")


async def test_a_defect_is_logged_and_holds_up_nothing(caplog):
    call = Call()
    await asyncio.wait_for(processes.serve(build(ZeroDivisionError("ours")), call), patient(20))
    assert "ours" in caplog.text
