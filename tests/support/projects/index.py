"""Package indexes for pip, npm and apt on one port of this machine, with the few packages that the programs need."""

from __future__ import annotations

import contextlib
import functools
import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from tests.support.projects import packages

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "index.test"
"""Its name in builds, which are told that it is this machine."""

_WHEELS = (
    ("mooring", "0.3", {"mooring.py": 'AT = "at"\n'}, ""),
    (
        "tidetable",
        "1.2",
        {"tidetable/__init__.py": "import mooring\n\n\ndef tide(when):\n    return f'tide {mooring.AT} {when}'\n"},
        "mooring>=0.3",
    ),
)
_NPM: tuple[tuple[dict[str, Any], dict[str, str]], ...] = (
    (
        {"name": "rope", "version": "1.4.2", "scripts": {"postinstall": "node splice.js"}},
        {"splice.js": "require('fs').writeFileSync('index.js', 'module.exports = \"on a rope\"')\n"},
    ),
    (
        {"name": "semaphore-flags", "version": "2.0.1", "dependencies": {"rope": "^1.0.0"}},
        {"index.js": "module.exports = (text) => `${text} ${require('rope')}`;\n"},
    ),
)
_FIELDS = {"Version": "1.4", "Architecture": "all", "Maintainer": "tests", "Description": "a program"}
_DEBS = (
    ({"Package": "keel-data", **_FIELDS}, {"usr/share/keel/name": "keel-data 1.4\n"}, {}),
    (
        {"Package": "keel", "Depends": "keel-data (= 1.4), passwd", **_FIELDS},
        {
            "usr/bin/keel": "#!/bin/sh\n. /etc/keel.conf\n"
            'echo "$WORD with $(cat /usr/share/keel/name), built by $BUILDER, as $(id -un)"\n',
            "etc/keel.conf": "WORD=keel\n",
        },
        {"conffiles": "/etc/keel.conf\n", "postinst": "#!/bin/sh\nset -e\nuseradd --system --uid 777 keel\n"},
    ),
)


class PackageIndex:
    """What is served: paths with their type and bytes, and how often each was asked for."""

    def __init__(self) -> None:
        self.files: dict[str, tuple[str, bytes]] = {}
        self.asked: Counter[str] = Counter()
        self.port = 0
        self.lock: dict[str, Any] = {}
        """What ``package-lock.json`` says of the packages."""

    @property
    def url(self) -> str:
        """Where builds find it."""
        return f"http://{NAME}:{self.port}"

    def fill(self) -> None:
        """Make what is served; the port is known."""
        for name, version, files, requires in _WHEELS:
            file, data = packages.wheel(name, version, files, requires)
            self.files[f"/simple/{name}/"] = ("text/html", f'<a href="/wheels/{file}">{file}</a>'.encode())
            self.files[f"/wheels/{file}"] = ("application/zip", data)
        for manifest, files in _NPM:
            self._add_npm(manifest, packages.npm_tarball(manifest, files))
        debs = {
            f"{fields['Package']}_1.4_all.deb": (fields, packages.deb(fields, files, control))
            for fields, files, control in _DEBS
        }
        self.files["/apt/Packages"] = ("text/plain", packages.apt_index(debs))
        self.files |= {
            f"/apt/{name}": ("application/vnd.debian.binary-package", data) for name, (_, data) in debs.items()
        }

    def _add_npm(self, manifest: dict[str, Any], data: bytes) -> None:
        name, version = manifest["name"], manifest["version"]
        path = f"/npm/{name}/-/{name}-{version}.tgz"
        dist = {"tarball": self.url + path, "integrity": packages.integrity(data)}
        known = {"name": name, "dist-tags": {"latest": version}, "versions": {version: {**manifest, "dist": dist}}}
        self.files[f"/npm/{name}"] = ("application/json", json.dumps(known).encode())
        self.files[path] = ("application/octet-stream", data)
        row = {"version": version, "resolved": dist["tarball"], "integrity": dist["integrity"]}
        more = {"dependencies": manifest["dependencies"]} if "dependencies" in manifest else {}
        script = {"hasInstallScript": True} if "scripts" in manifest else {}
        self.lock[f"node_modules/{name}"] = {**row, **script, **more}


class _Handler(BaseHTTPRequestHandler):
    """One request; as on real indexes, what has a version may be kept for long."""

    protocol_version = "HTTP/1.1"

    def __init__(self, index: PackageIndex, *args: Any) -> None:
        self._index = index
        super().__init__(*args)

    def do_GET(self) -> None:
        path = self.path.replace("/./", "/")  # apt asks so for the files of a flat repository
        self._index.asked[path] += 1
        kind, data = self._index.files.get(path, ("", b""))
        self.send_response(200 if kind else 404)
        self.send_header("Content-Type", kind or "text/plain")
        self.send_header("Content-Length", str(len(data)))
        if path.endswith((".whl", ".tgz")):
            self.send_header("Cache-Control", "max-age=365000000, immutable, public")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_args: object) -> None:
        """Nothing: the tests count what was asked for."""


@contextlib.contextmanager
def serving() -> Iterator[PackageIndex]:
    """The index, at a free port of all of this machine's addresses: builds come from a network of containers."""
    index = PackageIndex()
    with ThreadingHTTPServer(("", 0), functools.partial(_Handler, index)) as server:
        index.port = server.server_address[1]
        index.fill()
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield index
        finally:
            server.shutdown()
            thread.join()
