"""BuildKit's messages and services as modules: made of the files as they are, with the names on the wire."""

from __future__ import annotations

import hashlib
import importlib
import os
import pathlib
import typing

import pytest

import ketch
from ketch.buildkit.services import content, control, credentials, files, gateway
from ketch.buildkit.wire.control import control_pb2
from ketch.rpc import health
from ketch.rpc.method import Service

SOURCE = pathlib.Path(ketch.__file__).parent
PROTOS = sorted(str(path.relative_to(SOURCE)) for path in SOURCE.rglob("*.proto"))
SERVICES = {
    "/moby.buildkit.v1.Control/": control.ControlService,
    "/moby.buildkit.v1.frontend.LLBBridge/": gateway.LLBBridgeService,
    "/moby.filesync.v1.FileSync/": files.FileSyncService,
    "/moby.filesync.v1.FileSend/": files.FileSendService,
    "/moby.upload.v1.Upload/": files.UploadService,
    "/containerd.services.content.v1.Content/": content.ContentService,
    "/moby.exporter.v1.Exporter/": files.ExporterService,
    "/moby.filesync.v1.Auth/": credentials.AuthService,
    "/moby.buildkit.secrets.v1.Secrets/": credentials.SecretsService,
    "/moby.sshforward.v1.SSH/": credentials.SSHService,
    "/grpc.health.v1.Health/": health.HealthService,
}


@pytest.mark.parametrize("proto", PROTOS)
def test_generated_modules_are_of_the_protocol_as_it_is(proto):
    path = SOURCE / proto
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    for name in (path.stem + "_pb2.py", path.stem + "_pb2.pyi"):
        assert (path.parent / name).read_text(encoding="utf-8").startswith(f"# of {path.name} {digest}\n"), (
            "run scripts/protos"
        )


def test_messages_have_the_names_that_other_peers_know():
    """Details of errors are found by these names."""
    for module, names in {
        "ketch.buildkit.wire.errors.errdefs_pb2": ["errdefs.Solve", "errdefs.Source", "errdefs.Vertex"],
        "ketch.buildkit.wire.errors.stack_pb2": ["stack.Stack"],
        "ketch.rpc.wire.status_pb2": ["google.rpc.Status"],
        "ketch.buildkit.wire.gateway.caps_pb2": ["moby.buildkit.v1.apicaps.APICap"],
        "ketch.buildkit.wire.control.policy_pb2": ["moby.buildkit.v1.sourcepolicy.Policy"],
        "ketch.buildkit.wire.files.stat_pb2": ["fsutil.types.Stat"],
    }.items():
        for name in names:
            message = getattr(importlib.import_module(module), name.rpartition(".")[2])
            assert message.DESCRIPTOR.full_name == name


@pytest.mark.parametrize("prefix", SERVICES)
def test_the_table_of_a_service_has_its_methods_with_their_types(prefix):
    service = SERVICES[prefix]
    annotated = typing.get_type_hints(service)
    assert issubclass(service, Service)
    assert [method.path for method in service.methods] == [
        prefix + name for name in service.__annotations__ if name != "methods"
    ]
    for method in service.methods:
        (hint,) = typing.get_args(annotated[os.path.basename(method.path)])
        assert typing.get_args(hint) == (method.request, method.answer)


def test_every_service_has_a_table():
    found = set()
    for proto in PROTOS:
        module = importlib.import_module("ketch." + proto.removesuffix(".proto").replace("/", ".") + "_pb2")
        found.update(f"/{service.full_name}/" for service in module.DESCRIPTOR.services_by_name.values())
    assert found == set(SERVICES)


def test_a_message_crosses_files():
    """A history record has a status of gRPC's, a request has a graph: both come out as they went in."""
    record = control_pb2.BuildHistoryRecord(Ref="r", error={"code": 5, "message": "gone"})
    assert control_pb2.BuildHistoryRecord.FromString(record.SerializeToString()).error.message == "gone"
    request = control_pb2.SolveRequest(Ref="r", Definition={"def": [b"op"]})
    assert getattr(control_pb2.SolveRequest.FromString(request.SerializeToString()).Definition, "def") == [b"op"]
