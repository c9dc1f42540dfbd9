"""TCP with TLS and client certificates: the same streams as on the socket, half-close included."""

from __future__ import annotations


def test_streams_over_tls(secured):
    engine, flags = secured
    client = flags("client")
    assert engine.docker(*client, "run", "--rm", "busybox", "echo", "hello").out == "hello\n"
    # The input ends first, the output comes after it: half-close.
    assert engine.docker(*client, "run", "-i", "--rm", "busybox", "wc", "-c", stdin=b"x" * 3_000_000).out == "3000000\n"
    container = engine.docker(*client, "run", "-d", "busybox", "sleep", "1000").out.strip()
    assert engine.docker(*client, "exec", "-i", container, "cat", stdin=b"in").out == "in"
    big = engine.docker(*client, "exec", container, "head", "-c", "5000000", "/dev/zero").out
    assert len(big) == 5_000_000
    assert engine.docker(*client, "exec", container, "sh", "-c", "exit 7", check=False).code == 7


def test_strangers_are_refused_and_do_no_harm(secured):
    engine, flags = secured
    refused = engine.docker(*flags("intruder"), "ps", check=False)
    assert refused.code != 0
    assert "certificate" in refused.err or "tls" in refused.err
    plain = engine.docker(*flags("client")[:2], "ps", check=False)
    assert plain.code != 0
    assert engine.docker(*flags("client"), "ps").code == 0
