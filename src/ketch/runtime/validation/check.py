"""Configurations checked whole, by the table in `fields`, before anything is made of them.

For the OCI command line, whose bundles are written by others: a field of the wrong type, a missing one, or one that is
refused is an error that names it.  The child that makes the container calls no more than `spec.check`.
"""

from __future__ import annotations

from ketch.errors import RuntimeFailure
from ketch.linux import caps
from ketch.runtime import spec
from ketch.runtime.cgroups import files
from ketch.runtime.process.children import scheduling
from ketch.runtime.rootfs import mount_options
from ketch.runtime.validation import fields

PROC = "/proc"
_MOST_CELLS = (1 << 16) - 1  # of a line or a column (ioctl_tty(2))

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ketch.runtime.oci_types import OciConfig, OciProcess, OciResources


def check_config(document: OciConfig) -> None:
    """Raise RuntimeFailure (step ``config``) for what is wrong with a configuration, or refused."""
    _check_value(document, fields.CONFIG, "")
    version = document["ociVersion"]
    if not is_version(version):
        raise RuntimeFailure(f"read config.json: ociVersion `{version}` is no version (SemVer 2.0.0)", step="config")
    for path, why in fields.REFUSED.items():
        if spec.member(document, *path.split(".")):
            raise _refused(path, why)
    linux = document.get("linux") or {}
    if linux.get("netDevices") and not any(entry["type"] == "network" for entry in linux.get("namespaces") or ()):
        text = "move linux.netDevices: the container shares the host's network namespace"
        raise RuntimeFailure(text, step="config", hint='add {"type": "network"} to linux.namespaces')
    if not (document.get("root") or {}).get("path"):
        raise RuntimeFailure("read config.json: root.path is missing", step="config")
    if "" in (document.get("annotations") or {}):
        raise RuntimeFailure("read config.json: annotations has a value without a name", step="config")
    _check_device_rules(linux.get("resources") or {}, "linux.resources")
    if document.get("process"):
        _check_process_values(document["process"])
    if linux.get("mountLabel"):
        _check_label("linux.mountLabel", linux["mountLabel"])


def check_process(process: OciProcess) -> None:
    """The same for a process object, which is to be exec'd."""
    _check_value(process, fields.PROCESS, "process")
    for path, why in fields.REFUSED.items():
        head, *names = path.split(".")
        if head == "process" and spec.member(process, *names):
            raise _refused(path, why)
    _check_process_values(process)


def ineffective_options(document: OciConfig) -> list[str]:
    """Sentences about options of bind mounts that no bind mount has: the kernel overlooks them."""
    told = []
    for mount in document.get("mounts") or ():
        options = mount_options.MountOptions(mount.get("options") or [])
        if options.data and (options.bind or mount.get("type") == "bind"):
            words = ", ".join(options.data)
            told.append(f"mount `{mount['destination']}`: a bind mount does not have these options: {words}")
    return told


def warnings(process: OciProcess) -> list[str]:
    """Sentences about what a process object asks for that this kernel, or this process, cannot give: it is left out."""
    permitted = caps.get()[1]
    sets: dict[str, list[str] | None] = process.get("capabilities") or {}  # type: ignore[assignment]
    wanted = dict.fromkeys(name for names in sets.values() for name in names or ())
    missing = [name for name in wanted if name not in caps.NUMBERS or not permitted >> caps.NUMBERS[name] & 1]
    told = [f"ignoring unknown or unavailable capabilities: {', '.join(missing)}"] if missing else []
    possible = set(sets.get("permitted") or ()) & set(sets.get("inheritable") or ())
    raised = [name for name in sets.get("ambient") or () if name not in missing and name not in possible]
    return told + [f"can't raise ambient capability {name}: it is not permitted and inheritable" for name in raised]


def check_resources(resources: OciResources) -> None:
    """Raise RuntimeFailure for what is wrong with the limits that are to replace others."""
    _check_value(resources, fields.RESOURCES, "resources")
    _check_device_rules(resources, "resources")


def is_version(text: str) -> bool:
    """Whether ``text`` is a version (SemVer 2.0.0): three numbers, perhaps a pre-release, perhaps a build."""
    release, plus, build = text.partition("+")
    core, dash, pre = release.partition("-")
    numbers = core.split(".")
    labels = [*(pre.split(".") if dash else ()), *(build.split(".") if plus else ())]
    return (
        text.isascii()
        and len(numbers) == 3
        and all(number.isdecimal() and number == str(int(number)) for number in numbers)
        and all(label.replace("-", "0").isalnum() for label in labels)
    )


def _check_process_values(process: OciProcess) -> None:
    affinity = process.get("execCPUAffinity") or {}
    scheduling.numbers("process.execCPUAffinity.initial", affinity.get("initial") or "")
    scheduling.numbers("process.execCPUAffinity.final", affinity.get("final") or "")
    seen = set()
    for limit in process.get("rlimits") or ():
        if limit["type"] in seen:
            raise RuntimeFailure(f"read config.json: process.rlimits has `{limit['type']}` twice", step="config")
        if limit["soft"] > limit["hard"]:
            numbers = f"soft limit {limit['soft']} is above its hard limit {limit['hard']}"
            raise RuntimeFailure(f"read config.json: process.rlimits: `{limit['type']}`'s {numbers}", step="config")
        seen.add(limit["type"])
    for name, cells in (process.get("consoleSize") or {}).items():
        if name in ("height", "width") and cells > _MOST_CELLS:  # type: ignore[operator]
            text = f"read config.json: process.consoleSize.{name} is {cells}, a terminal has {_MOST_CELLS} at most"
            raise RuntimeFailure(text, step="config")
    for entry in process.get("env") or ():
        if not entry.partition("=")[0] or "=" not in entry:
            raise RuntimeFailure(f"read config.json: process.env has `{entry}`, which is no NAME=value", step="config")
    if process.get("selinuxLabel"):
        _check_label("process.selinuxLabel", process["selinuxLabel"])


def _check_device_rules(resources: OciResources, name: str) -> None:
    """Refuse a rule for a type or an access that there is not: on v2 it would be one for all devices, or for none."""
    for number, rule in enumerate(resources.get("devices") or ()):
        where = f"read config.json: {name}.devices[{number}]"
        if (kind := rule.get("type") or "a") not in ("a", "b", "c"):
            raise RuntimeFailure(f"{where}.type `{kind}` is none of a, b, c", step="config")
        if not set(access := rule.get("access") or "") <= set("rwm"):
            raise RuntimeFailure(f"{where}.access `{access}` has other letters than r, w and m", step="config")


def _check_label(field: str, label: str) -> None:
    """Refuse an SELinux label where the kernel has no SELinux, or was started without."""
    if "selinuxfs" not in files.read(PROC, "filesystems").split():
        what = f"{field} `{label}` is not supported: the kernel has no SELinux, or it is off"
        raise RuntimeFailure(what, step="config", hint="leave it out of the configuration")


def _check_value(value: object, kind: Any, path: str) -> None:
    """Raise RuntimeFailure unless ``value`` is of the type ``kind`` (see `fields`), or null, which is no value."""
    if value is None:
        return
    if isinstance(kind, dict):
        if not isinstance(value, dict):
            raise _wrong(path or "the document", "an object")
        _check_object(value, kind, f"{path}." if path else "")
    elif isinstance(kind, list):
        if not isinstance(value, list):
            raise _wrong(path, "a list")
        for number, item in enumerate(value):
            if item is None:
                raise _wrong(f"{path}[{number}]", "a value")
            _check_value(item, kind[0], f"{path}[{number}]")
    else:
        _check_scalar(value, kind, path)


def _check_object(value: dict[str, object], kind: dict[str, Any], prefix: str) -> None:
    if "*" in kind:
        for name, item in value.items():
            _check_value(item, kind["*"], prefix + name)
        return
    for key, of in kind.items():
        name = key.removesuffix("!")
        item = value.get(name)
        if item is not None:
            _check_value(item, of, prefix + name)
        elif name != key:
            raise RuntimeFailure(f"read config.json: {prefix}{name} is missing", step="config")


def _check_scalar(value: object, kind: Any, path: str) -> None:
    if kind == "string":
        if not isinstance(value, str):
            raise _wrong(path, "a string")
    elif kind == "bool":
        if not isinstance(value, bool):
            raise _wrong(path, "true or false")
    elif isinstance(kind, tuple):
        if value not in kind:
            raise RuntimeFailure(f"read config.json: {path} `{value}` is none of {', '.join(kind)}", step="config")
    elif kind != "any":
        _check_number(value, fields.RANGES[kind], path)


def _check_number(value: object, limits: tuple[int, int], path: str) -> None:
    least, most = limits
    if not isinstance(value, int) or isinstance(value, bool):
        raise _wrong(path, "a whole number")
    if not least <= value <= most:
        raise RuntimeFailure(f"read config.json: {path} is {value}, not in {least}…{most}", step="config")


def _wrong(path: str, kind: str) -> RuntimeFailure:
    return RuntimeFailure(f"read config.json: {path} is not {kind}", step="config")


def _refused(path: str, why: str) -> RuntimeFailure:
    return RuntimeFailure(f"{path} is not supported: {why}", step="config", hint="leave it out of the configuration")
