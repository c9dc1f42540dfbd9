"""Lists of packages as SPDX 2.3 documents in JSON.

The same packages at the same time give the same document, byte for byte.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from typing import TYPE_CHECKING, Any

import msgspec

from ketch import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.build.attest.sbom.packages import Package

NOTHING = "NOASSERTION"
_DOCUMENT, _ROOT = "SPDXRef-DOCUMENT", "SPDXRef-DocumentRoot"
# Names of licenses in SPDX's list that packages use; what is not all of such names is told as a comment.
_NAMES = """
0BSD AFL-2.1 AGPL-3.0-only AGPL-3.0-or-later Apache-2.0 Artistic-2.0 BSD-1-Clause BSD-2-Clause BSD-3-Clause BSD-4-Clause
BSL-1.0 BlueOak-1.0.0 CC-BY-3.0 CC-BY-4.0 CC0-1.0 CPL-1.0 EPL-1.0 EPL-2.0 GPL-1.0-only GPL-1.0-or-later GPL-2.0-only
GPL-2.0-or-later GPL-3.0-only GPL-3.0-or-later HPND ICU ISC LGPL-2.0-only LGPL-2.0-or-later LGPL-2.1-only
LGPL-2.1-or-later LGPL-3.0-only LGPL-3.0-or-later MIT MIT-0 MPL-1.1 MPL-2.0 NCSA OFL-1.1 OpenSSL PSF-2.0 PostgreSQL
Python-2.0 Ruby SSPL-1.0 Unicode-3.0 Unicode-DFS-2016 Unlicense Vim WTFPL X11 ZPL-2.1 Zlib bzip2-1.0.6 curl
"""
_KNOWN = frozenset(_NAMES.split())
_WORDS = re.compile(r"[A-Za-z0-9.+-]+|[()]")


def document(name: str, packages: Sequence[Package], created: str) -> bytes:
    """The document of a tree's packages; ``created``: RFC 3339, of which SPDX has whole seconds."""
    unique = {(one.url, one.found_in): one for one in sorted(packages)}
    rows = [_package(one) for one in unique.values()]
    listed = msgspec.json.encode(rows)
    serial = uuid.uuid5(uuid.NAMESPACE_URL, hashlib.sha256(listed + created.encode()).hexdigest())
    root = {
        "name": name,
        "SPDXID": _ROOT,
        "downloadLocation": NOTHING,
        "filesAnalyzed": False,
        "licenseConcluded": NOTHING,
        "licenseDeclared": NOTHING,
        "copyrightText": NOTHING,
        "primaryPackagePurpose": "CONTAINER",
    }
    found = {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": _DOCUMENT,
        "name": name,
        "documentNamespace": f"https://spdx.org/spdxdocs/{_escaped(name)}-{serial}",
        "creationInfo": {"created": _seconds(created), "creators": [f"Tool: ketch-{__version__}"]},
        "packages": [*rows, root],
        "relationships": [
            *(_relation(_ROOT, "CONTAINS", row["SPDXID"]) for row in rows),
            _relation(_DOCUMENT, "DESCRIBES", _ROOT),
        ],
    }
    return msgspec.json.encode(found)


def _package(one: Package) -> dict[str, Any]:
    declared = _license(one.license)
    supplier = " ".join(one.supplier.split())
    ident = hashlib.sha256(f"{one.url}\0{one.found_in}".encode("utf-8", "surrogateescape")).hexdigest()[:16]
    found: dict[str, Any] = {
        "name": f"{one.space}/{one.name}" if one.kind == "npm" and one.space else one.name,
        "SPDXID": f"SPDXRef-Package-{one.kind}-{_escaped(one.name)}-{ident}",
        "versionInfo": one.version,
        "supplier": f"Person: {supplier}" if supplier else NOTHING,
        "downloadLocation": NOTHING,
        "filesAnalyzed": False,
        "homepage": one.homepage if re.fullmatch(r"https?://\S+", one.homepage) else "",
        "sourceInfo": f"found in /{one.found_in}",
        "licenseConcluded": NOTHING,
        "licenseDeclared": declared,
        "licenseComments": one.license if declared == NOTHING else "",
        "copyrightText": NOTHING,
        "summary": one.summary,
        "externalRefs": [
            {"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": one.url}
        ],
    }
    return {key: value for key, value in found.items() if value != ""}


def _license(text: str) -> str:
    """A license expression of known names; ``NOASSERTION`` for any other text."""
    words = _WORDS.findall(text)
    names = [word for word in words if word not in ("AND", "OR", "WITH", "(", ")")]
    plain = "".join(words) == re.sub(r"\s", "", text)
    known = bool(names) and "WITH" not in words and plain and all(name in _KNOWN for name in names)
    joined = re.fullmatch(r"\(*[^()\s]+(?:\)*\s+(?:AND|OR)\s+\(*[^()\s]+)*\)*", text.strip()) is not None
    return text.strip() if known and joined and text.count("(") == text.count(")") else NOTHING


def _relation(one: str, kind: str, other: str) -> dict[str, str]:
    return {"spdxElementId": one, "relatedSpdxElement": other, "relationshipType": kind}


def _escaped(text: str) -> str:
    """A text as identifiers may have it: letters, figures, points and hyphens."""
    return re.sub(r"[^A-Za-z0-9.-]", "-", text)


def _seconds(created: str) -> str:
    return re.sub(r"\.\d+(?=Z$)", "", created)
