"""``--secret id=NAME,src=PATH[,target=…][,mode=0400][,uid=…][,gid=…]`` → an entry of ``HostConfig.Secrets``."""

from __future__ import annotations

import os

from ketch.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.notation.api_objects import ApiObject

_KEYS = {
    "id": "ID",
    "src": "Source",
    "source": "Source",
    "target": "Target",
    "dst": "Target",
    "destination": "Target",
    "mode": "Mode",
    "uid": "UID",
    "gid": "GID",
}


def parse(text: str) -> ApiObject:
    """Fields as in ``--mount`` (InvalidArgument); the source is a file of the daemon's machine."""
    result: ApiObject = {}
    import csv  # here: most command lines have none, and each start would pay for it

    try:
        fields = next(csv.reader([text], strict=True), [])
    except csv.Error as e:
        raise InvalidArgument(f"invalid --secret `{text}`: {e}") from e
    for field in fields:
        key, equals, value = field.partition("=")
        if key == "env":
            raise InvalidArgument(
                f"invalid --secret `{text}`: a value from the environment would have to be stored", hint="use a file"
            )
        if key not in _KEYS or not equals:
            raise InvalidArgument(
                f"invalid --secret `{text}`: unexpected `{field}`", hint="known: id src target mode uid gid"
            )
        result[_KEYS[key]] = value
    if not result.get("ID") or not result.get("Source"):
        raise InvalidArgument(f"invalid --secret `{text}`: id and src are required")
    if result["Source"].startswith("."):
        result["Source"] = os.path.abspath(result["Source"])
    for key, base in (("Mode", 8), ("UID", 10), ("GID", 10)):
        if key in result:
            try:
                result[key] = int(result[key], base)
            except ValueError:
                raise InvalidArgument(
                    f"invalid --secret `{text}`: {key.lower()} `{result[key]}`",
                    hint="mode is octal, uid and gid are numbers",
                ) from None
    return result
