"""``--platform``: names of platforms, and whether an image is for one."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from ketch.engine import platforms
from ketch.errors import InvalidArgument, NotFound


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("linux", ("linux", "", "")),
        ("linux/amd64", ("linux", "amd64", "")),
        ("Linux/x86_64", ("linux", "amd64", "")),
        ("arm64", ("linux", "arm64", "")),
        ("linux/arm64/v8", ("linux", "arm64", "")),
        ("linux/arm/v6", ("linux", "arm", "v6")),
    ],
)
def test_names(text, expected):
    assert platforms.parse(text) == expected


@pytest.mark.parametrize("text", ["nope", "arm/v7", "linux/nope", "linux/amd64/v1/more", "plan9/amd64"])
def test_nonsense(text):
    with pytest.raises(InvalidArgument, match="error parsing specified platform"):
        platforms.parse(text)


@pytest.mark.parametrize(
    ("wanted", "fits"),
    [
        (None, True),
        ("linux", True),
        ("linux/amd64", True),
        ("linux/arm64", False),
        ("windows", False),
        ("linux/arm/v7", False),
    ],
)
def test_images(wanted, fits):
    image = SimpleNamespace(config=SimpleNamespace(os="linux", architecture="amd64", variant=None))
    if fits:
        platforms.check(image, "busybox", wanted)
    else:
        with pytest.raises(NotFound, match=r"its platform \(linux/amd64\) does not match"):
            platforms.check(image, "busybox", wanted)
