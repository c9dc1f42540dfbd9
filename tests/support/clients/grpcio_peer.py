"""A peer of gRPC's own library for Python, as a program: a server, or one scenario of a client's.

    python -m tests.support.clients.grpcio_peer serve unix:PATH          until its input ends
    python -m tests.support.clients.grpcio_peer call unix:PATH SCENARIO  prints what came of it as JSON

Its threads would be in the way of what else the process of the tests does.
"""

from __future__ import annotations

import base64
import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc

from tests.support.waiting import patient

LARGEST = 16 << 20
_SIZES = [("grpc.max_receive_message_length", LARGEST), ("grpc.max_send_message_length", LARGEST + 100)]
PREFIX = "/test.Peer/"


class Peer(grpc.GenericRpcHandler):
    """The server's methods; messages are bytes."""

    def service(self, details):
        name = details.method.removeprefix(PREFIX)
        if name in ("Echo", "Fail", "Wait", "Metadata"):
            return grpc.unary_unary_rpc_method_handler(getattr(self, name.lower()))
        if name in ("EchoAll", "Count", "Stuck"):
            return grpc.stream_stream_rpc_method_handler(getattr(self, name.lower()))
        return None

    @staticmethod
    def echo(request, _context):
        return request

    @staticmethod
    def fail(_request, context):
        context.set_trailing_metadata([("grpc-status-details-bin", b"\x08\x09\x12\x05words")])
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "größer\n100 %")

    @staticmethod
    def wait(_request, context):
        ended = threading.Event()
        context.add_callback(ended.set)
        ended.wait(patient(30))
        return b""

    @staticmethod
    def metadata(_request, context):
        found = {key: value for key, value in context.invocation_metadata() if key.startswith("x-")}
        context.send_initial_metadata([("first", "1")])
        context.set_trailing_metadata([("last-bin", found["x-raw-bin"])])
        return found["x-text"].encode()

    @staticmethod
    def echoall(requests, _context):
        yield from requests

    @staticmethod
    def count(requests, _context):
        yield str(sum(len(request) for request in requests)).encode()

    @staticmethod
    def stuck(_requests, context):
        while context.is_active():
            yield bytes(1 << 16)


def serve(address: str) -> None:
    server = grpc.server(ThreadPoolExecutor(16), handlers=[Peer()], options=_SIZES)
    server.add_insecure_port(address)
    server.start()
    print("ready", flush=True)
    sys.stdin.read()
    server.stop(0).wait()


class Scenarios:
    """What a client does, one method a scenario; they return something that JSON has."""

    def __init__(self, channel):
        self.channel = channel

    def unary(self, name):
        return self.channel.unary_unary(PREFIX + name)

    def both(self, name):
        return self.channel.stream_stream(PREFIX + name)

    def echo(self):
        return [len(self.unary("Echo")(bytes(size))) for size in (0, 1, 16384, 70_000, LARGEST)]

    def stream(self):
        sent = [bytes([number]) * number * 1000 for number in range(100)]
        return list(self.both("EchoAll")(iter(sent))) == sent

    def many(self):
        with ThreadPoolExecutor(64) as pool:
            return sum(pool.map(lambda number: int(self.unary("Echo")(str(number).encode())), range(500)))

    def fail(self):
        try:
            self.unary("Fail")(b"")
        except grpc.RpcError as e:
            details = dict(e.trailing_metadata())["grpc-status-details-bin"]
            return [e.code().name, e.details(), base64.b64encode(details).decode()]
        return None

    def unknown(self):
        return self._code(lambda: self.unary("Nothing")(b""))

    def large(self):
        return self._code(lambda: self.unary("Echo")(bytes(LARGEST + 1)))

    def compressed(self):
        return self._code(lambda: self.unary("Echo")(bytes(9999), compression=grpc.Compression.Gzip))

    def deadline(self):
        return self._code(lambda: self.unary("Wait")(b"", timeout=0.2))

    def cancel(self):
        call = self.unary("Wait").future(b"")
        time.sleep(0.2)
        return call.cancel()

    def metadata(self):
        answer, call = self.unary("Metadata").with_call(b"", metadata=[("x-text", "a b"), ("x-raw-bin", b"\0\xff")])
        first, last = dict(call.initial_metadata()), dict(call.trailing_metadata())
        return [answer.decode(), first["first"], base64.b64encode(last["last-bin"]).decode()]

    def break_off(self):
        """Leave a stream that the server fills, then go on with others."""
        call = self.both("Stuck")(iter(()))
        got = len(next(call))
        call.cancel()
        return [got, len(self.unary("Echo")(b"12"))]

    def idle(self):
        """Stay without a call while pings go over the connection."""
        self.unary("Echo")(b"")
        time.sleep(1)
        return len(self.unary("Echo")(b"1"))

    @staticmethod
    def _code(call):
        try:
            call()
        except grpc.RpcError as e:
            return e.code().name
        return "OK"


def main() -> None:
    what, address, *rest = sys.argv[1:]
    if what == "serve":
        serve(address)
        return
    options = [*_SIZES, ("grpc.keepalive_time_ms", 100), ("grpc.keepalive_permit_without_calls", 1)]
    options += [("grpc.http2.max_pings_without_data", 0), ("grpc.default_authority", "localhost")]
    with grpc.insecure_channel(address, options=options) as channel:
        print(json.dumps(getattr(Scenarios(channel), rest[0])()))


if __name__ == "__main__":
    main()
