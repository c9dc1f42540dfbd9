"""The hint at libraries that are missing: which packages to install, on which distribution."""

from __future__ import annotations

import pytest

from ketch.daemon import libraries


@pytest.mark.parametrize(
    ("os_release", "hint"),
    [
        ("ID=debian\n", "install: apt install libseccomp2 libnftables1"),
        ("NAME=Ubuntu\nID=ubuntu\nID_LIKE=debian\n", "install: apt install libseccomp2 libnftables1"),
        ('ID=linuxmint\nID_LIKE="ubuntu debian"\n', "install: apt install libseccomp2 libnftables1"),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"\n', "install: dnf install libseccomp nftables-libs"),
        ('ID="opensuse-leap"\nID_LIKE="suse opensuse"\n', "install: zypper install libseccomp2 libnftables1"),
        ("ID=arch\n", "install: pacman -S libseccomp nftables"),
        ("ID=alpine\n", "install: apk add libseccomp nftables"),
        ("ID=mystery\nno assignment\n", "install what Debian calls libseccomp2 libnftables1"),
        ("", "install what Debian calls libseccomp2 libnftables1"),
    ],
)
def test_hint(os_release, hint):
    missing = [libraries.SECCOMP, libraries.NFTABLES]
    assert libraries._hint(missing, libraries._family(os_release)) == hint
