"""Platforms: names, whether an image is for one, and which of several a machine takes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.errors import InvalidArgument
from ketch.oci import platform
from ketch.oci.manifest import Platform

ARM7 = Platform(os="linux", architecture="arm", variant="v7")
ARM6 = Platform(os="linux", architecture="arm", variant="v6")
ARM64 = Platform(os="linux", architecture="arm64", variant="v8")
AMD64 = Platform(os="linux", architecture="amd64")
I386 = Platform(os="linux", architecture="386")
WINDOWS = Platform(os="windows", architecture="amd64", os_version="10.0.1")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("linux", ("linux", "", None)),
        ("linux/amd64", ("linux", "amd64", None)),
        ("Linux/x86_64", ("linux", "amd64", None)),
        ("arm64", ("linux", "arm64", None)),
        ("linux/arm64/v8", ("linux", "arm64", None)),
        ("linux/arm/v6", ("linux", "arm", "v6")),
        ("linux/arm/6", ("linux", "arm", "v6")),
        ("linux/armel", ("linux", "arm", "v6")),
        ("linux/amd64/v1", ("linux", "amd64", None)),
        ("linux/other", ("linux", "other", None)),
        ("other/amd64", ("other", "amd64", None)),
    ],
)
def test_names(text, expected):
    parsed = platform.parse(text)
    assert (parsed.os, parsed.architecture, parsed.variant) == expected


@pytest.mark.parametrize(
    "text", ["nope", "linux/amd64/v1/more", "a b", "linux/", "/amd64", "linux/a$b", "linux/a/b/c/d", ""]
)
def test_nonsense(text):
    with pytest.raises(InvalidArgument, match="invalid argument"):
        platform.parse(text)


@given(st.text(max_size=30))
def test_any_text_is_a_platform_or_an_error(text):
    try:
        parsed = platform.parse(text)
    except InvalidArgument:
        return
    assert platform.parse(platform.text(parsed)) == parsed


@pytest.mark.parametrize(
    ("wanted", "fits"),
    [("linux", True), ("linux/amd64", True), ("linux/arm64", False), ("windows", False), ("linux/arm/v7", False)],
)
def test_matches(wanted, fits):
    assert platform.matches(platform.parse(wanted), AMD64) is fits


@pytest.mark.parametrize(
    ("machine", "offered", "taken"),
    [
        (AMD64, [WINDOWS, ARM7, AMD64, I386], 2),
        (AMD64, [ARM7, I386], 1),
        (AMD64, [ARM64, WINDOWS], None),
        (AMD64, [ARM64, None], 1),
        (AMD64, [Platform(os="linux", architecture="amd64", variant="v3")], None),
        (ARM64, [AMD64, ARM6, ARM7], 2),
        (ARM64, [Platform(os="linux", architecture="arm64"), ARM7], 0),
        (ARM7, [ARM6, ARM64], 0),
        (ARM6, [ARM7, AMD64], None),
        (ARM7, [ARM6, ARM7], 1),
        (AMD64, [], None),
    ],
)
def test_best_of_several(machine, offered, taken):
    assert platform.best(machine, offered) == taken
