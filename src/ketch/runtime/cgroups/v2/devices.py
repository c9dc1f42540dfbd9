"""Device access on v2, by a BPF program on the cgroup."""

from __future__ import annotations

import os

from ketch.linux import bpf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.runtime.oci_types import OciDeviceRule, OciResources


_TYPES = {"b": bpf.DEVCG_DEV_BLOCK, "c": bpf.DEVCG_DEV_CHAR}
_ACCESS = {"m": bpf.DEVCG_ACC_MKNOD, "r": bpf.DEVCG_ACC_READ, "w": bpf.DEVCG_ACC_WRITE}


def apply(directory: str, resources: OciResources) -> None:
    """Attach a program for the spec's rules; no rules, or only "allow all", need none."""
    rules = resources.get("devices") or []
    if not rules or all(rule.get("allow") and not _specific(rule) for rule in rules):
        return
    cgroup_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        program_fd = bpf.load_cgroup_device(program(rules))
        try:
            bpf.attach_cgroup_device(cgroup_fd, program_fd)
        finally:
            os.close(program_fd)
    finally:
        os.close(cgroup_fd)


def program(rules: list[OciDeviceRule]) -> bytes:
    """Instructions for the rules, of which the last one that matches decides; nothing matching is a refusal.

    A rule grants or takes away *accesses*.  Reading backwards, an access that is asked for is settled by the first rule
    that names it: a request passes when every access that it wants is granted.  (r6 = the accesses still wanted.)
    """
    assembler = bpf.Assembler()
    assembler.prologue()
    for rule in reversed(rules):
        access = 0
        for letter in rule.get("access") or "rwm":
            access |= _ACCESS.get(letter, 0)
        kind = _TYPES.get(rule.get("type") or "a")
        assembler.rule(bool(rule.get("allow")), kind, _number(rule.get("major")), _number(rule.get("minor")), access)
    assembler.refuse()
    return assembler.code()


def _number(value: int | None) -> int | None:
    return None if value is None or value < 0 else value


def _specific(rule: OciDeviceRule) -> bool:
    whole = set(rule.get("access") or "rwm") == set("rwm")
    numbers = (_number(rule.get("major")), _number(rule.get("minor")))
    return bool(_TYPES.get(rule.get("type") or "a")) or not whole or numbers != (None, None)
