"""Methods of a build's client: trees of files, streams of bytes."""

from __future__ import annotations

from typing import ClassVar

from ketch.buildkit.wire.files import exporter_pb2, filesync_pb2, packet_pb2, upload_pb2
from ketch.rpc.method import Method, Service


class FileSyncService(Service, of=filesync_pb2.DESCRIPTOR.services_by_name["FileSync"]):
    """moby.filesync.v1.FileSync."""

    DiffCopy: ClassVar[Method[packet_pb2.Packet, packet_pb2.Packet]]
    TarStream: ClassVar[Method[packet_pb2.Packet, packet_pb2.Packet]]


class FileSendService(Service, of=filesync_pb2.DESCRIPTOR.services_by_name["FileSend"]):
    """moby.filesync.v1.FileSend."""

    DiffCopy: ClassVar[Method[filesync_pb2.BytesMessage, filesync_pb2.BytesMessage]]


class UploadService(Service, of=upload_pb2.DESCRIPTOR.services_by_name["Upload"]):
    """moby.upload.v1.Upload."""

    Pull: ClassVar[Method[upload_pb2.BytesMessage, upload_pb2.BytesMessage]]


class ExporterService(Service, of=exporter_pb2.DESCRIPTOR.services_by_name["Exporter"]):
    """moby.exporter.v1.Exporter."""

    FindExporters: ClassVar[Method[exporter_pb2.FindExportersRequest, exporter_pb2.FindExportersResponse]]
    FinalizeExport: ClassVar[Method[exporter_pb2.FinalizeExportRequest, exporter_pb2.FinalizeExportResponse]]
