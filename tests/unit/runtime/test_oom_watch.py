"""The count of what the kernel killed outlives the cgroup, which systemd removes at once."""

from ketch.runtime.process.oom import OomWatch


class _Counter:
    """A cgroup's counter; of one that is gone it reads 0."""

    version = 2

    def __init__(self) -> None:
        self.kills = 0

    def watch_oom(self) -> int:
        return -1

    def oom_kills_around(self) -> int:
        return 0

    def oom_kills(self) -> int:
        return self.kills


def test_a_kill_is_not_forgotten():
    cgroup = _Counter()
    watch = OomWatch(None, lambda: None)
    watch.look()  # nothing is watched yet
    watch.begin(cgroup)
    cgroup.kills = 2
    watch.look()
    cgroup.kills = 0
    watch.look()
    assert watch.kills == 2
