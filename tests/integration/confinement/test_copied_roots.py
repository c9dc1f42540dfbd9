"""``--userns-copy``, where the kernel does not map the owners of overlay's layers (before Linux 5.19)."""

from __future__ import annotations

import io
import os
import tarfile

from tests.support.rawapi import Api
from tests.support.waiting import patient

AUTO = ("--userns", "auto")
OLD_KERNEL = {"KETCH_FAULT": "overlay.owners-mapped=einval"}
SCRIPT = """
id -u; cut -c1-30 /proc/self/uid_map
touch /new; chown 3:4 /new; rm /etc/group
stat -c %u:%g / /bin /vol /etc/hosts
"""


def restart(engine, *flags: str, **settings: str) -> None:
    engine.stop()
    engine.extra = [word for word in engine.extra if word != "--userns-copy"] + list(flags)
    engine.settings = settings
    engine.start()


def test_copies_where_layers_cannot_be_mapped(own_engine, tmp_path):
    """Such a container is whole; others, and those of newer kernels, have overlays."""
    engine = own_engine
    engine.settings = OLD_KERNEL
    engine.user_namespaces()
    engine.start()
    engine.add_busybox()
    failed = engine.ketch("run", "--rm", *AUTO, "busybox", "true", check=False)
    assert failed.code == 125
    assert "layers with mapped owners need Linux 5.19; before that, ketchd --userns-copy" in failed.err
    restart(engine, "--userns-copy", **OLD_KERNEL)
    engine.ketch("run", "--name", "box", *AUTO, "-v", "vol:/vol", "busybox", "sh", "-c", SCRIPT)
    out = engine.ketch("logs", "box").out.splitlines()
    assert (out[0], out[2:]) == ("0", ["0:0"] * 4)
    assert int(out[1].split()[1]) >= 1 << 31
    found = engine.inspect("box")
    assert found["GraphDriver"]["Name"] == "vfs"
    root = found["GraphDriver"]["Data"]["dir"]
    assert [os.stat(f"{root}/{name}").st_uid for name in ("", "bin", "new")] == [0, 0, 3]  # as in the image
    _is_whole(engine, tmp_path)
    engine.ketch("run", "-d", "--name", "plain", "busybox", "sleep", "1000")
    assert engine.inspect("plain")["GraphDriver"]["Name"] == "overlay2"
    engine.stop()
    engine.extra.remove("--userns-copy")
    engine.launch()
    assert engine.process.wait(patient(30)) == 1
    assert "with --userns-copy both kinds can be there" in engine.log()
    engine.extra.append("--userns-copy")
    engine.settings = {}  # a newer kernel
    engine.start()
    engine.ketch("create", "--name", "mapped", *AUTO, "busybox", "true")
    drivers = [engine.inspect(name)["GraphDriver"]["Name"] for name in ("box", "mapped", "plain")]
    assert drivers == ["vfs", "overlay2", "overlay2"]
    for name in ("box", "mapped", "plain"):
        engine.ketch("start", name)


def _is_whole(engine, tmp_path) -> None:
    assert sorted(engine.ketch("diff", "box").out.splitlines()) == ["A /new", "A /vol", "C /etc", "D /etc/group"]
    status, archive = Api(engine.socket)("GET", "/containers/box/archive?path=/new")
    assert status == 200
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        assert (tar.getmembers()[0].uid, tar.getmembers()[0].gid) == (3, 4)
    engine.ketch("commit", "box", "committed")
    (tmp_path / "Dockerfile").write_text(
        "FROM committed\nRUN stat -c %u:%g /new > /seen; cut -c1-30 /proc/self/uid_map > /map\n"
    )
    engine.ketch("build", "-t", "built", str(tmp_path))
    for mode in ("auto", "host"):
        script = "stat -c %u:%g /new; cat /seen /map; ls /etc/group"
        done = engine.ketch("run", "--rm", "--userns", mode, "built", "sh", "-c", script, check=False)
        assert done.out.split()[:2] == ["3:4", "3:4"]
        assert "No such file" in done.err
