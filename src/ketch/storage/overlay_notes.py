"""Extended attributes by which overlay keeps a layer (Linux, filesystems/overlayfs.rst, "User xattr").

``trusted.`` is for the machine's root; elsewhere a mount with ``userxattr`` has them below ``user.``.
"""

from __future__ import annotations

from ketch.linux.ns import LIMITED

PREFIX = "user.overlay." if LIMITED else "trusted.overlay."
OPAQUE = f"{PREFIX}opaque"  # b"y": hides what directories of this name have in the layers below
