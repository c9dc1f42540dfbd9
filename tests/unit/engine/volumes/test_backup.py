"""Restores of volumes: beside each other, beside what uses the volume, and after ketchd was killed during one."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from ketch.engine.volumes import backup, replacement
from ketch.engine.volumes.backup import VolumeBackups
from ketch.engine.volumes.store import SCHEMA, VolumeStore
from ketch.errors import Conflict, DataLoss, InvalidArgument, NotFound
from ketch.storage.database.db import Database
from tests.support.waiting import eventually, patient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

LEFT = ".ketch-restore-0123456789abcdef"


@pytest.fixture
def store(tmp_path: Path):
    """An engine's volumes, of which there is one."""
    db = Database(str(tmp_path / "ketch.db"), [SCHEMA])
    store = VolumeStore(db, str(tmp_path), lambda _name: [])
    store.create("one")
    yield store
    db.close()


@pytest.fixture
def place(store: VolumeStore) -> Path:
    """The directory of the volume."""
    return Path(store.get("one").mountpoint)


def backups(store: VolumeStore) -> VolumeBackups:
    return VolumeBackups(store, SimpleNamespace(all=list), SimpleNamespace())


async def body(*names: str) -> AsyncIterator[bytes]:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        root = tarfile.TarInfo(".")
        root.type, root.mode, root.uid = tarfile.DIRTYPE, 0o1750, os.geteuid()
        archive.addfile(root)
        for name in names:
            archive.addfile(tarfile.TarInfo(name))
    yield data.getvalue()


def names_in(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir())


def restore(store: VolumeStore, *names: str, force: bool = False) -> list[str]:
    """What is in the volume after a restore of these files."""
    asyncio.run(backups(store).restore("one", body(*names), force=force))
    return names_in(Path(store.get("one").mountpoint))


def test_what_was_left_counts_as_nothing_and_goes(store: VolumeStore, place: Path):
    (place / LEFT / "half").mkdir(parents=True)
    assert restore(store, "new") == ["new"]


@pytest.mark.parametrize("name", ["precious.db", ".ketch-restore-notes", f"{LEFT}0", f"{LEFT}.whole"])
def test_files_beside_what_was_left_stay(store: VolumeStore, place: Path, name: str):
    (place / LEFT).mkdir()
    (place / name).mkdir()
    (place / name / "file").write_text("kept")
    with pytest.raises(Conflict, match="not empty"):
        restore(store, "new")
    assert (place / name / "file").read_text() == "kept"
    assert restore(store, "new", force=True) == ["new"]


def test_a_file_that_came_during_the_restore_stays(store: VolumeStore, place: Path):
    async def written_meanwhile() -> AsyncIterator[bytes]:
        await eventually(lambda: list(place.iterdir()), "the restore begins")
        (place / "new").write_text("kept")
        async for data in body("new"):
            yield data

    async def work() -> None:
        await asyncio.wait_for(backups(store).restore("one", written_meanwhile()), patient(20))

    with pytest.raises(Conflict, match="not empty"):
        asyncio.run(work())
    assert [(path.name, path.read_text()) for path in place.iterdir()] == [("new", "kept")]


async def removed(store: VolumeStore) -> None:
    await store.remove("one")


async def restored(store: VolumeStore) -> None:
    await backups(store).restore("one", body("second"), force=True)


async def started(store: VolumeStore) -> None:
    with store.starting(["one"]):
        pass


async def read(store: VolumeStore) -> None:
    await asyncio.to_thread(store.attach, ["one"], "backup")


@pytest.mark.parametrize("use", [removed, restored, started, read])
def test_nobody_else_has_a_volume_that_is_restored(
    store: VolumeStore, place: Path, use: Callable[[VolumeStore], Awaitable[None]]
):
    async def work() -> None:
        goes_on = asyncio.Event()

        async def slow() -> AsyncIterator[bytes]:
            await goes_on.wait()
            async for data in body("first"):
                yield data

        first = asyncio.create_task(backups(store).restore("one", slow()))
        await eventually(lambda: list(place.iterdir()), "the restore begins")
        with pytest.raises(Conflict, match="being restored"):
            await use(store)
        goes_on.set()
        await first
        assert names_in(place) == ["first"]
        await use(store)

    asyncio.run(asyncio.wait_for(work(), patient(20)))


def test_a_volume_of_a_container_that_starts_is_not_restored(store: VolumeStore):
    with store.starting(["one"]), store.starting(["one", "other"]):
        with pytest.raises(Conflict, match="starts"):
            restore(store, "new")
    assert restore(store, "new") == ["new"]


def killed_at(number: int, place: Path, journal: str) -> bool:
    """Replace the content by two files in a process that ends before that renaming; False: it has ended its work."""
    unpacked = Path(replacement.begin(str(place)))
    for name in ("b", "c"):
        (unpacked / name).write_text("new")
    unpacked.chmod(0o1750)
    pid = os.fork()
    if not pid:
        passed, rename = 0, os.rename

        def renamed(source: str, target: str, **places: int) -> None:
            nonlocal passed
            if passed == number:
                os._exit(9)
            passed += 1
            rename(source, target, **places)

        os.rename = renamed
        replacement.replace(str(unpacked), journal)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9


@pytest.mark.parametrize("kept", [[], ["a", "b", ".ketch-restore-ffffffffffffffff.whole"]])
def test_a_restore_that_is_cut_off_is_undone_or_finished(store: VolumeStore, place: Path, kept: list[str]):
    """Killed before each of its renamings: after the next start all is as before, or as it should be."""
    ends = set()
    for number in range(20):
        for name in kept:
            (place / name).mkdir()
        ended = not killed_at(number, place, store.journal_of("one"))
        assert ended or number == 0 or os.path.exists(store.journal_of("one"))
        store.finish_pending()
        found = [name for name in names_in(place) if not replacement.is_leftover(name)]
        assert found in (sorted(kept), ["b", "c"])
        assert (place.stat().st_mode & 0o7777 == 0o1750) == (found == ["b", "c"])
        assert not os.path.exists(store.journal_of("one"))
        ends.add((*found,))
        assert restore(store, force=True) == []
        place.chmod(0o755)
        if ended:
            break
    assert ended and ends == {(*sorted(kept),), ("b", "c")}


def test_a_startup_does_not_wait_for_what_a_restore_removes(store: VolumeStore, place: Path):
    (place / "old").write_text("old")
    assert killed_at(2, place, store.journal_of("one"))
    later: list[Callable[[], None]] = []
    store._later = later.append
    store.finish_pending()
    root = place.parent.parent
    assert names_in(place) == ["b", "c"]
    assert len(later) == 1 and [path.name for path in root.glob(".gone-*/*")] == ["old"]
    later[0]()
    assert names_in(root) == ["one"]


def test_the_next_restore_finishes_the_last_one(store: VolumeStore, place: Path):
    assert killed_at(2, place, store.journal_of("one"))
    with pytest.raises(Conflict, match="not empty"):
        restore(store, "new")
    assert names_in(place) == ["b", "c"]


@pytest.mark.parametrize("written", ["", "../other", f"{LEFT}\n", "\xff"])
def test_a_journal_that_was_not_written_is_nothing(store: VolumeStore, place: Path, written: str):
    (place / f"{LEFT}.whole").mkdir()
    Path(store.journal_of("one")).write_text(written, encoding="latin-1")
    store.finish_pending()
    assert names_in(place) == [f"{LEFT}.whole"] and not os.path.exists(store.journal_of("one"))


RENAME = os.rename


def all_but_stuck(source: str, target: str, **places: int) -> None:
    """As rename(2), where the file `stuck` cannot be moved."""
    if source == "stuck":
        raise PermissionError(1, "Operation not permitted", source)
    RENAME(source, target, **places)


def test_what_cannot_be_put_aside_stays(store: VolumeStore, place: Path, monkeypatch):
    for name in ("a", "b", "stuck"):
        (place / name).write_text("kept")

    monkeypatch.setattr(os, "rename", all_but_stuck)
    with pytest.raises(PermissionError):
        restore(store, "new", force=True)
    assert {path.name: path.read_text() for path in place.iterdir()} == dict.fromkeys(("a", "b", "stuck"), "kept")
    assert not os.path.exists(store.journal_of("one"))


def test_a_restore_that_cannot_be_finished_is_given_up(store: VolumeStore, place: Path, monkeypatch):
    """Something has been put there meanwhile that cannot be moved: what was there before is there again."""
    for name in ("a", "stuck"):
        (place / name).write_text("kept")
    assert killed_at(1, place, store.journal_of("one"))
    with monkeypatch.context() as broken:
        broken.setattr(os, "rename", all_but_stuck)
        store.finish_pending()
    store.finish_pending()
    assert {path.name: path.read_text() for path in place.iterdir()} == {"a": "kept", "stuck": "kept"}
    with store.starting(["one"]):
        pass


def test_a_container_does_not_start_with_half_a_restore(store: VolumeStore, place: Path):
    assert killed_at(2, place, store.journal_of("one"))
    with pytest.raises(DataLoss, match="broke off"), store.starting(["one"]):
        pass
    store.finish_pending()
    with store.starting(["one"]):
        pass


def test_what_was_unpacked_counts_as_nothing_before_it_goes(store: VolumeStore, place: Path, monkeypatch):
    """Killed while it is removed after a refusal: the next start must not take what is left for all of it."""
    (place / "a").write_text("kept")
    (place / "stuck").write_text("kept")
    unpacked = Path(replacement.begin(str(place)))
    for name in ("x", "y"):
        (unpacked / name).write_text("new")

    def killed(path: str) -> None:
        os.unlink(os.path.join(path, "x"))
        raise InterruptedError

    with monkeypatch.context() as broken:
        broken.setattr(os, "rename", all_but_stuck)
        broken.setattr(replacement, "try_to_remove", killed)
        with pytest.raises(InterruptedError):
            replacement.replace(str(unpacked), store.journal_of("one"))
    store.finish_pending()
    assert [name for name in names_in(place) if not replacement.is_leftover(name)] == ["a", "stuck"]


def test_without_room_for_the_journal_nothing_is_left(store: VolumeStore, place: Path):
    unpacked = Path(replacement.begin(str(place)))
    (unpacked / "x").write_text("new")
    with pytest.raises(FileNotFoundError):
        replacement.replace(str(unpacked), str(place / "none" / "journal"))
    assert names_in(place) == []


@pytest.fixture
def at(monkeypatch) -> Callable[[str, Callable[[], None]], None]:
    """Has something done once at a failpoint of a replacement."""

    def arm(point: str, work: Callable[[], None]) -> None:
        passed: list[str] = []

        def reached(name: str) -> None:
            passed.append(name)
            if passed.count(point) == 1 and name == point:
                work()

        monkeypatch.setattr(replacement, "failpoint", reached)

    return arm


@pytest.mark.parametrize(
    ("point", "suffix"),
    [("noted", ".whole"), ("noted", ".old"), ("aside", ".whole"), ("aside", ".old"), ("moving", ".moving")],
)
def test_who_writes_there_by_another_way_leads_a_restore_nowhere_else(
    store: VolumeStore, place: Path, at: Callable[[str, Callable[[], None]], None], point: str, suffix: str
):
    """A directory of the restore's own is exchanged for a link: nothing is changed behind it."""
    outside = place.parent.parent.parent / "outside"
    outside.mkdir(mode=0o700)
    (outside / "theirs").write_text("theirs")
    before = outside.stat()
    (place / "kept").write_text("kept")

    def exchange() -> None:
        (entry,) = [path for path in place.iterdir() if replacement.is_leftover(path.name[:31])][:1]
        swapped = place / (entry.name[:31] + suffix)
        if swapped.exists():
            swapped.rename(place.parent / "away")
        swapped.symlink_to(outside)

    at(f"volume.restore-{point}", exchange)
    with contextlib.suppress(OSError):
        restore(store, "new", force=True)
    store.finish_pending()
    assert [path.name for path in outside.iterdir()] == ["theirs"]
    assert (outside.stat().st_mode, outside.stat().st_mtime_ns) == (before.st_mode, before.st_mtime_ns)
    assert not os.path.exists(store.journal_of("one"))


def test_what_was_there_comes_back_when_the_new_content_is_taken_away(
    store: VolumeStore, place: Path, at: Callable[[str, Callable[[], None]], None]
):
    (place / "kept").write_text("kept")

    def taken() -> None:
        (moving,) = place.glob("*.moving")
        moving.rename(place.parent / "away")

    at("volume.restore-moving", taken)
    for _ in range(2):
        with contextlib.suppress(OSError):
            store.finish_pending() if (place.parent / "away").exists() else restore(store, "new", force=True)
    assert names_in(place) == ["kept"]


def test_the_order_on_the_disk(store: VolumeStore, place: Path, monkeypatch):
    """What must be on the disk before the next step is, in case the machine loses its power between the two."""
    done: list[str] = []
    flush, fsync = replacement.flush.file_system, os.fsync

    def renamed(source: str, target: str, **places: int) -> None:
        done.append(f"{source[31:]} to {target[31:]}" if source != target else f"move {source}")
        RENAME(source, target, **places)

    def flushed(directory: str) -> None:
        done.append("flush")
        flush(directory)

    def synced(fd: int) -> None:
        done.append("directory" if os.path.isdir(f"/proc/self/fd/{fd}") else "journal")
        fsync(fd)

    (place / "kept").write_text("kept")
    monkeypatch.setattr(os, "rename", renamed)
    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(replacement.flush, "file_system", flushed)
    monkeypatch.setattr(replacement, "remove_tree", lambda _path: done.append("remove"))
    restore(store, "new", force=True)
    assert done == [
        *("flush", "journal", "directory", " to .whole"),
        *("move kept", "flush", ".whole to .moving"),
        *("move new", "flush", "remove", "flush"),
    ]


@pytest.mark.parametrize("force", [False, True])
def test_a_volume_that_is_read_is_not_restored(store: VolumeStore, place: Path, force: bool):
    """Else the reader would get one half of before and one of later."""
    (place / "kept").write_text("kept")
    with store.used(["one"], "reader"), pytest.raises(Conflict, match="its files are in use"):
        restore(store, "new", force=force)
    assert names_in(place) == ["kept"]
    assert restore(store, "new", force=True) == ["new"]


def test_half_a_restore_is_not_read(store: VolumeStore, place: Path):
    """Neither is it backed up, nor shown as a stopped container's files; a restore ends it."""
    (place / "old").mkdir()
    assert killed_at(2, place, store.journal_of("one"))
    with pytest.raises(DataLoss, match="broke off"):
        store.attach(["one"], "reader")
    with pytest.raises(DataLoss, match="broke off"), store.used(["one"], "reader"):
        pass
    assert restore(store, "new", force=True) == ["new"]
    with store.used(["one"], "reader"):
        pass


def copier(store: VolumeStore) -> VolumeBackups:
    return VolumeBackups(store, SimpleNamespace(all=list), SimpleNamespace(start=asyncio.ensure_future))


async def copied(store: VolumeStore, name: str) -> list[int]:
    return [size async for size in copier(store).copy(name, "one")]


def test_a_copy_has_the_files_of_the_other_volume(store: VolumeStore, place: Path):
    (place / "file").write_text("kept")
    os.link(place / "file", place / "more")
    place.chmod(0o1770)
    assert asyncio.run(copied(store, "two"))[-1] == 4
    there = Path(store.get("two").mountpoint)
    assert names_in(there) == ["file", "more"] and (there / "file").stat().st_nlink == 2
    assert there.stat().st_mode & 0o7777 == 0o1770
    with pytest.raises(Conflict, match="not empty"):
        asyncio.run(copied(store, "two"))
    with pytest.raises(InvalidArgument, match="into itself"):
        asyncio.run(copied(store, "one"))
    assert names_in(place) == ["file", "more"]


def test_a_copy_that_nobody_waits_for_leaves_no_volume(store: VolumeStore, place: Path, monkeypatch):
    monkeypatch.setattr(backup, "_PROGRESS_S", 0)
    for number in range(2000):
        (place / str(number)).touch()

    async def left() -> None:
        sizes = copier(store).copy("two", "one")
        assert await anext(sizes) == 0
        await sizes.aclose()

    asyncio.run(left())
    assert not store.has("two")


def test_a_copy_of_no_volume_makes_none(store: VolumeStore):
    with pytest.raises(NotFound):
        asyncio.run(anext(copier(store).copy("two", "three")))
    assert not store.has("two")
