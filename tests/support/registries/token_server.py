"""A token server as registries name it in their challenges (distribution's token specification, and its OAuth 2)."""

from __future__ import annotations

import base64
import http.server
import json
import threading
import time
import urllib.parse
from typing import TYPE_CHECKING, NamedTuple

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self


class Asked(NamedTuple):
    """A request: by which program, as which user (empty: nobody), for what."""

    agent: str
    user: str
    scopes: list[str]


class TokenServer:
    """Gives tokens signed with a key of its own: to anybody what they ask for, or with ``users`` to these alone.

    ``flags`` are those of ``ketch registry serve``; ``asked`` are the requests.
    """

    def __init__(self, keys: str, users: Mapping[str, str] | None = None) -> None:
        """``keys``: where to write the public key, as PEM."""
        self.key = ec.generate_private_key(ec.SECP256R1())
        with open(keys, "wb") as f:
            f.write(
                self.key.public_key().public_bytes(
                    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
                )
            )
        self.users = users
        self.asked: list[Asked] = []
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
                _, _, encoded = self.headers.get("Authorization", "").partition(" ")
                user, _, password = base64.b64decode(encoded).decode().partition(":")
                self._give(user, password, query.get("scope", []), "token")

            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                form = dict(urllib.parse.parse_qsl(self.rfile.read(length).decode()))
                scopes = form.get("scope", "").split()
                self._give(form.get("username", ""), form.get("password", ""), scopes, "access_token")

            def _give(self, user: str, password: str, scopes: list[str], name: str) -> None:
                server.asked.append(Asked(self.headers.get("User-Agent", ""), user, scopes))
                refused = server.users is not None and server.users.get(user) != password
                answer: dict[str, object] = {"errors": [{"code": "UNAUTHORIZED", "message": "who are you"}]}
                if not refused:
                    answer = {name: server.token(list(map(_access, scopes))), "expires_in": 60}
                body = json.dumps(answer).encode()
                self.send_response(401 if refused else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_arguments: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/token"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self.flags = [
            *("--token-realm", self.url, "--token-service", "depot"),
            *("--token-issuer", "issuer", "--token-keys", keys),
        ]

    def token(self, access: list[dict[str, object]], **claims: object) -> str:
        full = {"iss": "issuer", "aud": "depot", "sub": "ann", "exp": time.time() + 60, "access": access, **claims}
        return jwt.encode(full, self.key, algorithm="ES256")

    @property
    def scopes(self) -> list[str]:
        """All that tokens were asked for."""
        return [scope for one in self.asked for scope in one.scopes]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _access(scope: str) -> dict[str, object]:
    kind, name, actions = scope.split(":")
    return {"type": kind, "name": name, "actions": actions.split(",")}
