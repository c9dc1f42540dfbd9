"""Headers of registries, credentials of clients, insecure hosts."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.errors import InvalidArgument
from ketch.oci.reference import parse
from ketch.remote import headers
from ketch.remote.auth import TokenCache
from ketch.remote.client import Remotes, host_of
from ketch.remote.credentials import Credentials, from_header
from ketch.remote.settings import Settings
from ketch.remote.transport import Transport

WORD = st.text("abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=8)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Basic", [("basic", {})]),
        ('Basic realm="a, b"', [("basic", {"realm": "a, b"})]),
        (
            'Bearer realm="https://x/token",service="reg",scope="repository:a:pull,push"',
            [("bearer", {"realm": "https://x/token", "service": "reg", "scope": "repository:a:pull,push"})],
        ),
        ('Basic realm=r, Bearer realm="t"', [("basic", {"realm": "r"}), ("bearer", {"realm": "t"})]),
        (r'Basic realm="say \"hi\""', [("basic", {"realm": 'say "hi"'})]),
        ("", []),
    ],
)
def test_challenges(text, expected):
    assert [(one.scheme, one.parameters) for one in headers.challenges(text)] == expected


@given(WORD, st.dictionaries(WORD, st.text(max_size=20), max_size=4))
def test_a_challenge_is_read_as_it_was_written(scheme, parameters):
    def quoted(value: str) -> str:
        return value.replace("\\", "\\\\").replace('"', '\\"')

    text = f"{scheme} " + ", ".join(f'{name}="{quoted(value)}"' for name, value in parameters.items())
    if any("\n" in value for value in parameters.values()):
        return  # no header has one
    assert headers.challenges(text) == [headers.Challenge(scheme, parameters)]


@pytest.mark.parametrize("begin", ["Bearer a=%s x", 'Bearer a="%s', "%s"])
@pytest.mark.parametrize("piece", ["b", "\\", "<"])
def test_long_texts_are_read_once(begin, piece):
    """Tried in all ways, some of these would take hours."""
    text = begin % (piece * 1_000_000)
    headers.challenges(text)
    assert headers.next_link(text) is None


@given(st.text(max_size=60))
def test_any_text_ends(text):
    headers.challenges(text)
    headers.next_link(text)
    headers.range_of(text)
    headers.retry_after(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('</v2/a/tags/list?n=1&last=b>; rel="next"', "/v2/a/tags/list?n=1&last=b"),
        ("<https://x/y>; rel=next", "https://x/y"),
        ('<a>; rel="prev", <b>; title="x"; rel="next"', "b"),
        ('<a>; rel="previous"', None),
        ("", None),
    ],
)
def test_links(text, expected):
    assert headers.next_link(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("bytes 5-9/10", (5, 9)), ("0-99", (0, 99)), ("bytes=0-99", (0, 99)), ("bytes 5-9/*", (5, 9)), ("x", None)],
)
def test_ranges(text, expected):
    assert headers.range_of(text) == expected


@pytest.mark.parametrize(("text", "seconds"), [("3", 3.0), ("9999", 30.0), ("soon", None), (None, None)])
def test_retry_after(text, seconds):
    assert headers.retry_after(text) == seconds


def encoded(**members: str) -> str:
    return base64.urlsafe_b64encode(json.dumps(members).encode()).decode()


def test_credentials_of_a_request():
    assert from_header(None) is None and from_header(encoded()) is None
    found = from_header(encoded(username="ann", password="pä?>", serveraddress="x"))
    assert found == Credentials(username="ann", password="pä?>", server_address="x")
    assert "pä" not in repr(found)
    assert from_header(encoded(identitytoken="t")).identity_token == "t"
    assert from_header(encoded(auth=base64.b64encode(b"ann:a:b").decode())).password == "a:b"
    assert from_header(encoded(username="ann", password="x").rstrip("=")).username == "ann"


@pytest.mark.parametrize(
    "text", ["%%%", "bm90IGpzb24", encoded(auth="////"), encoded(auth="é"), base64.b64encode(b"[1]").decode()]
)
def test_credentials_that_cannot_be_read(text):
    assert from_header(text) is None


@pytest.mark.parametrize("token", ["x\r\nX-Injected: y", "é", "\0"])
async def test_a_token_of_the_user_s_is_no_header_of_its_own(token):
    given = from_header(encoded(registrytoken=token))
    with pytest.raises(InvalidArgument, match="no header can have"):
        await TokenCache(Transport(Settings())).header(None, given, (), verify=True)


@pytest.mark.parametrize(
    ("host", "insecure"),
    [
        ("127.0.0.1:5000", True),
        ("127.9.9.9", True),
        ("localhost:5000", True),
        ("[::1]:5000", True),
        ("10.1.2.3:5000", True),
        ("10.2.0.1", False),
        ("reg.example:5000", True),
        ("reg.example", False),
        ("docker.io", False),
    ],
)
def test_hosts_that_may_be_insecure(host, insecure):
    assert Settings(insecure=("reg.example:5000", "10.1.0.0/16")).is_insecure(host) is insecure


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("", "docker.io"),
        ("https://index.docker.io/v1/", "docker.io"),
        ("https://reg.example/v2/", "reg.example"),
        ("127.0.0.1:5000", "127.0.0.1:5000"),
        ("http://127.0.0.1:5000", "127.0.0.1:5000"),
    ],
)
def test_server_addresses(address, host):
    assert host_of(address) == host


async def test_one_push_may_be_insecure():
    """What a build's output says of a registry is for that push alone."""
    remotes = Remotes(Settings())
    try:
        ref = parse("reg.example:5000/app:1")
        trusted = remotes.repository(ref, push=True, insecure=True)
        usual = remotes.repository(ref, push=True)
        assert [endpoint.insecure for one in (trusted, usual) for endpoint in one._endpoints] == [True, False]
    finally:
        await remotes.close()
