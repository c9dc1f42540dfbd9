"""Known versions of files of the web: the ETag that the server gave, and the digest of the content."""

from __future__ import annotations

import logging
import os
import secrets
from typing import TYPE_CHECKING

import msgspec

from ketch.failpoints import failpoint
from ketch.storage import removal

if TYPE_CHECKING:
    from collections.abc import Sequence

log = logging.getLogger(__name__)
_MOST = 1000  # files, the least recently written of which go first
_OF_ONE = 8
_NEW = ".new-"


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """A version of a file: by which name its server knows it, its digest, and its time as HTTP writes it."""

    etag: str
    checksum: str
    modified: str = ""


class Versions:
    """The known versions, a small file for each address; blocking, from any thread."""

    def __init__(self, root: str) -> None:
        self._root = root
        os.makedirs(root, mode=0o700, exist_ok=True)
        for path in removal.those(root, lambda name: _NEW in name):  # their writer was killed
            removal.try_to_remove(path)

    def known(self, key: str) -> Sequence[Version]:
        """The versions of an address, the newest first; ``key`` is a file name."""
        try:
            with open(os.path.join(self._root, key), "rb") as f:
                return msgspec.json.decode(f.read(), type=list[Version])
        except FileNotFoundError:
            return ()
        except (OSError, msgspec.DecodeError) as e:
            log.info("what is known of a file of the web cannot be read, it is downloaded again: %s", e)
            return ()

    def keep(self, key: str, version: Version) -> None:
        """Note a version; a failure costs a download."""
        path = os.path.join(self._root, key)
        others = [one for one in self.known(key) if one.etag != version.etag]
        temporary = f"{path}{_NEW}{secrets.token_hex(4)}"
        try:
            with open(temporary, "wb") as f:
                f.write(msgspec.json.encode([version, *others[: _OF_ONE - 1]]))
            failpoint("source.version-written")
            os.rename(temporary, path)
            self._shrink()
        except OSError as e:
            log.warning("note the version of a file of the web in `%s`: %s", path, e.strerror)

    def _shrink(self) -> None:
        names = os.listdir(self._root)
        if len(names) > _MOST:
            paths = [os.path.join(self._root, name) for name in names]
            for path in sorted(paths, key=os.path.getmtime)[: len(names) - _MOST]:
                os.unlink(path)
