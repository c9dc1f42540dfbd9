"""Changes of a container's limits: ``update`` of the OCI command line."""

from __future__ import annotations

from ketch.errors import Conflict, InvalidArgument, RuntimeFailure, Unimplemented
from ketch.notation import integers, sizes
from ketch.runtime import spec
from ketch.runtime.failure import failure
from ketch.runtime.oci_cli import arguments
from ketch.runtime.validation import check

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.runtime.oci_cli.arguments import GivenOptions
    from ketch.runtime.oci_cli.diagnostics import Diagnostics
    from ketch.runtime.oci_cli.state import RuntimeState
    from ketch.runtime.oci_types import OciResources

# option, place in the resources, whether it is a size
_OPTIONS = (
    ("blkio-weight", "blockIO", "weight", False),
    ("cpu-period", "cpu", "period", False),
    ("cpu-quota", "cpu", "quota", False),
    ("cpu-burst", "cpu", "burst", False),
    ("cpu-share", "cpu", "shares", False),
    ("cpu-rt-period", "cpu", "realtimePeriod", False),
    ("cpu-rt-runtime", "cpu", "realtimeRuntime", False),
    ("cpu-idle", "cpu", "idle", False),
    ("memory", "memory", "limit", True),
    ("memory-reservation", "memory", "reservation", True),
    ("memory-swap", "memory", "swap", True),
    ("pids-limit", "pids", "limit", False),
)
_TEXTS = (("cpuset-cpus", "cpus"), ("cpuset-mems", "mems"))


def update(state: RuntimeState, options: GivenOptions, diagnostics: Diagnostics) -> None:
    """Change limits; what is not named stays."""
    if state.status() in ("creating", "stopped"):
        raise Conflict(f"update container `{state.id}`: container not running")
    for name in ("l3-cache-schema", "mem-bw-schema"):
        if options.text(name):
            raise Unimplemented(f"option `--{name}`: Intel RDT is not supported")
    for name in ("kernel-memory", "kernel-memory-tcp"):
        if options.text(name):
            diagnostics.warn(f"option `--{name}` has no effect: the kernel has no such limit of its own any more")
    resources = _resources(options)
    memory = resources.get("memory") or {}
    if memory.get("limit") == -1 and not memory.get("swap"):
        memory["swap"] = -1  # memory and swap together cannot be limited to less than memory
    cgroup = state.cgroup()
    if cgroup is None:
        raise Conflict(f"update container `{state.id}`: it has no cgroup of its own")
    try:
        cgroup.update(resources)
    except OSError as e:
        written = f": {e.strerror}" if (e.strerror or "").startswith("write") else ""
        raise failure("cgroups", f"update container `{state.id}`: set `{e.filename}`{written}", e) from e


def _resources(options: GivenOptions) -> OciResources:
    """The resources in the file, or those that the options name."""
    if options.text("resources"):
        document = arguments.read_json(options.text("resources"))
        if not isinstance(document, dict):
            raise RuntimeFailure("read resources: the document is not an object", step="config")
        spec.check_texts(document, "resources")
        given: OciResources = document  # type: ignore[assignment]
        check.check_resources(given)
        given.pop("devices", None)  # the rules of a running container stay, as with runc
        return given
    resources: dict[str, dict[str, object]] = {}
    for name, controller, key, is_size in _OPTIONS:
        text = options.text(name)
        if text:
            resources.setdefault(controller, {})[key] = _number(name, text, is_size=is_size)
    for name, key in _TEXTS:
        if options.text(name):
            resources.setdefault("cpu", {})[key] = options.text(name)
    return resources  # type: ignore[return-value]


def _number(option: str, text: str, *, is_size: bool) -> int:
    try:
        value = sizes.parse(text) if is_size and text != "-1" else integers.signed(text)
    except integers.NotAnIntegerError:
        value = None
    if value is None:
        raise InvalidArgument(f"invalid value for {option}: `{text}`")
    return value
