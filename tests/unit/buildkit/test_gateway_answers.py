"""What front ends are told, and what they tell, where it is not of the protocol."""

import asyncio
import contextlib
import hashlib
import os
import types

import pytest

from ketch.buildkit.gateway import sources
from ketch.buildkit.gateway.failures import told
from ketch.buildkit.gateway.served import ReturnedError
from ketch.buildkit.wire.gateway import gateway_pb2 as pb
from ketch.engine.build.frontends import source_facts
from ketch.errors import InvalidArgument
from ketch.rpc.status import Code


@pytest.mark.parametrize(("code", "shown"), [(5, Code.NOT_FOUND), (999, Code.UNKNOWN), (-1, Code.UNKNOWN)])
def test_a_front_ends_own_code_that_grpc_has_not_is_unknown(code, shown):
    assert told(ReturnedError(code, "no", ())).code is shown


def test_an_unknown_checksum_algorithm_is_refused():
    asked = pb.ChecksumRequest(Algo=9)
    with pytest.raises(InvalidArgument, match="unknown checksum algorithm 9"):
        asyncio.run(sources._web_file(None, None, asked))


def test_an_empty_file_of_the_web_has_a_digest(tmp_path, monkeypatch):
    (tmp_path / "empty").touch()

    async def looked(_ref, look):
        root = os.open(tmp_path, os.O_RDONLY)
        with contextlib.ExitStack() as undo:
            undo.callback(os.close, root)
            return look(root)

    monkeypatch.setattr(source_facts, "_edge", lambda asked: asked)
    bridge = types.SimpleNamespace(ref=lambda edge: edge, looked=looked)
    found = asyncio.run(source_facts.web_file(bridge, None))
    assert (found.name, found.checksum) == ("empty", f"sha256:{hashlib.sha256().hexdigest()}")
