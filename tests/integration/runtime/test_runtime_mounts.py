"""The spec's mounts in real containers: binds, tmpfs, options, and images that try to lead mounts astray."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from ketch.linux import mount as m
from ketch.runtime import defaults
from ketch.runtime.rootfs import overlay
from tests.support.boxes import runtime_box

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.boxes.runtime_box import Box

pytestmark = [pytest.mark.timeout(60), *runtime_box.NEEDED]
RELEASE = tuple(int(part) for part in os.uname().release.split(".")[:2])


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A directory of the host with one file."""
    place = tmp_path / "source"
    place.mkdir()
    (place / "file").write_text("from the host\n")
    return place


def bind(source: Path, destination: str, *options: str) -> dict[str, Any]:
    return {"destination": destination, "type": "bind", "source": str(source), "options": ["rbind", *options]}


def layer(box: Box) -> Path:
    """An additional topmost layer of the image."""
    place = box.directory / f"layer{len(box.lowers)}"
    place.mkdir()
    box.lowers.insert(0, str(place))
    return place


def test_bind_mounts_of_directories_and_files(box: Box, source: Path) -> None:
    mounts = [bind(source, "/data/deep"), bind(source / "file", "/etc/motd")]
    result = box.run(["sh", "-c", "cat /data/deep/file /etc/motd; echo new > /data/deep/made"], {"+mounts": mounts})
    assert result.out == "from the host\n" * 2
    assert (source / "made").read_text() == "new\n"


def test_readonly_binds(box: Box, source: Path) -> None:
    mounts = [bind(source, "/data", "ro"), bind(source / "file", "/file", "ro", "noexec", "nosuid", "nodev")]
    result = box.run(
        ["sh", "-c", "touch /data/x; echo x > /file; grep -E ' /(data|file) ' /proc/mounts"], {"+mounts": mounts}
    )
    assert result.err.count("Read-only file system") == 2
    assert "ro,nosuid,nodev,noexec" in result.out
    assert (source / "file").read_text() == "from the host\n"


def test_recursive_readonly_reaches_submounts(box: Box, source: Path) -> None:
    (source / "sub").mkdir()
    m.mount("tmpfs", str(source / "sub"), "tmpfs")
    try:
        for option, expected in (("ro", 0), ("rro", 1)):
            result = box.run(["touch", "/data/sub/x"], {"+mounts": [bind(source, "/data", option)]})
            assert result.code == expected, option
    finally:
        m.umount2(str(source / "sub"))


def test_a_plain_bind_leaves_submounts_out(box: Box, source: Path) -> None:
    (source / "sub").mkdir()
    m.mount("tmpfs", str(source / "sub"), "tmpfs")
    try:
        (source / "sub/hidden").touch()
        entry = {"destination": "/data", "type": "bind", "source": str(source), "options": ["bind"]}
        assert box.run(["ls", "/data/sub"], {"+mounts": [entry]}).out == ""
        assert box.run(["ls", "/data/sub"], {"+mounts": [bind(source, "/data")]}).out == "hidden\n"
    finally:
        m.umount2(str(source / "sub"))


@pytest.mark.parametrize("target", ["../../../../../../..", "/../../..", "/"])
def test_links_in_the_image_do_not_lead_out(box: Box, source: Path, target: str) -> None:
    """`/evil` points at what is the host's root when a runtime follows it outside."""
    place = layer(box)
    (place / "evil").symlink_to(target)
    victim = box.directory / "victim"
    result = box.run(["cat", f"{victim}/file"], {"+mounts": [bind(source, f"/evil{victim}")]})
    assert result.out == "from the host\n"  # it is there, in the container
    assert not victim.exists()


def test_a_link_to_an_absolute_directory_is_followed_inside(box: Box, source: Path) -> None:
    place = layer(box)
    (place / "var").mkdir()
    (place / "var/run").symlink_to("/run/deep")  # dangling: the image has no /run
    result = box.run(["ls", "/run/deep/app"], {"+mounts": [bind(source, "/var/run/app")]})
    assert result.out == "file\n"


def test_a_dangling_link_to_a_file_is_followed_inside(box: Box, source: Path) -> None:
    (layer(box) / "conf").symlink_to("/run/app/conf")
    result = box.run(["cat", "/run/app/conf"], {"+mounts": [bind(source / "file", "/conf")]})
    assert result.out == "from the host\n"


def test_magic_links_are_refused(box: Box, source: Path) -> None:
    (layer(box) / "fd").symlink_to("/proc/self/cwd")
    result = box.run(["true"], {"+mounts": [bind(source, "/fd/x")]})
    assert result.failed["step"] == "mounts"
    assert "too many levels of symbolic links" in result.failed["message"]


@pytest.mark.parametrize("name", ["proc", "sys"])
def test_proc_and_sys_may_not_be_links(box: Box, tmp_path: Path, name: str) -> None:
    """Masks are put where /proc is; an image that moved it elsewhere would escape them."""
    image = tmp_path / "linked"
    image.mkdir()
    (image / name).symlink_to("tmp")
    (image / "bin").symlink_to("nowhere")
    box.lowers = [str(image)]
    result = box.run(["true"])
    assert "the image has a symbolic link there" in result.failed["message"]


def test_nothing_is_mounted_inside_proc(box: Box, source: Path) -> None:
    result = box.run(["true"], {"+mounts": [bind(source, "/proc/self/attr")]})
    assert "it is inside /proc" in result.failed["message"]
    allowed = box.run(["cat", "/proc/uptime"], {"+mounts": [bind(source / "file", "/proc/uptime")]})
    assert allowed.out == "from the host\n"


def test_a_missing_source_is_named(box: Box) -> None:
    result = box.run(["true"], {"+mounts": [bind(box.directory / "none", "/data")]})
    assert result.failed["message"] == (
        f'error mounting "{box.directory}/none" to rootfs at "/data": no such file or directory'
    )


def test_a_file_on_a_directory(box: Box, source: Path) -> None:
    result = box.run(["true"], {"+mounts": [bind(source / "file", "/etc")]})
    assert result.failed["message"].startswith(f'error mounting "{source}/file" to rootfs at "/etc": not a directory: ')
    reverse = box.run(["true"], {"+mounts": [bind(source, "/etc/passwd")]})
    assert reverse.failed["message"] == result.failed["message"].replace("/file", "").replace("/etc", "/etc/passwd")


def test_tmpfs_takes_its_options(box: Box) -> None:
    mounts = [
        {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev"]},
        {
            "destination": "/own",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["size=1m", "mode=700", "uid=5", "noexec"],
        },
    ]
    script = (
        "stat -c '%a' /tmp; stat -c '%a %u' /own; grep ' /own ' /proc/mounts; dd if=/dev/zero of=/own/x bs=1M count=2"
    )
    result = box.run(["sh", "-c", script], {"+mounts": mounts})
    assert result.out.splitlines()[:2] == ["1777", "700 5"]  # /tmp keeps the image's mode
    assert "noexec" in result.out
    assert "No space left" in result.err


def test_an_unknown_option_is_named_by_the_kernel(box: Box) -> None:
    entry = {"destination": "/x", "type": "tmpfs", "source": "tmpfs", "options": ["sise=1m"]}
    result = box.run(["true"], {"+mounts": [entry]})
    assert result.failed["message"] == 'error mounting "tmpfs" to rootfs at "/x": tmpfs: Unknown parameter \'sise\''


def test_copy_up_fills_a_tmpfs_from_what_it_covers(box: Box) -> None:
    (layer(box) / "app/sub").mkdir(parents=True)
    (box.directory / "layer1/app/file").write_text("copied\n")
    (box.directory / "layer1/app/sub/link").symlink_to("../file")
    (box.directory / "layer1/app/file").chmod(0o640)
    os.utime(box.directory / "layer1/app/file", (0, 1_234_567_891))
    (box.directory / "layer1/app/again").hardlink_to(box.directory / "layer1/app/file")
    os.mkfifo(box.directory / "layer1/app/fifo")
    entry = {"destination": "/app", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup", "ro"]}
    script = "cat /app/sub/link; stat -c '%a %h %Y' /app/file; test -p /app/fifo && echo fifo; touch /app/x"
    result = box.run(["sh", "-c", script], {"+mounts": [entry]})
    assert result.out == "copied\n640 2 1234567891\nfifo\n"
    assert "Read-only file system" in result.err


@pytest.mark.skipif(RELEASE < (6, 8), reason="mountinfo has mounts in another order before Linux 6.8")
@pytest.mark.parametrize("mapped", [False, True])
def test_mounts_are_listed_in_the_order_of_the_specification(box: Box, source: Path, mapped: bool) -> None:
    places = ["/proc", "/dev", "/dev/pts", "/one", "/dev/shm", "/two", "/sys"]
    kinds = {mount["destination"]: mount for mount in defaults.mounts()}
    changes: dict[str, Any] = {"mounts": [kinds.get(place) or bind(source, place) for place in places]}
    changes |= dict.fromkeys(("linux.maskedPaths", "linux.readonlyPaths"), [])
    if mapped:
        box.idmap = True
        ids = [{"containerID": 0, "hostID": 300_000, "size": 65_536}]
        entries = [{"type": kind} for kind in (*defaults.NAMESPACES, "user")]
        changes |= {"linux.namespaces": entries, "linux.uidMappings": ids, "linux.gidMappings": ids}
    result = box.run(["awk", "{print $5}", "/proc/self/mountinfo"], changes)
    assert result.out.split() == ["/", *places]


def test_slave_mounts_hear_from_the_host_and_private_ones_do_not(box: Box, source: Path) -> None:
    m.mount(str(source), str(source), None, m.MS_BIND)
    m.mount(None, str(source), None, m.MS_SHARED)
    try:
        script = "grep ' /data ' /proc/self/mountinfo"
        private = box.run(["sh", "-c", script], {"+mounts": [bind(source, "/data", "rprivate")]})
        slave = box.run(["sh", "-c", script], {"+mounts": [bind(source, "/data", "rslave")]})
        changes = {"+mounts": [bind(source, "/data", "rshared")], "linux.rootfsPropagation": "shared"}
        shared = box.run(["sh", "-c", script], changes)
    finally:
        m.umount2(str(source), m.MNT_DETACH)
    assert "master:" not in private.out
    assert "shared:" not in private.out
    assert "master:" in slave.out
    assert "shared:" in shared.out


def test_devices(box: Box) -> None:
    nodes = [{"path": "/dev/mine/zero", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 3, "gid": 4}]
    result = box.run(["stat", "-c", "%a %u %g %t:%T", "/dev/mine/zero"], {"linux.devices": nodes})
    assert result.out.split() == ["640", "3", "4", "1:5"]
    wrong = box.run(["true"], {"linux.devices": [{"path": "/dev/x", "type": "z"}]})
    assert wrong.failed["step"] == "devices"


def test_a_dev_null_that_is_something_else_masks_nothing(box: Box) -> None:
    mounts = [one for one in box.spec(["true"])["mounts"] if not one["destination"].startswith("/dev")]
    (layer(box) / "dev").mkdir()
    (box.directory / "layer1/dev/null").write_text("gotcha")
    result = box.run(["true"], {"mounts": mounts})
    assert "is not the null device" in result.failed["message"]
    assert "what is mounted on `/dev` hides" in result.failed["message"]


def test_many_layers_with_long_paths(box: Box) -> None:
    deep = box.directory / "/".join(["x" * 60] * 5)
    for number in range(60):
        place = deep / str(number)
        place.mkdir(parents=True)
        (place / f"f{number}").touch()
        box.lowers.insert(0, str(place))
    result = box.run(["sh", "-c", "ls / | grep -c ^f"])
    assert result.out.strip() == "60"


def test_kernels_without_the_new_overlay_api(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux 6.1 knows no `lowerdir+`: the same layers through mount(2)'s one page of options."""
    box.here = True
    monkeypatch.setattr(overlay, "_one_by_one", False)
    test_many_layers_with_long_paths(box)
    result = box.run(["sh", "-c", "echo kept > /file; grep ' / ' /proc/mounts"])
    assert "/proc/self/fd/" in result.out
    assert (box.directory / "c2/upper/file").read_text() == "kept\n"
    assert box.run(["true"], {"linux.rootfsPropagation": "shared"}).code == 0


def test_what_the_kernel_knows_is_asked_once_and_without_a_complaint(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlay, "_one_by_one", None)
    log = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    os.lseek(log, 0, os.SEEK_END)
    known = overlay.takes_lower_directories()
    monkeypatch.setattr(overlay.m, "fsopen", None)
    assert overlay.takes_lower_directories() == known
    monkeypatch.undo()
    os.close(overlay.open_overlay([f"lowerdir={box.rootfs}:{box.directory}"]))
    said = b""
    with suppress(BlockingIOError):
        while True:
            said += os.read(log, 8192)
    os.close(log)
    assert b"lowerdir+" not in said and b"no-such-option" not in said


def test_a_single_layer_without_upper_is_readonly(box: Box) -> None:
    fd = overlay.open_overlay([f"lowerdir={box.rootfs}"])
    try:
        with pytest.raises(OSError, match="Read-only"):
            os.open("x", os.O_CREAT | os.O_WRONLY, dir_fd=fd)
    finally:
        os.close(fd)


def test_a_missing_layer_is_named(box: Box) -> None:
    box.lowers.append(str(box.directory / "lost"))
    result = box.run(["true"])
    assert (
        result.failed["message"] == f"mount overlay: layer directory `{box.directory}/lost`: no such file or directory"
    )
