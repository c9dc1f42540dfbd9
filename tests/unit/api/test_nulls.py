"""A null means that nothing was given, in every field of a request."""

from __future__ import annotations

import msgspec
import pytest

from ketch.api import nulls
from ketch.api.wire import execs
from ketch.api.wire.container_requests import CreateBody
from ketch.engine.model.records import ContainerConfig, HostConfig


def encoded(**fields: object) -> bytes:
    return msgspec.json.encode(fields)


def test_null_is_the_default() -> None:
    check = {"Test": ["CMD", "true"], "Interval": 5, "Timeout": None, "StartPeriod": None}
    body = nulls.decode(encoded(Image="busybox", Hostname=None, Tty=None, Healthcheck=check), ContainerConfig)
    assert (body.image, body.hostname, body.tty, body.healthcheck.interval) == ("busybox", "", False, 5)
    assert body.healthcheck.start_period == 0


def test_nulls_that_mean_something_stay() -> None:
    host = {"PortBindings": {"80/tcp": None}, "Memory": None, "Ulimits": [{"Name": "nofile", "Soft": 9, "Hard": None}]}
    body = nulls.decode(encoded(HostConfig=host, Labels={"a": None}, Image=None), CreateBody)
    assert body.host_config.port_bindings == {"80/tcp": None}
    assert (body.host_config.memory, body.host_config.ulimits[0].soft, body.labels) == (0, 9, {"a": ""})


@pytest.mark.parametrize("kind", [ContainerConfig, HostConfig, execs.CreateBody, CreateBody])
def test_every_field_may_be_null(kind: type[msgspec.Struct]) -> None:
    everything = dict.fromkeys(f.encode_name for f in msgspec.structs.fields(kind))
    assert nulls.decode(msgspec.json.encode(everything), kind) == nulls.decode(b"{}", kind)


def test_other_mistakes_are_told() -> None:
    with pytest.raises(msgspec.ValidationError, match="Expected `int`, got `str` - at `\\$.Memory`"):
        nulls.decode(encoded(Memory="much", CpuShares=None), HostConfig)
    with pytest.raises(msgspec.DecodeError):
        nulls.decode(b"{", HostConfig)
