"""A relay between a socket pair and a TLS connection: the pair's end is used as a plain socket.

A thread moves the bytes.  The end of one direction is passed on in both, as a close_notify alert (RFC 8446 §6.1), with
the other direction open; what is on its way is bounded.
"""

from __future__ import annotations

import select
import socket
import ssl
import threading

from ketch.errors import InvalidArgument, Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.client.addresses import Tls

_CHUNK = 1 << 16


def start(sock: socket.socket, tls: Tls, name: str) -> socket.socket:
    """The near end of a TLS connection over a socket, after the handshake with a server of that name.

    InvalidArgument: files of certificates cannot be read; Unavailable: the handshake failed.
    """
    try:
        context = client_context(tls)
    except InvalidArgument:
        sock.close()
        raise
    try:
        inside, outside = ssl.MemoryBIO(), ssl.MemoryBIO()
        connection = context.wrap_bio(inside, outside, server_hostname=name)
        relay = _Relay(sock, connection, inside, outside)
        relay.shake_hands()
    except (OSError, ValueError) as e:
        sock.close()
        raise Unavailable(
            f"speak TLS with the daemon at {name}: {getattr(e, 'verify_message', '') or e}",
            hint="see which authority signs its certificate, and whether it wants one of the client",
        ) from e
    near, relay.near = socket.socketpair()
    threading.Thread(target=relay.run, name="tls", daemon=True).start()
    return near


def client_context(tls: Tls) -> ssl.SSLContext:
    """The settings of a TLS client (InvalidArgument: its files cannot be read)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    try:
        if tls.authorities:
            context.load_verify_locations(tls.authorities)
        elif tls.verify:
            context.load_default_certs()
        if tls.certificate:
            context.load_cert_chain(tls.certificate, tls.key or None)
    except (OSError, ssl.SSLError) as e:
        paths = ", ".join(path for path in (tls.authorities, tls.certificate, tls.key) if path)
        raise InvalidArgument(f"read the certificates of the daemon's clients ({paths}): {e}") from e
    return context


class _Relay:
    """The bytes between ``near``, a socket, and the TLS connection over ``far``."""

    near: socket.socket

    def __init__(
        self, far: socket.socket, connection: ssl.SSLObject, inside: ssl.MemoryBIO, outside: ssl.MemoryBIO
    ) -> None:
        self._far = far
        self._connection = connection
        self._inside, self._outside = inside, outside
        self._to_near, self._to_far = b"", b""
        self._near_open = self._far_open = True  # whether more may come from there
        self._gone = False  # whether the other end of the pair is closed

    def shake_hands(self) -> None:
        """Shake hands, before all else."""
        while True:
            try:
                self._connection.do_handshake()
                return
            except ssl.SSLWantReadError:
                self._far.sendall(self._outside.read())
                data = self._far.recv(_CHUNK)
                if not data:
                    raise OSError("the connection was closed") from None
                self._inside.write(data)
            finally:
                if self._outside.pending:
                    self._far.sendall(self._outside.read())

    def run(self) -> None:
        """Move bytes until both directions have ended, or one end is gone."""
        with self._far, self.near:
            self._far.setblocking(False)
            self.near.setblocking(False)
            try:
                self._take_decrypted()  # may have come with the handshake
                while self._near_open or self._far_open or self._to_near or self._to_far:
                    self._step()
            except OSError:  # one end is gone: the other one reads the end of its bytes
                return

    def _step(self) -> None:
        poll = select.poll()
        near = (select.POLLIN if self._near_open and len(self._to_far) < _CHUNK else 0) | (
            select.POLLOUT if self._to_near else 0
        )
        far = (select.POLLIN if self._far_open and len(self._to_near) < _CHUNK else 0) | (
            select.POLLOUT if self._to_far else 0
        )
        if self._gone and not self._to_far:
            raise ConnectionResetError  # all that was written is sent
        if not self._gone:
            poll.register(self.near, near)  # in any case, as it tells that the other end of the pair is closed
        if far:
            poll.register(self._far, far)
        for fd, found in poll.poll():
            if fd == self.near.fileno():
                self._serve_near(found)
            else:
                self._serve_far(found)

    def _serve_near(self, found: int) -> None:
        if found & select.POLLOUT:
            self._to_near = self._to_near[self.near.send(self._to_near) :]
            self._pass_on_end()
            return
        data = self.near.recv(_CHUNK)
        if data:
            self._connection.write(data)
        else:
            self._gone = bool(found & select.POLLHUP)  # nobody reads any more
            self._near_open = False
            self._say_end()
        self._to_far += self._outside.read()

    def _serve_far(self, found: int) -> None:
        if found & select.POLLOUT:
            self._to_far = self._to_far[self._far.send(self._to_far) :]
            return
        data = self._far.recv(_CHUNK)
        if data:
            self._inside.write(data)
        else:
            self._inside.write_eof()
        self._take_decrypted()
        self._to_far += self._outside.read()  # an answer of TLS itself: a new key

    def _take_decrypted(self) -> None:
        try:
            while data := self._connection.read(_CHUNK):
                self._to_near += data
            self._far_open = False
        except ssl.SSLWantReadError:
            return
        except ssl.SSLError:  # the end without a close_notify, or nonsense: no more can be had
            self._far_open = False
        self._pass_on_end()

    def _pass_on_end(self) -> None:
        if not self._far_open and not self._to_near:
            self.near.shutdown(socket.SHUT_WR)

    def _say_end(self) -> None:
        try:
            self._connection.unwrap()
        except ssl.SSLError:
            return  # the other side's end comes when it comes
