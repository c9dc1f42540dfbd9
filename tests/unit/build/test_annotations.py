"""Annotations among an output's attributes."""

from __future__ import annotations

import pytest

from ketch.build.export.annotations import OutputAnnotations
from ketch.errors import InvalidArgument
from ketch.oci.manifest import Platform

ARM = Platform(os="linux", architecture="arm64")
AMD = Platform(os="linux", architecture="amd64")


def test_kinds_and_platforms():
    found = OutputAnnotations(
        {
            "annotation.a.b": "1",
            "annotation-manifest[linux/arm64].a.b": "2",
            "annotation-manifest-descriptor.c": "3",
            "annotation-index.d": "4",
            "annotation-index-descriptor.e[x].y": "5",
            "name": "x",
            "annotations": "6",
        }
    )
    assert found.of("manifest", AMD) == {"a.b": "1"}
    assert found.of("manifest", ARM) == {"a.b": "2"}
    assert found.of("manifest-descriptor", ARM) == {"c": "3"}
    assert (found.of("index"), found.of("index-descriptor")) == ({"d": "4"}, {"e[x].y": "5"})
    found.check(many=True)
    with pytest.raises(InvalidArgument, match="no index of a single platform"):
        found.check(many=False)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("annotation-config.a", "unknown annotation type config"),
        ("annotation-index[linux/amd64].a", "an index is of all platforms"),
        ("annotation[linux/amd64]", "names no annotation"),
        ("annotation.", "names no annotation"),
    ],
)
def test_what_is_refused(name, message):
    with pytest.raises(InvalidArgument, match=message):
        OutputAnnotations({name: "x"})
