"""What front ends are told, and what they tell, where it is not of the protocol."""

import asyncio
import contextlib
import hashlib
import os
import types

import pytest

from ketch.buildkit.gateway import sources
from ketch.buildkit.wire.gateway import gateway_pb2 as pb
from ketch.engine.build.frontends import source_facts
from ketch.errors import InvalidArgument


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
