"""Resource limits, beside what the standard library says of them."""

from __future__ import annotations

import resource

import pytest

from ketch.errors import RuntimeFailure
from ketch.runtime.security import rlimits


def test_numbers_and_values_are_those_of_the_standard_library():
    known = {name: number for name, number in vars(resource).items() if name.startswith("RLIMIT_") and name[7] != "O"}
    assert known.items() <= {**rlimits.NUMBERS, "RLIMIT_OFILE": 7}.items()
    assert [rlimits.get(number) for number in known.values()] == [resource.getrlimit(n) for n in known.values()]
    assert sorted(rlimits.NUMBERS.values()) == list(range(16))


def test_limits_are_set_and_refused_with_their_reason():
    before = resource.getrlimit(resource.RLIMIT_CORE)
    try:
        rlimits.apply([{"type": "RLIMIT_CORE", "soft": 4096, "hard": before[1] & (1 << 64) - 1}])
        assert resource.getrlimit(resource.RLIMIT_CORE) == (4096, before[1])
        with pytest.raises(RuntimeFailure, match="set rlimit `RLIMIT_CORE` to 2:1: invalid argument") as caught:
            rlimits.apply([{"type": "RLIMIT_CORE", "soft": 2, "hard": 1}])
        assert caught.value.hint == "the soft limit is at most the hard one"
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, before)
