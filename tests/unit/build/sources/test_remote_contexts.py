"""Addresses of build contexts elsewhere, and what a file of the web is."""

from __future__ import annotations

import pytest

from ketch.build.sources.remote import is_dockerfile, remote_context
from ketch.errors import InvalidArgument
from tests.support.registries.made_images import packed, tar


@pytest.mark.parametrize(
    ("address", "identifier", "url"),
    [
        ("git://host/a.git", "git://host/a.git", "git://host/a.git"),
        ("git://host/a#main:dir", "git://host/a#main:dir", "git://host/a"),
        ("github.com/a/b", "git://github.com/a/b", "https://github.com/a/b"),
        ("github.com/a/b#:dir", "git://github.com/a/b#:dir", "https://github.com/a/b"),
        ("git@host:a/b.git#v1", "git://git@host:a/b.git#v1", "git@host:a/b.git"),
        ("https://host/a.git#v1", "git://host/a.git#v1", "https://host/a.git"),
    ],
)
def test_repositories(address, identifier, url):
    found = remote_context(address)
    assert (found.is_git, found.identifier, found.attrs) == (True, identifier, {"git.fullurl": url})


def test_files_of_the_web_and_nonsense():
    assert remote_context("http://host/a.git/x.tar") == (False, "http://host/a.git/x.tar", {"http.filename": "context"})
    for wrong in ("a/b", "ftp://host/x", "", "file:///etc"):
        with pytest.raises(InvalidArgument, match=r"remoteURL \(.*\) could not be recognized as URL"):
            remote_context(wrong)


def test_what_a_file_of_the_web_is():
    archive = tar({"Dockerfile": b"FROM scratch\n"})
    assert is_dockerfile("text/plain; charset=utf-8", b"FROM scratch")
    assert is_dockerfile("application/octet-stream", b"FROM scratch\n")
    assert is_dockerfile("", "FROM größer\n".encode())
    assert not is_dockerfile("", archive)
    assert not is_dockerfile("application/octet-stream", packed(archive, "gzip"))
    for told in ("application/x-tar", "application/tar", "application/gzip", "application/x-xz", "application/x-bzip2"):
        assert not is_dockerfile(told, b"")
    with pytest.raises(InvalidArgument, match='unsupported Content-Type "text/html"'):
        is_dockerfile("text/html", b"<html>")
