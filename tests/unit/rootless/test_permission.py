"""What is said where user namespaces are forbidden, by each of the settings that forbid them."""

from __future__ import annotations

import errno

import pytest

from ketch.rootless import permission


@pytest.mark.parametrize(
    ("number", "name", "value", "reason", "advice"),
    [
        (errno.ENOSPC, "user/max_user_namespaces", "0", "limit of them", "user.max_user_namespaces=15000"),
        (errno.ENOSPC, "user/max_user_namespaces", "7", "limit of them", "user.max_user_namespaces, now 7"),
        (errno.EUSERS, "user/max_user_namespaces", "7", "limit of them", "user.max_user_namespaces, now 7"),
        # Debian's kernels
        (errno.EPERM, "kernel/unprivileged_userns_clone", "0", "not permitted", "kernel.unprivileged_userns_clone=1"),
        # Ubuntu since 23.10: by the profile "unprivileged_userns", without which the namespace is refused itself
        (errno.EPERM, "kernel/apparmor_restrict_unprivileged_userns", "1", "not permitted", "unprivileged_userns=0"),
        (errno.EACCES, "kernel/apparmor_restrict_unprivileged_userns", "1", "permission denied", "_userns=0"),
        (errno.EINVAL, "kernel/unprivileged_userns_clone", "1", "invalid argument", "user namespaces"),
        (0, "kernel/unprivileged_userns_clone", "1", "its process ended", "user namespaces"),
    ],
)
def test_settings(tmp_path, number, name, value, reason, advice):
    path = tmp_path / name
    path.parent.mkdir()
    path.write_text(f"{value}\n")
    error = permission.refused(number, str(tmp_path))
    assert error.message.startswith("make a user namespace: ")
    assert reason in error.message
    assert error.hint is not None
    assert advice in error.hint
    assert bool(permission.forbidding_setting(str(tmp_path))) == ("=" in advice)
