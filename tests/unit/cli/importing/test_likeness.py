"""When an image of Docker's and one of Ketch's are the same."""

from __future__ import annotations

import pytest

from ketch.cli.importing.disk import records
from ketch.cli.importing.likeness import likeness

SHORT = {"User": "65532", "Env": ["PATH=/bin"], "Cmd": ["serve"], "ExposedPorts": {"80/tcp": {}}}
# As dockerd told it until 27.
LONG = {"Hostname": "", "Tty": False, "Image": "", "Entrypoint": None, "Labels": None, "WorkingDir": "", **SHORT}
ON_DISK = {
    "created": "1970-01-01T00:00:00Z",
    "architecture": "amd64",
    "config": SHORT,
    "rootfs": {"diff_ids": ["sha256:1"]},
}
CHECK = {"Test": ["CMD", "true"], "Interval": 5}


def facts(config: dict | None = None, **more: object) -> dict:
    """An image's facts; what builds with a fixed time is the same in all such images."""
    created = "1970-01-01T00:00:00Z"
    image = {"Id": "one", "Created": created, "Architecture": "amd64", "RootFS": {"Layers": ["sha256:1"]}}
    return {**image, "Config": SHORT if config is None else config, **more}


@pytest.mark.parametrize(
    "other",
    [
        facts(LONG),
        facts(Id="two", RepoTags=["x:1"]),
        facts(Created="1970-01-01T00:00:00.000+00:00"),
        records.image("one", ON_DISK, 0),
    ],
)
def test_the_same_image(other: dict):
    assert likeness(other) == likeness(facts())


@pytest.mark.parametrize(
    "other",
    [
        facts({**SHORT, "User": "0"}),
        facts({**SHORT, "User": ""}),
        facts({**SHORT, "Env": ["PATH=/sbin"]}),
        facts({**SHORT, "Cmd": ["debug"]}),
        facts({**SHORT, "ExposedPorts": {"81/tcp": {}}}),
        facts({**SHORT, "Labels": {"a": ""}}),
        facts({**SHORT, "Healthcheck": CHECK}),
        facts(RootFS={"Layers": ["sha256:2"]}),
        facts(Architecture="arm64"),
        facts(Created="1970-01-01T00:00:00.1Z"),
    ],
)
def test_another_image(other: dict):
    assert likeness(other) != likeness(facts())


def test_what_is_not_set_is_told_or_not():
    told, not_told = {**CHECK, "Retries": 0, "StartPeriod": 0}, CHECK
    assert likeness(facts({"Healthcheck": told})) == likeness(facts({"Healthcheck": not_told}))
    assert likeness(facts({}, Created=None)) == likeness(facts(None, Config=None, Created="0001-01-01T00:00:00Z"))
