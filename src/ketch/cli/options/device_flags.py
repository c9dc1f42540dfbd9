"""Devices that the daemon finds by their names: ``--gpus``, and ``--device vendor.com/class=name``."""

from __future__ import annotations

from ketch.cli.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.notation.api_objects import ApiObject

_CDI = "cdi"


def is_name(text: str) -> bool:
    """Whether a value of ``--device`` is the name of a specified device (CDI), and no path."""
    kind, equals, name = text.partition("=")
    vendor, slash, of_class = kind.partition("/")
    return bool(equals and slash and name and _is_word(vendor, ".-_") and _is_word(of_class, "-_"))


def _is_word(text: str, more: str) -> bool:
    return text.isascii() and text[:1].isalpha() and all(letter.isalnum() or letter in more for letter in text)


def requests(devices: list[str], gpus: str | None) -> list[ApiObject]:
    """The request's ``DeviceRequests``: GPUs first, then names (UsageError)."""
    found = [_gpus(gpus)] if gpus is not None else []
    if names := [text for text in devices if is_name(text)]:
        named = {"Driver": _CDI, "Count": 0, "DeviceIDs": names, "Capabilities": None, "Options": None}
        found.append(named)
    return found


def _gpus(text: str) -> ApiObject:
    """``all``, ``2``, ``device=0``, ``"device=0,1",capabilities=utility`` → a request."""
    if not text:
        raise UsageError("invalid --gpus: it is empty", hint="use e.g. --gpus all")
    import csv  # here: most command lines have none, and each start would pay for it

    request: ApiObject = {"Driver": "", "Count": 0, "DeviceIDs": None, "Capabilities": [["gpu"]], "Options": {}}
    seen: set[str] = set()
    for field in next(csv.reader([text])):
        key, equals, value = field.partition("=")
        if key in seen:
            raise UsageError(f"gpu request key '{key}' can be specified only once")
        if not equals:
            key, value = "count", field
        seen.add(key)
        if key == "count":
            request["Count"] = _count(value)
        elif key == "driver":
            request["Driver"] = value
        elif key == "device":
            request["DeviceIDs"] = value.split(",")
        elif key == "capabilities":
            request["Capabilities"] = [[*value.split(","), "gpu"]]
        elif key == "options":
            request["Options"] = dict(item.partition("=")[::2] for item in next(csv.reader([value])))
        else:
            raise UsageError(f"unexpected key '{key}' in '{field}'")
    if "count" not in seen and request["DeviceIDs"] is None:
        request["Count"] = 1
    return request


def _count(text: str) -> int:
    if text == "all":
        return -1
    try:
        return int(text)
    except ValueError:
        raise UsageError(
            f'invalid count ({text}): value must be either "all" or an integer', hint="use --gpus all, 1, device=0"
        ) from None


def words(found: list[ApiObject]) -> list[str]:
    """The flags that ask for the same."""
    result: list[str] = []
    for request in found:
        if request.get("Driver") == _CDI:
            result += [word for name in request.get("DeviceIDs") or () for word in ("--device", name)]
            continue
        parts = [f"driver={request['Driver']}"] if request.get("Driver") else []
        if ids := request.get("DeviceIDs"):
            parts.append(f'"device={",".join(ids)}"' if len(ids) > 1 else f"device={ids[0]}")
        else:
            parts.append("all" if request.get("Count", 0) < 0 else str(request.get("Count", 0)))
        more = [word for word in (request.get("Capabilities") or [[]])[0] if word != "gpu"]
        parts += [f'"capabilities={",".join(more)}"' if len(more) > 1 else f"capabilities={more[0]}"] if more else []
        result += ["--gpus", ",".join(parts)]
    return result
