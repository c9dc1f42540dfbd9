"""Tokens and sessions of the page, and the addresses that it may be served on."""

import pytest

from ketch.errors import InvalidArgument
from ketch.ui import address
from ketch.ui.sessions import PageSessions


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_token_is_good_once():
    sessions = PageSessions()
    token = sessions.token()
    secrets = sessions.begin(token)
    assert sessions.find(*secrets) is sessions.find(*secrets) is not None
    assert sessions.begin(token) is None
    for secret in secrets:
        assert sessions.find(token, secret) is None and sessions.begin(secret) is None


def test_neither_secret_is_enough():
    sessions = PageSessions()
    mine, other = (sessions.begin(sessions.token()) for _ in range(2))
    assert len({*mine, *other}) == 4
    for cookie, key in (
        (mine.cookie, ""),
        (mine.cookie, mine.cookie),
        (mine.cookie, other.key),
        (mine.key, mine.key),
        ("", mine.key),
        (mine.key, mine.cookie),
    ):
        assert sessions.find(cookie, key) is None
    assert sessions.knows(mine.cookie) and not sessions.knows(mine.key)


@pytest.mark.parametrize("wrong", ["", "x", "é", "\udcff", "0" * 100_000])
def test_what_nobody_was_given(wrong):
    sessions = PageSessions()
    secrets = sessions.begin(sessions.token())
    assert sessions.begin(wrong) is None and not sessions.knows(wrong)
    assert sessions.find(wrong, secrets.key) is None and sessions.find(secrets.cookie, wrong) is None


def test_both_end_with_time_and_sessions_also_when_they_are_ended():
    clock = Clock()
    sessions = PageSessions(clock)
    late, token = sessions.token(), sessions.token()
    secrets = sessions.begin(token)
    clock.now = 600
    assert sessions.begin(late) is None
    for _ in range(3):  # its use prolongs it
        clock.now += 11 * 3600
        assert sessions.find(*secrets)
    clock.now += 11 * 3600
    assert sessions.knows(secrets.cookie) and not sessions.find(secrets.cookie, "x")  # … and nothing less
    clock.now += 3600
    assert not sessions.find(*secrets) and not sessions.knows(secrets.cookie)
    other = sessions.begin(sessions.token())
    sessions.end(sessions.find(*other))
    assert not sessions.find(*other)


def test_what_a_session_has_open_is_closed_with_it():
    clock = Clock()
    sessions = PageSessions(clock)
    secrets, other = (sessions.begin(sessions.token()) for _ in range(2))
    session = sessions.find(*secrets)
    closed = []
    with sessions.use(session, lambda: closed.append("first")):
        clock.now += 13 * 3600
        assert sessions.find(*secrets)  # it is being used
        assert not sessions.find(*other)
    clock.now += 11 * 3600
    assert sessions.find(*secrets)
    with sessions.use(session, lambda: closed.append("second")), sessions.use(session, lambda: closed.append("third")):
        sessions.end(session)
        assert sorted(closed) == ["second", "third"]
    assert not sessions.find(*secrets)


def test_their_number_is_bounded():
    sessions = PageSessions()
    first, *others = [sessions.token() for _ in range(65)]
    assert sessions.begin(first) is None
    secrets = [sessions.begin(token) for token in others]
    closed = []
    with sessions.use(sessions.find(*secrets[0]), lambda: closed.append(0)):
        assert sessions.begin(sessions.token()) and not closed  # another one had not been used for longer
        assert [sessions.find(*one) is not None for one in secrets] == [True, False] + [True] * 62
        for _ in range(2):
            assert sessions.begin(sessions.token())
    assert closed == [0]


@pytest.mark.parametrize(
    ("text", "authority", "loopback"),
    [
        ("127.0.0.1:2370", "127.0.0.1:2370", True),
        ("127.9.8.7:0", "127.9.8.7:0", True),
        ("[::1]:80", "[::1]:80", True),
        ("localhost:65535", "localhost:65535", True),
        ("0.0.0.0:1", "0.0.0.0:1", False),
        ("[::]:1", "[::]:1", False),
        ("192.0.2.1:443", "192.0.2.1:443", False),
        ("localhost.example:1", "localhost.example:1", False),
    ],
)
def test_addresses(text, authority, loopback):
    assert address.parse(text, secured=True).authority == authority
    if loopback:
        address.parse(text, secured=False)
        return
    with pytest.raises(InvalidArgument, match="without TLS"):
        address.parse(text, secured=False)


@pytest.mark.parametrize(
    "text", ["", "2370", ":2370", "127.0.0.1", "127.0.0.1:", "a:b", "h:-1", "h:65536", "http://h:1"]
)
def test_what_is_no_address(text):
    with pytest.raises(InvalidArgument, match="not an address"):
        address.parse(text, secured=True)
