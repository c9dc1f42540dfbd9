"""Names of repositories, tags, digests and uploads, checked before anything is done with them."""

from __future__ import annotations

import re

from ketch.oci import digest as digests
from ketch.registry.errors import (
    BLOB_UPLOAD_UNKNOWN,
    DIGEST_INVALID,
    NAME_INVALID,
    TAG_INVALID,
    Refused,
)

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*\Z")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}\Z")
_UPLOAD = re.compile(r"[0-9a-f]{32}\Z")


def repository(text: str) -> str:
    """A repository's name (NAME_INVALID)."""
    if len(text) > 255 or not _NAME.match(text):
        raise Refused(NAME_INVALID, text[:300])
    return text


def tag(text: str) -> str:
    """A tag (TAG_INVALID)."""
    if not _TAG.match(text):
        raise Refused(TAG_INVALID, text[:200])
    return text


def digest(text: str) -> str:
    """A digest that is verified here: sha256 or sha512 (DIGEST_INVALID)."""
    if not digests.registered(text):
        raise Refused(DIGEST_INVALID, text[:200])
    return text


def upload(text: str) -> str:
    """The name of an upload (BLOB_UPLOAD_UNKNOWN)."""
    if not _UPLOAD.match(text):
        raise Refused(BLOB_UPLOAD_UNKNOWN, text[:100])
    return text
