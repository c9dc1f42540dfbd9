"""The runtime's features (OCI runtime specification, § features.md), and an example configuration."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from ketch import __version__
from ketch.errors import AlreadyExists, Unimplemented
from ketch.linux import caps, scheduler
from ketch.runtime import defaults, namespaces, spec
from ketch.runtime.cgroups import common
from ketch.runtime.oci_cli.state import OCI_VERSION
from ketch.runtime.rootfs import mount_options
from ketch.runtime.security import seccomp, seccomp_compiler, seccomp_default
from ketch.runtime.validation import fields

if TYPE_CHECKING:
    from ketch.runtime.oci_cli.arguments import GivenOptions
    from ketch.runtime.oci_types import OciConfig


def document() -> dict[str, object]:
    """The features document."""
    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": OCI_VERSION,
        "hooks": list(fields.CONFIG["hooks"]),
        "mountOptions": mount_options.known(),
        "linux": {
            "namespaces": list(namespaces.FLAGS),
            "capabilities": list(caps.NAMES),
            "cgroup": {"v1": True, "v2": True, "systemd": True, "systemdUser": False, "rdma": True},
            "seccomp": {
                "enabled": True,
                "actions": sorted(seccomp_compiler.ACTIONS),
                "operators": sorted(seccomp_compiler.OPERATORS),
                "archs": [name for names in seccomp_default.ARCHITECTURES.values() for name in names],
                "knownFlags": sorted(seccomp.FLAGS),
                "supportedFlags": sorted(seccomp.FLAGS),
            },
            "apparmor": {"enabled": True},
            "selinux": {"enabled": True},
            "intelRdt": {"enabled": "linux.intelRdt" not in fields.REFUSED},
            "mountExtensions": {"idmap": {"enabled": True}},
            "netDevices": {"enabled": "linux.netDevices" not in fields.REFUSED},
            "memoryPolicy": {"modes": sorted(scheduler.MEMORY_MODES), "flags": sorted(scheduler.MEMORY_FLAGS)},
        },
        "annotations": {"dev.ketch.version": __version__},
        "potentiallyUnsafeConfigAnnotations": [spec.ANNOTATIONS, "org.systemd.property."],
    }


def example() -> OciConfig:
    """A configuration that runs ``sh`` in ``rootfs``, to start from."""
    names = list(defaults.DEFAULT_CAPS)
    version = common.layout().version
    return {
        "ociVersion": OCI_VERSION,
        "process": {
            "terminal": True,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {"bounding": names, "effective": names, "permitted": names},
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "ketch",
        "mounts": defaults.mounts(),
        "linux": {
            "resources": {"devices": defaults.device_rules()},
            "namespaces": [{"type": kind} for kind in defaults.NAMESPACES if kind != "cgroup" or version == 2],
            "maskedPaths": list(defaults.MASKED_PATHS),
            "readonlyPaths": list(defaults.READONLY_PATHS),
            "seccomp": seccomp_default.profile(names),
        },
    }


def write_example(options: GivenOptions) -> None:
    """Write the example as config.json of a bundle."""
    if options.flag("rootless"):
        raise Unimplemented("write an example of config.json: containers of users without privileges are not supported")
    path = os.path.join(options.text("bundle", "."), "config.json")
    try:
        with open(path, "x", encoding="utf-8") as file:
            json.dump(example(), file, indent=2)
            file.write("\n")
    except FileExistsError as e:
        raise AlreadyExists(f"write `{path}`: file exists", hint="remove it first") from e
