"""Methods of a build's client: the blobs that it keeps."""

from __future__ import annotations

from typing import ClassVar

from ketch.buildkit.wire.files import content_pb2
from ketch.rpc.method import Method, Service


class ContentService(Service, of=content_pb2.DESCRIPTOR.services_by_name["Content"]):
    """containerd.services.content.v1.Content."""

    Info: ClassVar[Method[content_pb2.InfoRequest, content_pb2.InfoResponse]]
    Read: ClassVar[Method[content_pb2.ReadContentRequest, content_pb2.ReadContentResponse]]
    Write: ClassVar[Method[content_pb2.WriteContentRequest, content_pb2.WriteContentResponse]]
