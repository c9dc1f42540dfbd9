"""The forms of Docker's facts that an import relies on, whether its daemon tells them or its files.

What is not named here goes to ketchd as it is, which checks it.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Required, TypedDict

import msgspec

from ketch.cli.importing import bodies
from ketch.errors import DataLoss

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ketch.notation.api_objects import ApiObject

_OTHER_FORM = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError)
_VOLUME_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}")  # longer ones are no names of directories
_CONTAINER_NAME = re.compile(r"/?[a-zA-Z0-9][a-zA-Z0-9_.-]{0,4095}")

_Text = Annotated[str, msgspec.Meta(min_length=1)]
_Texts = dict[str, str]
_Size = Annotated[int, msgspec.Meta(le=(1 << 63) - 1)]


class _Healthcheck(TypedDict, total=False):
    """A health check, of which only the fields are asked for that are set."""


class _ImageConfig(TypedDict, total=False):
    """The configuration in an image."""

    Healthcheck: _Healthcheck | None


class _Layers(TypedDict, total=False):
    """The layers of an image, by their diff ids."""

    Layers: list[str] | None


class ImageForm(TypedDict, total=False):
    """An image, as it is inspected."""

    Id: Required[_Text]
    Created: str | None
    Architecture: str | None
    Size: _Size
    RootFS: _Layers | None
    Config: _ImageConfig | None


class ImageRowForm(TypedDict, total=False):
    """An image in a list."""

    Id: Required[_Text]
    RepoTags: list[str] | None


class VolumeForm(TypedDict, total=False):
    """A volume."""

    Name: Required[str]
    Driver: Required[str]
    Mountpoint: Required[str]
    Labels: _Texts | None
    Options: _Texts | None


class _Pool(TypedDict, total=False):
    """A subnet with what is set of it."""

    Subnet: str | None
    Gateway: str | None
    IPRange: str | None
    AuxiliaryAddresses: _Texts | None


class _Ipam(TypedDict, total=False):
    """The addresses of a network."""

    Driver: str | None
    Options: _Texts | None
    Config: list[_Pool] | None


class _ConfigFrom(TypedDict, total=False):
    """The network whose settings another one takes."""

    Network: str | None


class NetworkForm(TypedDict, total=False):
    """A network."""

    Name: Required[_Text]
    Id: Required[_Text]
    Driver: Required[str]
    Scope: str | None
    Internal: bool | None
    Attachable: bool | None
    EnableIPv4: bool | None
    EnableIPv6: bool | None
    ConfigOnly: bool | None
    ConfigFrom: _ConfigFrom | None
    Options: _Texts | None
    Labels: _Texts | None
    IPAM: Required[_Ipam]


class _State(TypedDict, total=False):
    """The state of a container."""

    Running: Required[bool]


class _ContainerConfig(TypedDict, total=False):
    """The configuration of a container."""

    Image: Required[str]
    MacAddress: str | None
    Hostname: str | None
    Labels: _Texts | None
    Volumes: dict[str, Any] | None


class _Mount(TypedDict, total=False):
    """A place where something is mounted."""

    Type: Required[str]
    Name: str | None
    Destination: str | None
    RW: bool | None


class _Asked(TypedDict, total=False):
    """A mount that was asked for."""

    Type: str | None
    Source: str | None
    Target: str | None


class _Host(TypedDict, total=False):
    """The part of a container's configuration that is about the machine."""

    NetworkMode: str | None
    IpcMode: str | None
    PidMode: str | None
    UTSMode: str | None
    Runtime: str | None
    Links: list[str] | None
    VolumesFrom: list[str] | None
    Binds: list[str] | None
    Mounts: list[_Asked] | None


class _Endpoint(TypedDict, total=False):
    """The connection of a container to a network."""

    NetworkID: str | None
    Aliases: list[str] | None


class _Connections(TypedDict, total=False):
    """The connections of a container, by the networks' names."""

    Networks: dict[str, _Endpoint] | None


class ContainerForm(TypedDict, total=False):
    """A container, as it is inspected."""

    Id: Required[_Text]
    Name: Required[str]
    Image: Required[str]
    Created: str | None
    State: Required[_State]
    Config: Required[_ContainerConfig]
    HostConfig: Required[_Host]
    Mounts: list[_Mount] | None
    NetworkSettings: _Connections | None


@contextmanager
def understood(place: str) -> Iterator[None]:
    """Have what a file, one below a directory, or an answer lacks or has in another form raise DataLoss."""
    try:
        yield
    except OSError as e:
        raise DataLoss(f"read {e.filename or place}: {e.strerror}") from e
    except _OTHER_FORM as e:
        why = str(e) if isinstance(e, msgspec.ValidationError) else repr(e)
        raise DataLoss(f"read {place}: not in a form that is known: {why}") from e


def image(facts: ApiObject) -> ApiObject:
    """The facts of an image (an error of `understood`, as the others)."""
    return _checked(facts, ImageForm)


def image_row(facts: ApiObject) -> ApiObject:
    """The facts of an image in a list."""
    return _checked(facts, ImageRowForm)


def volume(facts: ApiObject) -> ApiObject:
    """The facts of a volume."""
    if _checked(facts, VolumeForm)["Driver"] == "local":  # plugins take others
        _check_name(facts["Name"], _VOLUME_NAME)
    return facts


def network(facts: ApiObject) -> ApiObject:
    """The facts of a network."""
    return _checked(facts, NetworkForm)


def container(facts: ApiObject) -> ApiObject:
    """The facts of a container, of which a request can be made."""
    _check_name(_checked(facts, ContainerForm)["Name"], _CONTAINER_NAME)
    bodies.container(facts, "", "", str)
    bodies.volumes_needed(facts)
    return facts


def _checked(facts: ApiObject, form: object) -> ApiObject:
    msgspec.convert(facts, form)
    return facts


def _check_name(name: str, form: re.Pattern[str]) -> None:
    if not form.fullmatch(name):
        raise ValueError(f"{name!r} is no name")
