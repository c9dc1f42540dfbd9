"""Tokens that a client gets: kept while they serve, asked for anew when refused."""

from __future__ import annotations

import pytest

from ketch.buildkit.services.credentials import AuthService
from ketch.buildkit.session.tokens import ClientCredentials
from ketch.buildkit.wire.credentials import auth_pb2
from ketch.errors import Unauthenticated
from ketch.rpc.status import Code, RpcError


class Session:
    """What answers: ``lasts_s`` is told with tokens, ``refuses`` is an error for each method."""

    def __init__(self, lasts_s=300, refuses=None):
        self.lasts_s, self.refuses, self.calls = lasts_s, refuses or {}, []

    async def asked(self, method, request):
        self.calls.append(request)
        if error := self.refuses.get(method):
            raise error
        if method is AuthService.GetTokenAuthority:
            return auth_pb2.GetTokenAuthorityResponse(PublicKey=b"key")
        return auth_pb2.FetchTokenResponse(Token=f"token{len(self.calls)}", ExpiresIn=self.lasts_s)


async def reveal():
    return "ann", "secret"


SCOPES = ["repository:a:pull", "repository:b:pull"]


async def test_one_token_for_the_same_scopes():
    session = Session()
    one = ClientCredentials(session.asked, "the.host", reveal)
    first = await one.token("https://realm", "service", SCOPES)
    assert await one.token("https://realm", "service", SCOPES) == first
    authority, asked = session.calls
    assert authority.Host == asked.Host == "the.host"
    assert len(authority.Salt) == 32
    assert (asked.Realm, asked.Service, list(asked.Scopes)) == ("https://realm", "service", SCOPES)
    assert await one.token("https://realm", "service", SCOPES[:1]) != first
    one.forget("https://realm", "service", SCOPES)
    assert await one.token("https://realm", "service", SCOPES) != first
    assert one.known is None


async def test_a_token_that_serves_for_a_moment():
    session = Session(lasts_s=1)
    one = ClientCredentials(session.asked, "h", reveal)
    assert await one.token("r", "s", []) != await one.token("r", "s", [])


@pytest.mark.parametrize("code", [Code.UNAVAILABLE, Code.UNIMPLEMENTED])
async def test_a_client_that_gets_none(code):
    session = Session(refuses={AuthService.GetTokenAuthority: RpcError(code, "no")})
    one = ClientCredentials(session.asked, "h", reveal)
    assert [await one.token("r", "s", []) for _ in range(2)] == [None, None]
    assert len(session.calls) == 1
    revealed = await one.revealed()
    assert (revealed.username, revealed.password) == ("ann", "secret")
    assert one.known is revealed


async def test_a_client_that_is_refused():
    session = Session(refuses={AuthService.FetchToken: RpcError(Code.UNKNOWN, "failed to fetch: 401")})
    with pytest.raises(Unauthenticated, match="failed to authorize: failed to fetch: 401"):
        await ClientCredentials(session.asked, "h", reveal).token("r", "s", [])
