"""Known versions of files of the web: the ETag that the server gave, and the digest of the content."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
from typing import TYPE_CHECKING

import msgspec

from ketch import threads
from ketch.build.providers import KeptRecord
from ketch.failpoints import failpoint
from ketch.storage import removal, sizes

if TYPE_CHECKING:
    from collections.abc import Sequence

log = logging.getLogger(__name__)
_MOST = 1000  # files, the least recently written of which go first
_OF_ONE = 8
_NEW = ".new-"
_NAME = "versions-of-files-of-the-web"


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
            with contextlib.suppress(OSError):
                os.unlink(path)

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

    # -- for those who count and remove (`KeptStore`): all of it is one thing -------------------------

    def records(self) -> list[KeptRecord]:
        """One record, if anything is known."""
        if not os.listdir(self._root):
            return []
        used = os.stat(self._root).st_mtime_ns
        return [
            KeptRecord(
                name=_NAME,
                kind="internal",
                description="versions of files of the web",
                created=used,
                last_used=used,
                usage_count=1,
                in_use=False,
            )
        ]

    def size(self, name: str) -> int:
        """The bytes of it."""
        return sizes.written_bytes(self._root) if name == _NAME else 0

    async def remove(self, name: str) -> int:
        """Forget all versions; returns the bytes that they had, -1 for another name."""
        return await threads.run_to_end(self._forget) if name == _NAME else -1

    def _forget(self) -> int:
        size = sizes.written_bytes(self._root)
        for file in os.listdir(self._root):
            with contextlib.suppress(FileNotFoundError):  # it was being written, and has its own name now
                os.unlink(os.path.join(self._root, file))
        return size

    def _shrink(self) -> None:
        names = os.listdir(self._root)
        if len(names) > _MOST:
            paths = [os.path.join(self._root, name) for name in names]
            for path in sorted(paths, key=os.path.getmtime)[: len(names) - _MOST]:
                os.unlink(path)
