"""Profiles of seccomp as clients send them: what is misunderstood is refused."""

from __future__ import annotations

import json

import pytest

from ketch.engine.spec import seccomp_profile
from ketch.errors import InvalidArgument


def rule(**more: object) -> str:
    one = {"names": ["read"], "action": "SCMP_ACT_ERRNO", **more}
    return json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [one]})


def argument(**more: object) -> str:
    return rule(args=[{"index": 0, "value": 0, "op": "SCMP_CMP_NE", **more}])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{}", "defaultAction"),
        ("[]", "Expected `object`"),
        ('{"defaultAction":"SCMP_ACT_ALLOW","syscalls":{}}', "syscalls"),
        (rule(names="read"), r"\$.syscalls\[0\].names"),
        (rule(names=[5]), r"names\[0\]"),
        (rule(action=None), "action"),
        (rule(name="read"), r"`name` and `names` .*syscalls\[0\]"),
        (rule(errnoRet=-1), "errnoRet"),
        (rule(errnoRet=1 << 16), "errnoRet"),
        (rule(includes={"caps": "CAP_SYS_ADMIN"}), "includes.caps"),
        (argument(index=6), "index"),
        (argument(value=-1), r"64 bits.*syscalls\[0\].args\[0\]"),
        (argument(value=1 << 64), "64 bits|out of range"),
        (argument(valueTwo=1 << 64), "64 bits|out of range"),
        (
            '{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],"archMap":[{"architecture":"x"}]}',
            "`architectures` and `archMap`",
        ),
        ('{"defaultAction":"SCMP_ACT_ALLOW","x":' + "[" * 100_000, "nested too deeply"),
        ('{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":1e400}', "out of range"),
    ],
)
def test_what_is_refused(text, said):
    with pytest.raises(InvalidArgument, match=said) as caught:
        seccomp_profile.read(text)
    assert caught.value.message.startswith("Decoding seccomp profile failed: ")


@pytest.mark.parametrize(
    "text",
    [
        rule(),
        rule(names=None, name="read", args=None, errnoRet=None, includes=None, excludes={"arches": None}, comment=""),
        argument(value=(1 << 64) - 1, valueTwo=None),
        '{"defaultAction":"SCMP_ACT_TRACE","defaultErrnoRet":65535,"flags":null,"syscalls":null,"unknown":[1]}',
    ],
)
def test_what_is_taken(text):
    assert seccomp_profile.read(text) == json.loads(text)
