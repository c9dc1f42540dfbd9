"""Packages of several kinds, made here, the same bytes each time: for pip, npm and apt."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import Mapping

TIME = 1_000_000_000
Files = Mapping[str, str]


def wheel(name: str, version: str, files: Files, requires: str = "") -> tuple[str, bytes]:
    """The name and the bytes of a wheel of pure Python."""
    place = f"{name}-{version}.dist-info"
    needs = f"Requires-Dist: {requires}\n" if requires else ""
    found = {
        **files,
        f"{place}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
        f"{place}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    listed = [f"{path},sha256={_urlsafe(text.encode())},{len(text.encode())}" for path, text in found.items()]
    found[f"{place}/RECORD"] = "\n".join([*listed, f"{place}/RECORD,,", ""])
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for path, text in found.items():
            archive.writestr(zipfile.ZipInfo(path, (2001, 9, 9, 1, 46, 40)), text)
    return f"{name}-{version}-py3-none-any.whl", out.getvalue()


def _urlsafe(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")


def npm_tarball(manifest: Mapping[str, object], files: Files) -> bytes:
    """A package as npm's registries have them."""
    found = {"package.json": json.dumps(manifest), **files}
    return _tgz({f"package/{path}": text for path, text in found.items()})


def integrity(data: bytes) -> str:
    """A digest as npm writes them."""
    return "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode()


def deb(fields: Mapping[str, str], files: Files, control: Files) -> bytes:
    """A Debian package of programs; ``control``: further files of that kind (``postinst``, ``conffiles``)."""
    text = "".join(f"{name}: {value}\n" for name, value in fields.items())
    parts = {
        "debian-binary": b"2.0\n",
        "control.tar.gz": _tgz({f"./{path}": content for path, content in {"control": text, **control}.items()}),
        "data.tar.gz": _tgz({f"./{path}": content for path, content in files.items()}),
    }
    out = b"!<arch>\n"
    for name, data in parts.items():
        out += f"{name:<16}{TIME:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode()
        out += data + b"\n" * (len(data) % 2)
    return out


def apt_index(debs: Mapping[str, tuple[Mapping[str, str], bytes]]) -> bytes:
    """The index ``Packages`` of a flat repository: files with their fields and bytes."""
    rows = []
    for name, (fields, data) in debs.items():
        more = {"Filename": f"./{name}", "Size": str(len(data)), "SHA256": hashlib.sha256(data).hexdigest()}
        rows.append("".join(f"{key}: {value}\n" for key, value in {**fields, **more}.items()))
    return "\n".join(rows).encode()


def _tgz(files: Files) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        made: set[str] = set()
        for path, text in files.items():
            parts = path.split("/")[:-1]
            for number in range(1, len(parts) + 1):
                directory = "/".join(parts[:number])
                if directory not in made:
                    made.add(directory)
                    archive.addfile(_member(directory, tarfile.DIRTYPE, 0o755))
            data = text.encode()
            member = _member(path, tarfile.REGTYPE, 0o755 if text.startswith("#!") else 0o644)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


def _member(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.mode, member.mtime = kind, mode, TIME
    return member
