"""Lists of packages: what package managers recorded, found in trees of any kind, told as SPDX."""

from __future__ import annotations

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.build.attest.sbom import apk, dpkg, node, python, spdx
from ketch.build.attest.sbom.packages import OsRelease, Package, fields, os_release
from ketch.build.attest.sbom.scan import scan

DEBIAN = OsRelease(id="debian", version="12")
DPKG = """\
Package: bash
Status: install ok installed
Architecture: amd64
Version: 5.2.15-2+b7
Source: bash (5.2.15-2)
Maintainer: Matthias Klose <doko@debian.org>
Description: GNU Bourne Again SHell
 Bash is an sh-compatible
 .
 interpreter
Homepage: http://tiswww.case.edu/php/chet/bash/bashtop.html

Package: gone
Status: deinstall ok config-files
Version: 1

Package: half
Status: install ok unpacked
Architecture: all
Version: 1:2.0~rc1
"""
APK = """\
C:Q1xyz=
P:musl
V:1.2.5-r0
A:x86_64
L:MIT
o:musl
m:Timo <t@alpine>
U:https://musl.libc.org/
T:the musl c library
F:lib
R:ld-musl-x86_64.so.1

P:libssl3
V:3.3.1-r0
A:x86_64
L:Apache-2.0
o:openssl
"""


def packages(fill, tmp_path):
    """What is found in a tree: name → package."""
    root = tmp_path / "root"
    for path, text in fill.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    fd = os.open(root, os.O_RDONLY)
    try:
        return {one.name: one for one in scan(fd)}
    finally:
        os.close(fd)


def test_packages_of_dpkg():
    bash, half = dpkg.read(DPKG, dpkg.STATUS, DEBIAN)
    assert bash.url == ("pkg:deb/debian/bash@5.2.15-2%2Bb7?arch=amd64&distro=debian-12&upstream=bash%405.2.15-2")
    assert bash.supplier == "Matthias Klose <doko@debian.org>"
    assert bash.summary == "GNU Bourne Again SHell"
    assert bash.homepage.startswith("http://tiswww")
    assert half.url == "pkg:deb/debian/half@1:2.0~rc1?arch=all&distro=debian-12"


def test_packages_of_apk():
    musl, ssl = apk.read(APK, apk.DATABASES[0], OsRelease(id="alpine", version="3.20.1"))
    assert musl.url == "pkg:apk/alpine/musl@1.2.5-r0?arch=x86_64&distro=alpine-3.20.1"
    assert (musl.license, musl.supplier, musl.summary) == ("MIT", "Timo <t@alpine>", "the musl c library")
    assert ssl.url.endswith("&upstream=openssl")


def test_packages_of_python():
    text = "Metadata-Version: 2.4\nName: Some.Thing_x\nVersion: 1.0\nAuthor: Me\nAuthor-email: me@x\n"
    one = python.read(f"{text}License-Expression: MIT OR Apache-2.0\n\nName: other\n", "p")
    assert one.url == "pkg:pypi/some-thing-x@1.0"
    assert (one.supplier, one.license) == ("Me <me@x>", "MIT OR Apache-2.0")
    assert python.read("Version: 1\n", "p") is None
    assert python.is_metadata("a/x-1.dist-info", "METADATA")
    assert python.is_metadata("a/x.egg-info", "PKG-INFO")
    assert python.is_metadata("a", "x-1.egg-info")
    assert not python.is_metadata("a", "METADATA")


def test_packages_of_node():
    text = json.dumps({"name": "@babel/core", "version": "7.1.0", "license": {"type": "MIT"}, "author": {"name": "B"}})
    one = node.read(text, "p")
    assert one.url == "pkg:npm/%40babel/core@7.1.0"
    assert (one.license, one.supplier) == ("MIT", "B")
    for nonsense in ("", "[]", '{"name": 1}', '{"name": "x"}', "[" * 5000):
        assert node.read(nonsense, "p") is None
    assert node.is_metadata("app/node_modules/x/package.json")
    assert node.is_metadata("node_modules/@a/x/package.json")
    assert not node.is_metadata("app/package.json")
    assert not node.is_metadata("app/node_modules/x/lib/package.json")


def test_all_of_a_tree_is_found_and_nothing_beyond_it(tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("Name: outside\nVersion: 1\n")
    fill = {
        "etc/os-release": 'ID=debian\nVERSION_ID="12"\n',
        "var/lib/dpkg/status": DPKG,
        "var/lib/dpkg/status.d/tzdata": "Package: tzdata\nVersion: 1\n",
        "var/lib/dpkg/status.d/tzdata.md5sums": "Package: sums\n",
        "usr/lib/python3/dist-packages/a-1.dist-info/METADATA": "Name: a\nVersion: 1\n",
        "opt/venv/lib/python3.11/site-packages/b.egg-info/PKG-INFO": "Name: b\nVersion: 2\n",
        "app/node_modules/c/package.json": '{"name": "c", "version": "3"}',
        "proc/1/x.dist-info/METADATA": "Name: not\nVersion: 1\n",
        "srv/proc/x.dist-info/METADATA": "Name: deeper\nVersion: 1\n",
        "x/large.dist-info/METADATA": "Name: large\nVersion: 1\n" + "x" * (1 << 20),
    }
    for path in ("y/link.dist-info", "z/fifo.dist-info"):
        (tmp_path / "root" / path).mkdir(parents=True)
    (tmp_path / "root/y/link.dist-info/METADATA").symlink_to(outside)
    os.mkfifo(tmp_path / "root/z/fifo.dist-info/METADATA")
    os.makedirs(os.fsencode(tmp_path) + b"/root/\xff/d.dist-info")
    with open(os.fsencode(tmp_path) + b"/root/\xff/d.dist-info/METADATA", "wb") as file:
        file.write(b"Name: d\nVersion: 4\nSummary: \xff\n")
    found = packages(fill, tmp_path)
    assert set(found) == {"bash", "half", "tzdata", "a", "b", "c", "deeper", "d"}
    assert found["tzdata"].url == "pkg:deb/debian/tzdata@1?distro=debian-12"
    assert found["d"].found_in == "\ufffd/d.dist-info/METADATA"
    json.loads(spdx.document("sbom", list(found.values()), "2024-01-01T00:00:00.5Z"))


def test_a_scan_ends_when_it_is_told_to(tmp_path):
    (tmp_path / "a").mkdir()
    fd = os.open(tmp_path, os.O_RDONLY)

    def check():
        raise KeyboardInterrupt

    try:
        with pytest.raises(KeyboardInterrupt):
            scan(fd, check)
    finally:
        os.close(fd)


def test_a_document():
    one = Package(
        kind="deb", name="g++", version="1", found_in="s", license="MIT AND (ISC OR Zlib)", homepage="nonsense"
    )
    other = Package(kind="pypi", name="x", version="2", found_in="m", license="a licence of my own")
    made = spdx.document("sbom", [other, one, one], "2024-01-02T03:04:05.123Z")
    assert made == spdx.document("sbom", [one, other], "2024-01-02T03:04:05.123Z")
    found = json.loads(made)
    assert found["spdxVersion"] == "SPDX-2.3"
    assert found["creationInfo"]["created"] == "2024-01-02T03:04:05Z"
    first, second, root = found["packages"]
    assert first["licenseDeclared"] == "MIT AND (ISC OR Zlib)"
    assert "homepage" not in first
    assert second["licenseDeclared"] == "NOASSERTION"
    assert second["licenseComments"] == "a licence of my own"
    assert first["externalRefs"][0]["referenceLocator"] == "pkg:deb/g%2B%2B@1"
    ids = [row["SPDXID"] for row in found["packages"]]
    assert len(set(ids)) == 3
    assert all(
        set(one.removeprefix("SPDXRef-")) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-")
        for one in ids
    )
    told = {
        (row["spdxElementId"], row["relationshipType"], row["relatedSpdxElement"]) for row in found["relationships"]
    }
    assert told == {
        ("SPDXRef-DOCUMENT", "DESCRIBES", root["SPDXID"]),
        *((root["SPDXID"], "CONTAINS", one) for one in ids[:2]),
    }


def test_licenses_are_told_only_as_spdx_has_them():
    def declared(text):
        one = Package(kind="pypi", name="x", version="1", found_in="f", license=text)
        return json.loads(spdx.document("s", [one], "2024-01-01T00:00:00Z"))["packages"][0]["licenseDeclared"]

    for text in ("MIT", "(MIT OR Apache-2.0)", "GPL-2.0-or-later AND BSD-3-Clause"):
        assert declared(text) == text
    for text in ("", "MIT License", "MIT/X11", "AND", "MIT AND", "((MIT)", "MIT ISC", "GPL-2.0-only WITH x", "mit"):
        assert declared(text) == "NOASSERTION", text


def test_systems():
    assert os_release("# x\nID=alpine\nVERSION_ID='3.20'\n") == OsRelease(id="alpine", version="3.20")
    assert os_release("NAME=x\n").qualifiers(arch="a") == (("arch", "a"),)
    assert fields("A: 1\n b\nA: 2\nc\n d\nE:\n\nF: 3\n") == {"a": "1\nb", "e": ""}


@given(st.text())
def test_no_text_is_too_odd(text):
    found = [*dpkg.read(text, "s", DEBIAN), *apk.read(text, "s", DEBIAN)]
    found += [one for one in (python.read(text, "m"), node.read(text, "p")) if one is not None]
    os_release(text)
    json.loads(spdx.document("sbom", found, "2024-01-01T00:00:00Z"))


@given(st.text(st.characters(codec="utf-8"), min_size=1))
def test_any_name_is_one_of_a_package(text):
    one = Package(kind="pypi", name=text, version=text, found_in=text, supplier=text, license=text)
    json.loads(spdx.document(text, [one], "2024-01-01T00:00:00Z"))
