"""Types of options' values: parsing, the API's value, and writing.

``read`` takes what the flags' parser found (one text, a list of them, a number, a switch) and the flag's name for
messages; it raises InvalidArgument.  ``words`` gives the words of a command line that mean a value, ``service`` what
stands for it in a Compose file.
"""

from __future__ import annotations

import os

from ketch.cli.errors import UsageError
from ketch.cli.options import checks, device_flags, mount_flags, quantities, secret_flags
from ketch.errors import InvalidArgument
from ketch.notation import digits, durations, sizes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ketch.notation.api_objects import ApiObject


def _same(value: Any) -> Any:
    return value


def _as_typed(value: Any, _flag: str) -> Any:
    return value


def _single_text(flag: str, value: Any) -> list[str]:
    return [f"--{flag}", str(value)]


def _each(flag: str, values: list[str]) -> list[str]:
    return [word for value in values for word in (f"--{flag}", value)]


class ValueType:
    """One type; ``parser`` is the flag parser's kind: bool, string, int or list.

    (No named tuple: making one costs each command a millisecond.)
    """

    def __init__(
        self,
        parser: str,
        read: Callable[[Any, str], Any] = _as_typed,
        words: Callable[[str, Any], list[str]] = _single_text,
        service: Callable[[Any], Any] = _same,
    ) -> None:
        self.parser, self.read, self.words, self.service = parser, read, words, service


# -- one value -------------------------------------------------------------------------------------------------------


def _switch_words(flag: str, value: bool) -> list[str]:
    return [f"--{flag}" if value else f"--{flag}=false"]


def _read_size(text: str, flag: str) -> int:
    return quantities.size(text, f"--{flag}")


def _read_swap(text: str, flag: str) -> int:
    return -1 if text == "-1" else quantities.size(text, f"--{flag}")


def _read_cpus(text: str, flag: str) -> int:
    try:
        return round(float(text) * 1e9)
    except (ValueError, OverflowError):
        raise UsageError(f"invalid --{flag} `{text}`: not a number", hint="use e.g. 1.5") from None


def _cpus_text(value: int) -> str:
    return f"{value / 1e9:.9f}".rstrip("0").rstrip(".")


def restart_policy(text: str, flag: str = "restart") -> ApiObject:
    """``on-failure:3`` → the API's object (InvalidArgument)."""
    name, colon, count = text.partition(":")
    most = digits.whole(count) if colon else 0
    if most is None:
        raise InvalidArgument(f"invalid --{flag} `{text}`: maximum retry count must be an integer")
    return {"Name": name or "no", "MaximumRetryCount": most}


def _restart_text(policy: ApiObject) -> str:
    count = policy.get("MaximumRetryCount")
    return f"{policy['Name']}:{count}" if count else str(policy["Name"])


def _health_words(flag: str, test: list[str]) -> list[str]:
    if test == ["NONE"]:
        return ["--no-healthcheck"]
    import shlex

    return [f"--{flag}", test[1] if test[0] == "CMD-SHELL" else shlex.join(test[1:])]


SWITCH = ValueType("bool", words=_switch_words)
TEXT = ValueType("string", lambda text, _flag: text or None)
NUMBER = ValueType("int")
COUNT = ValueType("int", lambda number, _flag: number or None)  # 0 is the same as not given
SECONDS = ValueType("int", service=lambda value: f"{value}s")
SIZE = ValueType("string", _read_size, lambda flag, value: _single_text(flag, sizes.write(value)))
SWAP = ValueType("string", _read_swap, lambda flag, value: _single_text(flag, sizes.write(value)))
CPUS = ValueType("string", _read_cpus, lambda flag, value: _single_text(flag, _cpus_text(value)), _cpus_text)
DURATION = ValueType(
    "string",
    lambda text, flag: quantities.duration(text, f"--{flag}"),
    lambda flag, value: _single_text(flag, durations.write(value)),
    durations.write,
)
RESTART = ValueType(
    "string",
    lambda text, flag: restart_policy(text, flag) if text else None,
    lambda flag, value: _single_text(flag, _restart_text(value)),
    _restart_text,
)
HEALTH_COMMAND = ValueType("string", lambda text, _flag: ["CMD-SHELL", text] if text else None, _health_words)

# -- any number of values --------------------------------------------------------------------------------------------


def pairs(items: list[str], flag: str) -> dict[str, str]:
    """Parse ``KEY=VALUE`` values (InvalidArgument)."""
    result = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not key or (not equals and flag == "storage-opt"):
            raise InvalidArgument(f"invalid --{flag} `{item}`", hint="write KEY=VALUE")
        result[key] = value
    return result


def _tmpfs(items: list[str], _flag: str) -> dict[str, str]:
    return {target: options for target, _, options in (item.partition(":") for item in items)}


def _tmpfs_texts(value: dict[str, str]) -> list[str]:
    return [f"{target}:{options}" if options else target for target, options in value.items()]


def _extra_hosts(items: list[str], flag: str) -> list[str]:
    result = []
    for text in items:
        name, separator, address = text.partition("=") if "=" in text else text.partition(":")
        if not separator or not name or not address:
            raise InvalidArgument(f'bad format for {flag}: "{text}"', hint="write NAME:ADDRESS")
        result.append(f"{name}:{address}")
    return result


UNMASKED = "systempaths=unconfined"  # is no option of the API's: it is said by empty lists of paths


def _security(items: list[str], _flag: str) -> list[str] | None:
    return [_with_profile(text) for text in items if text != UNMASKED] or None


def _with_profile(text: str) -> str:
    """A security option with a seccomp profile's content in place of its path (the daemon may be remote)."""
    name, equals, value = text.partition("=")
    if name == "seccomp" and equals and value not in ("unconfined", "builtin") and not value.startswith("{"):
        try:
            with open(value, encoding="utf-8") as f:
                return f"seccomp={f.read()}"
        except OSError as e:
            raise InvalidArgument(f"opening seccomp profile ({value}) failed: {e.strerror}") from e
    return text


def portable(option: str) -> bool:
    """Whether a security option is no inline seccomp profile, which Compose takes from files alone."""
    return not option.startswith("seccomp={")


def _devices(items: list[str], _flag: str) -> list[dict[str, str]] | None:
    """Devices by their paths; those with other names are not the field's (`device_flags`)."""
    return [_device(text) for text in items if not device_flags.is_name(text)] or None


def _device(text: str) -> dict[str, str]:
    parts = text.split(":")
    if len(parts) > 3 or not parts[0]:
        raise InvalidArgument(f"bad format for path: {text}", hint="write --device HOST[:CONTAINER[:rwm]]")
    if len(parts) == 3 and not (parts[2] and set(parts[2]) <= set("rwm")):
        raise InvalidArgument(f"bad mode specified: {parts[2]}", hint="write --device HOST[:CONTAINER[:rwm]]")
    target, access = parts[0], "rwm"
    for part in parts[1:]:
        if part and set(part) <= set("rwm"):
            access = part
        else:
            target = part
    if not target.startswith("/"):
        raise InvalidArgument(f"{target} is not an absolute path", hint="write --device HOST[:CONTAINER[:rwm]]")
    return {"PathOnHost": parts[0], "PathInContainer": target, "CgroupPermissions": access}


def _device_texts(devices: list[dict[str, str]]) -> list[str]:
    """Devices as ``/dev/x[:/dev/y][:rwm]``."""
    result = []
    for device in devices:
        host, inside, access = (device.get(k) or "" for k in ("PathOnHost", "PathInContainer", "CgroupPermissions"))
        if access not in ("", "rwm"):
            result.append(f"{host}:{inside or host}:{access}")
        else:
            result.append(f"{host}:{inside}" if inside not in ("", host) else host)
    return result


def _ulimit_texts(limits: list[ApiObject]) -> list[str]:
    """Ulimits as ``nofile=1024[:2048]``."""
    result = []
    for limit in limits:
        soft, hard = limit["Soft"], limit["Hard"]
        result.append(f"{limit['Name']}={soft}" + (f":{hard}" if hard != soft else ""))
    return result


def _device_limits(items: list[str], flag: str) -> list[ApiObject]:
    """``/dev/sda:10mb``, ``/dev/sda:1000`` → the device and its rate or weight."""
    result: list[ApiObject] = []
    for text in items:
        path, colon, value = text.rpartition(":")
        if not colon or not path.startswith("/dev/"):
            raise InvalidArgument(f"invalid --{flag} `{text}`", hint="write /dev/DEVICE:NUMBER")
        result.append({"Path": path, "Weight" if "weight" in flag else "Rate": quantities.size(value, f"--{flag}")})
    return result


def _device_limit_texts(limits: list[ApiObject]) -> list[str]:
    return [f"{item['Path']}:{item['Weight'] if 'Weight' in item else item['Rate']}" for item in limits]


def volumes(items: list[str]) -> tuple[list[str], dict[str, ApiObject]]:
    """``--volume`` → the binds, and the paths of anonymous volumes."""
    binds: list[str] = []
    own: dict[str, ApiObject] = {}
    for text in items:
        if ":" not in text:
            own[text] = {}
            continue
        source, _, rest = text.partition(":")
        if source.startswith((".", "~")) or (os.sep in source and not source.startswith("/")):
            source = os.path.abspath(os.path.expanduser(source))
        binds.append(f"{source}:{rest}")
    return binds, own


def _list(texts: Callable[[Any], list[str]]) -> Callable[[str, Any], list[str]]:
    return lambda flag, value: _each(flag, texts(value))


WORDS = ValueType("list", words=_each)
PAIRS = ValueType("list", pairs, _list(lambda value: [f"{key}={text}" for key, text in value.items()]))
CAPABILITIES = ValueType("list", lambda names, _flag: checks.capabilities(names), _each)
EXTRA_HOSTS = ValueType("list", _extra_hosts, _each)
SECURITY = ValueType("list", _security, _each, lambda options: [option for option in options if portable(option)])
TMPFS = ValueType("list", _tmpfs, _list(_tmpfs_texts), _tmpfs_texts)
ULIMITS = ValueType(
    "list",
    lambda items, _flag: [checks.ulimit(text) for text in items],
    _list(_ulimit_texts),
    lambda limits: {item["Name"]: {"soft": item["Soft"], "hard": item["Hard"]} for item in limits},
)
DEVICES = ValueType("list", _devices, _list(_device_texts), _device_texts)
DEVICE_LIMITS = ValueType(
    "list",
    _device_limits,
    _list(_device_limit_texts),
    lambda limits: [{key.lower(): value for key, value in item.items()} for item in limits],
)
MOUNTS = ValueType(
    "list",
    lambda items, _flag: [mount_flags.parse(text) for text in items],
    _list(lambda mounts: [mount_flags.text_of(mount) for mount in mounts]),
    lambda mounts: [mount_flags.long_form(mount) for mount in mounts],
)
SECRETS = ValueType("list", lambda items, _flag: [secret_flags.parse(text) for text in items])
